"""The form of an API key (D-30): `mgk_<id>_<secret><crc>`.

Ten base62 characters of id, forty-three of secret (256 bits), six of checksum. The id finds the key, the secret proves
it, the checksum lets a typing error or random junk be refused without looking anywhere. The prefix lets secret
scanners recognise a leaked key. Only the sha256 of the whole key is ever declared or stored: with 256 random bits
there is nothing for a slow hash to protect, and a slow hash is a gift to whoever sends junk.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from dataclasses import dataclass, field
from typing import Final

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

_FORM: Final = re.compile(rb"mgk_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}\Z")
_VALUE: Final = {character: value for value, character in enumerate(ALPHABET.encode())}


@dataclass(frozen=True, slots=True)
class MintedKey:
    """A new key. `key` is shown once and kept by nobody; `id` and `sha256` go into the Principal."""

    key: str = field(repr=False)
    id: str
    sha256: str


def mint(key_id: str | None = None) -> MintedKey:
    """A new random key; `key_id` (10 base62 characters) only where a test needs to know it."""
    chosen = _random(10) if key_id is None else key_id
    body = f"mgk_{chosen}_{_random(43)}"
    key = body + _digits(zlib.crc32(body.encode()))
    if not _FORM.match(key.encode()):
        raise ValueError("a key id is 10 characters of 0-9A-Za-z")
    return MintedKey(key=key, id=chosen, sha256=digest_of(key))


def well_formed(key: bytes) -> bool:
    """Whether this has the form of a key and its checksum is right. Says nothing about whether it is anybody's."""
    return _FORM.match(key) is not None and _number(key[58:]) == zlib.crc32(key[:58])


def id_of(key: bytes) -> str:
    """The id of a well-formed key."""
    return key[4:14].decode("ascii")


def digest_of(key: str | bytes) -> str:
    """The sha256 of the whole key as 64 hex digits: what a Principal declares."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def _digits(value: int) -> str:
    digits = ""
    for _ in range(6):
        value, rest = divmod(value, 62)
        digits = ALPHABET[rest] + digits
    return digits


def _number(digits: bytes) -> int:
    value = 0
    for digit in digits:
        value = value * 62 + _VALUE[digit]
    return value
