"""The valid API keys, in memory, by id (D-45).

Recognising one costs a checksum, a digest and one dictionary look-up, however many there are. A process holds all of
them: about 200 bytes each. Changes arrive one by one as they are published, never as a new list of everything.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import struct
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Final

from legivellum.identity import api_keys
from legivellum.identity.caller import AuthFailure, Changes, Credential, FailureReason, KeyChange

# digest, and when it expires in seconds since the epoch (infinity: never)
_ENTRY: Final = struct.Struct("<32sd")
_NEVER: Final = float("inf")
_LONGEST: Final = 256
_HEX: Final = re.compile(r"[0-9a-fA-F]{64}\Z")

_MALFORMED: Final = AuthFailure(
    FailureReason.KEY_MALFORMED, "This is not an API key: it has another form, or a wrong checksum."
)
_UNKNOWN: Final = AuthFailure(
    FailureReason.KEY_UNKNOWN, "This API key is not known: it was never declared, or it was revoked."
)
_EXPIRED: Final = AuthFailure(FailureReason.KEY_EXPIRED, "This API key has expired: declare a new one and use that.")


class KeyRing:
    """Recognises API keys. Several keys may carry one id (D-45): every one of them is compared, in constant time."""

    def __init__(self) -> None:
        # Packed, because two hundred thousand objects would be four times as large as what they say.
        self._by_id: dict[str, bytes] = {}
        self._count = 0
        self._looked_up: dict[str, float | None] = {}

    def __len__(self) -> int:
        return self._count

    def apply(self, changes: Changes) -> None:
        """Take over what was published: removals, then additions and changes. A key is its digest."""
        self._looked_up.clear()
        if changes.full:
            self._by_id.clear()
            self._count = 0
        self._drop(changes.gone_api_keys)
        for change in changes.api_keys:
            self._put(change)

    def verify(self, value: bytes, now: float) -> tuple[Credential, datetime | None] | AuthFailure:
        """Whether this key stands at `now` (seconds since the epoch), and until when."""
        if len(value) > _LONGEST or not api_keys.well_formed(value):
            return _MALFORMED
        entries = self._by_id.get(api_keys.id_of(value))
        if entries is None:
            return _UNKNOWN
        digest = hashlib.sha256(value).digest()
        expiry: float | None = None
        for stored, expires in _ENTRY.iter_unpack(entries):
            if hmac.compare_digest(stored, digest):
                expiry = expires
        if expiry is None:
            return _UNKNOWN
        if expiry <= now:
            return _EXPIRED
        expires_at = None if expiry == _NEVER else datetime.fromtimestamp(expiry, UTC)
        return Credential("key", "", digest.hex(), None), expires_at

    def is_current(self, sha256: str, now: float) -> bool:
        """Whether the key with this digest (hex) stands at `now`: for a session that has the digest and not the key.

        Entries are found by the id of a key, so this looks at all of them, once after each change of the ring.
        """
        if sha256 not in self._looked_up:
            self._looked_up[sha256] = self._expiry_of(bytes.fromhex(sha256))
        expiry = self._looked_up[sha256]
        return expiry is not None and expiry > now

    def _expiry_of(self, digest: bytes) -> float | None:
        for entries in self._by_id.values():
            if digest in entries:
                for stored, expires in _ENTRY.iter_unpack(entries):
                    if hmac.compare_digest(stored, digest):
                        return float(expires)
        return None

    def _put(self, change: KeyChange) -> None:
        digest = _digest(change.sha256)
        if digest is None:
            return
        expires = _NEVER if change.expires_at is None else change.expires_at.timestamp()
        others = _without(self._by_id.get(change.key_id, b""), {digest})
        self._count += 1 - (len(self._by_id.get(change.key_id, b"")) - len(others)) // _ENTRY.size
        self._by_id[change.key_id] = others + _ENTRY.pack(digest, expires)

    def _drop(self, digests: Iterable[str]) -> None:
        # Only the digest of what has gone is published, not its id. One pass for all of them is cheaper than a second
        # index for every key that stays: 200,000 keys are looked through in about 30 ms.
        gone = {_digest(digest) for digest in digests} - {None}
        if not gone:
            return
        for key_id, entries in list(self._by_id.items()):
            if len(entries) == _ENTRY.size and entries[:32] not in gone:
                continue
            left = _without(entries, gone)
            self._count -= (len(entries) - len(left)) // _ENTRY.size
            if left:
                self._by_id[key_id] = left
            else:
                del self._by_id[key_id]


def _digest(sha256: str) -> bytes | None:
    # A row that is not a digest matches no key. It must not keep the others from being loaded.
    return bytes.fromhex(sha256) if _HEX.match(sha256) else None


def _without(entries: bytes, digests: set[bytes | None]) -> bytes:
    return b"".join(
        entries[at : at + _ENTRY.size]
        for at in range(0, len(entries), _ENTRY.size)
        if entries[at : at + 32] not in digests
    )
