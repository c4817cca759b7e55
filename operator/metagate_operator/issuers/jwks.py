"""What a fetched key set changes: pure policy over what is known and what was found.

Keys are taken one by one, so a bad one never takes a good one with it. An issuer that publishes nothing, or nothing
readable, changes nothing: a broken proxy must not log out a cluster. A key that disappears stays in use until it was
missed three times and for ten minutes, because a set behind a cache or a load balancer may be older than the last one.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from legivellum.base.public_jwk import ALGORITHMS, parse_jwk_set
from metagate_store.rows import IssuerKeyRow

LARGEST_SET: Final = 256 * 1024
"""Bytes of a key set document."""
MOST_KEYS: Final = 64
MISSES: Final = 3
MISSED_FOR: Final = timedelta(minutes=10)
FORGOTTEN_AFTER: Final = timedelta(hours=24)
"""How long a retired key is still shown before its row goes."""


class InvalidKeySet(Exception):  # noqa: N818 - it names what was found, not a mistake of the caller
    """The document is not a set of keys that anything can be verified with; nothing changes."""


@dataclass(frozen=True, slots=True)
class UsableKey:
    """One usable public key: only the members that verifying needs."""

    kid: str
    jwk: Mapping[str, Any]
    alg: str | None


@dataclass(frozen=True, slots=True)
class ParsedKeySet:
    """`skipped`: why each key that is not in `keys` is not, as `key 2 must have a kid`; nothing of the key itself."""

    keys: tuple[UsableKey, ...]
    skipped: str


@dataclass(frozen=True, slots=True)
class KeyChanges:
    """What to store: rows to write, and keys whose rows go."""

    rows: tuple[IssuerKeyRow, ...]
    gone: tuple[tuple[str, str], ...]


def parse_key_set(document: bytes, algorithms: Collection[str] = ALGORITHMS) -> ParsedKeySet:
    """The usable keys of a JWKS document. `algorithms`: those that the issuer may sign with.

    Raises:
        InvalidKeySet: too large, not JSON, not a key set, or without one usable key.

    """
    if len(document) > LARGEST_SET:
        raise InvalidKeySet(f"the key set is larger than {LARGEST_SET // 1024} KiB")
    try:
        value = json.loads(document.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise InvalidKeySet("the answer is not JSON") from error
    keys = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(keys, list):
        raise InvalidKeySet("the answer is not a key set: it has no list of keys")
    if len(keys) > MOST_KEYS:
        raise InvalidKeySet(f"the key set has more than {MOST_KEYS} keys")
    parsed = parse_jwk_set(keys, algorithms)
    if not parsed.keys:
        raise InvalidKeySet("the key set has no usable key" + (f": {parsed.skipped_text}" if parsed.skipped else ""))
    usable = (UsableKey(key.kid or "", key.members, key.members.get("alg")) for key in parsed.keys)
    return ParsedKeySet(tuple(usable), parsed.skipped_text)


def merge_keys(issuer: str, known: Iterable[IssuerKeyRow], published: Iterable[UsableKey], now: datetime) -> KeyChanges:
    """What the keys of an issuer are now, given what was known and what was just found (at least one key)."""
    before = {row.kid: row for row in known}
    rows = [_seen(issuer, before.pop(key.kid, None), key, now) for key in published]
    gone = []
    for row in before.values():
        if row.retired_at is None:
            rows.append(_missed(row, now))
        elif now - row.retired_at >= FORGOTTEN_AFTER:
            gone.append((issuer, row.kid))
    return KeyChanges(tuple(rows), tuple(gone))


def _seen(issuer: str, before: IssuerKeyRow | None, key: UsableKey, now: datetime) -> IssuerKeyRow:
    first = now if before is None or before.first_seen is None else before.first_seen
    return IssuerKeyRow(issuer, key.kid, key.jwk, key.alg, first_seen=first, last_seen=now)


def _missed(row: IssuerKeyRow, now: datetime) -> IssuerKeyRow:
    misses = row.misses + 1
    since = row.last_seen or now
    retires = misses >= MISSES and now - since >= MISSED_FOR
    return replace(row, misses=misses, retired_at=now if retires else None)
