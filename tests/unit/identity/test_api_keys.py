"""The form of API keys, and the ring that recognises them."""

import hashlib
import re
import tracemalloc
import zlib
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.identity.issued import NOW, Changed, KeyRow

from legivellum.identity.api_keys import MintedKey, mint, well_formed
from legivellum.identity.caller import AuthFailure, Credential, FailureReason
from legivellum.identity.keyring import KeyRing


def row(key: MintedKey, expires_at: datetime | None = None) -> KeyRow:
    return KeyRow(key.sha256, key.id, expires_at)


def ring(*rows: KeyRow) -> KeyRing:
    made = KeyRing()
    made.apply(Changed(full=True, api_keys=rows))
    return made


def reason(result: object) -> FailureReason | None:
    return result.reason if isinstance(result, AuthFailure) else None


@pytest.mark.invariant("EXT-10")
def test_a_key_has_the_form_of_the_decision() -> None:
    """Prefix, id of 10, secret of 43, CRC32 of everything before it in 6 base62 digits; the digest is of the whole."""
    key = mint()
    match = re.fullmatch(r"mgk_([0-9A-Za-z]{10})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", key.key)
    assert match is not None
    assert match[1] == key.id
    digits = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
    crc = 0
    for digit in match[3]:
        crc = crc * 62 + digits.index(digit)
    assert crc == zlib.crc32(key.key[:-6].encode())
    assert key.sha256 == hashlib.sha256(key.key.encode()).hexdigest()
    assert key.key not in repr(key)


def test_a_known_key_stays_what_it_was() -> None:
    """A key written down long ago is still well formed: the form is a contract with people's Secrets."""
    assert well_formed(b"mgk_4f9k2m1q0z_" + b"a" * 43 + b"1F2ihj")


@given(st.binary(max_size=80) | st.from_regex(rb"mgk_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}", fullmatch=True))
def test_junk_is_malformed(value: bytes) -> None:
    """Anything without a right checksum is refused by its form alone (one in 2^32 passes by luck)."""
    assert reason(KeyRing().verify(value, NOW)) in (FailureReason.KEY_MALFORMED, FailureReason.KEY_UNKNOWN)
    assert well_formed(value) is (reason(KeyRing().verify(value, NOW)) is FailureReason.KEY_UNKNOWN)


@pytest.mark.parametrize("at", range(64))
def test_one_wrong_character_is_noticed_before_any_lookup(at: int) -> None:
    """The checksum catches a typing error at every position."""
    key = bytearray(mint("4f9k2m1q0z").key.encode())
    key[at] = ord("1") if key[at] != ord("1") else ord("2")
    assert not well_formed(bytes(key))


def test_a_declared_key_is_recognised() -> None:
    """A key whose digest was published is recognised by that digest, never by anything else of it."""
    key, other = mint(), mint()
    keys = ring(row(key), row(other))
    assert keys.verify(key.key.encode(), NOW) == (Credential("key", "", key.sha256, None), None)
    assert reason(keys.verify(mint().key.encode(), NOW)) is FailureReason.KEY_UNKNOWN
    assert reason(keys.verify(mint(key.id).key.encode(), NOW)) is FailureReason.KEY_UNKNOWN


def test_one_id_in_two_places_blocks_nobody() -> None:
    """Several keys with one id are all recognised, whoever took the id second (D-45)."""
    mine, theirs = mint("4f9k2m1q0z"), mint("4f9k2m1q0z")
    keys = ring(row(mine), row(theirs))
    assert len(keys) == 2
    for key in (mine, theirs):
        token_claims = keys.verify(key.key.encode(), NOW)
        assert not isinstance(token_claims, AuthFailure)
        assert token_claims[0].subject == key.sha256
    keys.apply(Changed(gone_api_keys=(mine.sha256,)))
    assert reason(keys.verify(mine.key.encode(), NOW)) is FailureReason.KEY_UNKNOWN
    assert not isinstance(keys.verify(theirs.key.encode(), NOW), AuthFailure)


