"""Secrets that must be nowhere, and where to look for them (INV-034)."""

import base64
import secrets
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from metagate_postgres.binaries import bundled_installation


def canary() -> str:
    """A value that looks like what people keep in secrets, and that nothing else says."""
    return "cAnary" + secrets.token_hex(16)


def spellings(value: str) -> Iterable[str]:
    """The value as it is, and as a dump or a careless program might write it."""
    raw = value.encode()
    yield value
    yield raw.hex()
    for skipped in range(3):  # base64 of it in the middle of other text
        yield base64.b64encode(b"\0" * skipped + raw).decode()[4:-4]


def canaries_in(values: Mapping[str, str], places: Mapping[str, str]) -> list[str]:
    """Which canary is in which place: what a test wants to be empty."""
    assert all(values.values())
    assert all(places.values()), f"nothing was said at {[name for name, text in places.items() if not text]}"
    return [
        f"{name} is in {place}"
        for place, text in places.items()
        for name, value in values.items()
        if any(spelling in text for spelling in spellings(value))
    ]


def dump(dsn: str) -> str:
    """Everything that a database holds, in every schema."""
    binary = Path(bundled_installation()) / "bin" / "pg_dump"
    return subprocess.run([binary, "--dbname", dsn], check=True, capture_output=True, text=True, timeout=60).stdout
