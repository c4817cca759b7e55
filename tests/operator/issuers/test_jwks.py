"""What a fetched key set changes: nothing that a broken or stale document could make it change."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metagate_operator.issuers.jwks import InvalidKeySet, UsableKey, merge_keys, parse_key_set
from metagate_store.rows import IssuerKeyRow

NOW = datetime(2026, 5, 4, 12, tzinfo=UTC)
ISSUER = "https://idp.example.com"
EC = {
    "kty": "EC",
    "crv": "P-256",
    "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
    "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
}


def key(kid: str, **changes: Any) -> dict[str, Any]:
    return {**EC, "kid": kid, **changes}


def document(*keys: Any) -> bytes:
    return json.dumps({"keys": keys}).encode()


def row(kid: str, *, seen: datetime = NOW, misses: int = 0, retired: datetime | None = None) -> IssuerKeyRow:
    return IssuerKeyRow(ISSUER, kid, key(kid), None, first_seen=NOW - timedelta(days=9), last_seen=seen, misses=misses,
                        retired_at=retired)  # fmt: skip


def fetched_keys(*kids: str) -> tuple[UsableKey, ...]:
    return parse_key_set(document(*map(key, kids))).keys


@pytest.mark.parametrize(
    "broken",
    [
        b"",
        b"<html>502</html>",
        b"null",
        b"[]",
        b"{}",
        b'{"keys": {}}',
        b'{"keys": []}',
        b'{"keys": [{"kty": "oct", "kid": "a", "k": "AAAA"}]}',
        document(key("a", d="AAAA")),
        document(*(key(str(n)) for n in range(65))),
        b"[" * 100_000,
        b'{"keys": [' + b" " * 300_000 + b"]}",
        document(key("a")).decode().encode("utf-16"),
        b"\xff\xfe\xfd",
    ],
    ids=lambda value: repr(value[:24]),
)
def test_a_broken_or_empty_set_is_none(broken: bytes) -> None:
    """Nothing, an error page, private or symmetric keys, too many or too much: no set, so nothing changes (F34)."""
    with pytest.raises(InvalidKeySet) as refused:
        parse_key_set(broken)
    assert "AAAA" not in str(refused.value)


def test_keys_are_taken_one_by_one() -> None:
    """A bad key among good ones is left out and told by its position; only public members are kept of the others."""
    small = {"kty": "RSA", "kid": "small", "n": "AQAB", "e": "AQAB"}
    answer = parse_key_set(
        document({"kty": "oct", "k": "c2VjcmV0", "kid": "s"}, key("a", x5c=["MII"], iat=3), small, key("a"), 7)
    )
    assert [(key.kid, dict(key.jwk)) for key in answer.keys] == [("a", key("a"))]
    assert [text.split(" ")[1] for text in answer.skipped.split("; ")] == ["0", "2", "3", "4"]
    assert "c2VjcmV0" not in str(answer)


def test_a_new_key_is_stored_and_a_seen_one_touched() -> None:
    """A new key begins now; one that was seen before keeps its first time and loses its misses."""
    kept = merge_keys(ISSUER, [row("a", seen=NOW - timedelta(hours=1), misses=2)], fetched_keys("a", "b"), NOW)
    assert [(row.kid, row.first_seen, row.last_seen, row.misses) for row in kept.rows] == [
        ("a", NOW - timedelta(days=9), NOW, 0),
        ("b", NOW, NOW, 0),
    ]
    assert kept.gone == ()


@pytest.mark.parametrize(
    ("misses", "minutes", "retires"),
    [(0, 60, False), (1, 60, False), (2, 9.9, False), (2, 10, True), (7, 11, True), (7, 9, False)],
)
def test_a_vanished_key_retires_after_three_misses_and_ten_minutes(misses: int, minutes: float, retires: bool) -> None:
    """Both must have passed: three fetches without it, and ten minutes since it was last seen."""
    kept = merge_keys(
        ISSUER, [row("old", seen=NOW - timedelta(minutes=minutes), misses=misses)], fetched_keys("new"), NOW
    )
    old = next(row for row in kept.rows if row.kid == "old")
    assert old.misses == misses + 1
    assert old.retired_at == (NOW if retires else None)


def test_a_retired_key_that_comes_back_is_believed_again() -> None:
    """What the issuer publishes counts: a key that returns is a key of the issuer."""
    kept = merge_keys(ISSUER, [row("a", misses=5, retired=NOW - timedelta(hours=1))], fetched_keys("a"), NOW)
    assert [(row.kid, row.misses, row.retired_at) for row in kept.rows] == [("a", 0, None)]


def test_a_retired_key_is_forgotten_after_a_day() -> None:
    """Retired keys are shown for a day, untouched, and then go."""
    kept = merge_keys(
        ISSUER,
        [row("recent", retired=NOW - timedelta(hours=23)), row("old", retired=NOW - timedelta(hours=24))],
        fetched_keys("new"),
        NOW,
    )
    assert [row.kid for row in kept.rows] == ["new"]
    assert kept.gone == ((ISSUER, "old"),)


@given(
    st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=12),
    st.lists(st.integers(1, 900), min_size=12, max_size=12),
)
def test_whatever_the_fetches_a_key_seen_lately_is_believed(sets: list[set[str]], gaps: list[int]) -> None:
    """However key sets change between fetches, a key seen in the last ten minutes or three fetches is never retired."""
    rows: dict[str, IssuerKeyRow] = {}
    now, observations = NOW, dict[str, tuple[datetime, int]]()
    for number, (kids, gap) in enumerate(zip(sets, gaps, strict=False)):
        now += timedelta(seconds=gap)
        observations |= dict.fromkeys(kids, (now, number))
        kept = merge_keys(ISSUER, rows.values(), fetched_keys(*sorted(kids)), now)
        rows |= {row.kid: row for row in kept.rows}
        for kid, (last, fetch) in observations.items():
            if now - last < timedelta(minutes=10) or number - fetch < 3:
                assert rows[kid].retired_at is None
