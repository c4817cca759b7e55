"""`metagate dev --with cognigate`: what a worker needs on one machine beside what its variables say."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

_KNOWN_SECONDS: Final = 15.0


def worker_environment(urls: Mapping[str, str], key_file: Path) -> dict[str, str]:
    """What one machine adds to this process's variables, where they say nothing."""
    given = os.environ  # noqa: TID251 - of a child
    local = {f"METAGATE_{gate.upper()}_URL": url for gate, url in urls.items()}
    if not any(name.startswith("METAGATE_") and name.endswith(("TOKEN_FILE", "API_KEY_FILE")) for name in given):
        local["METAGATE_API_KEY_FILE"] = str(key_file)
    # Without a declared model it works all the same, and says in every output that no language model wrote it.
    local["COGNIGATE_BUILTIN_MODEL"] = "true"
    return {name: value for name, value in local.items() if name not in given}


def wait_until_known(asyncgate: str, key_file: Path) -> None:
    """A worker that is refused ends: so it is started when AsyncGate has read of its Principal, or after a while."""
    from legivellum_worker.gate_client import call
    from legivellum_worker.settings import GateFinder
    from metagate_client.errors import ClientError

    until = time.monotonic() + _KNOWN_SECONDS
    while time.monotonic() < until:
        with suppress(ClientError):
            access = GateFinder(api_key_file=str(key_file), environ={}).find("asyncgate", asyncgate)
            assert access is not None
            call(access, "GET", "/v1/interview")
            return
        time.sleep(0.1)