@pytest.mark.invariant("EXT-10")
def test_expiry_and_revocation() -> None:
    """An expired key is refused as expired; a revoked one is unknown at once, and revoking it again changes nothing."""
    until = datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=60)
    key = mint()
    keys = ring(row(key, until))
    assert keys.verify(key.key.encode(), NOW + 59) == (Credential("key", "", key.sha256, None), until)
    assert reason(keys.verify(key.key.encode(), NOW + 60)) is FailureReason.KEY_EXPIRED
    for _ in range(2):
        keys.apply(Changed(gone_api_keys=(key.sha256,)))
        assert reason(keys.verify(key.key.encode(), NOW)) is FailureReason.KEY_UNKNOWN
    assert len(keys) == 0


def test_rotation_overlaps() -> None:
    """Old and new key of a principal are both recognised until the old one is removed."""
    old, new = mint(), mint()
    keys = ring(row(old))
    keys.apply(Changed(api_keys=(row(new),)))
    assert not isinstance(keys.verify(old.key.encode(), NOW), AuthFailure)
    keys.apply(Changed(gone_api_keys=(old.sha256,)))
    assert not isinstance(keys.verify(new.key.encode(), NOW), AuthFailure)
    assert reason(keys.verify(old.key.encode(), NOW)) is FailureReason.KEY_UNKNOWN


def test_a_changed_expiry_replaces_the_old_one() -> None:
    """The same digest published again is one key, with its new expiry."""
    key = mint()
    keys = ring(row(key))
    keys.apply(Changed(api_keys=(row(key, datetime.fromtimestamp(NOW - 1, UTC)),)))
    assert len(keys) == 1
    assert reason(keys.verify(key.key.encode(), NOW)) is FailureReason.KEY_EXPIRED


def test_a_full_load_forgets_what_was() -> None:
    """After a full load only what it names is recognised."""
    old, new = mint(), mint()
    keys = ring(row(old))
    keys.apply(Changed(full=True, api_keys=(row(new),)))
    assert reason(keys.verify(old.key.encode(), NOW)) is FailureReason.KEY_UNKNOWN
    assert len(keys) == 1


def test_a_row_that_is_no_digest_hinders_nobody() -> None:
    """A broken row matches no key and does not keep the others from being loaded."""
    key = mint()
    keys = ring(KeyRow("not a digest", key.id), KeyRow("", "x"), row(key))
    keys.apply(Changed(gone_api_keys=("neither",)))
    assert len(keys) == 1
    assert not isinstance(keys.verify(key.key.encode(), NOW), AuthFailure)


@pytest.mark.invariant("EXT-01")
def test_two_hundred_thousand_keys_stay_small() -> None:
    """A process can hold 200,000 keys in less than 60 MB, and finds each by its id alone."""
    rows = tuple(KeyRow(hashlib.sha256(str(n).encode()).hexdigest(), f"{n:010d}") for n in range(200_000))
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    keys = ring(*rows)
    size = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert len(keys) == 200_000
    assert size < 60_000_000
    # What a look-up touches: the entries of one id, however many ids there are.
    assert max(len(entries) for entries in keys._by_id.values()) == 40


def test_a_session_knows_its_key_by_the_digest() -> None:
    """As long as the key stands: what is published of it later counts, also when it was looked up before."""
    key, other = mint(), mint()
    made = ring(row(key), row(other))
    assert made.is_current(key.sha256, NOW)
    made.apply(Changed(api_keys=[row(key, datetime.fromtimestamp(NOW + 5, UTC))]))
    assert made.is_current(key.sha256, NOW)
    assert not made.is_current(key.sha256, NOW + 5)
    made.apply(Changed(gone_api_keys=[key.sha256]))
    assert not made.is_current(key.sha256, NOW)
    assert made.is_current(other.sha256, NOW)
    assert not made.is_current(mint().sha256, NOW)
