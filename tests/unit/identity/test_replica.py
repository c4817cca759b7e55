"""Who may speak, held in memory: what changes arrive as, and how long an outage is survived."""

from uuid import uuid4

import pytest

from legivellum.identity.replica import ReplicatedDirectory
from legivellum.postgres.errors import Unavailable
from legivellum.postgres.published_identity import KnownPrincipal, credential_changes

ALICE = KnownPrincipal(uuid4(), "team", None, "alice", "principal", "Namespace", frozenset(), suspended=False)


async def test_the_directory_answers_from_memory_until_it_is_too_old():
    """Before anything was read it refuses to guess; then it answers without asking; stale beyond the bound it refuses again."""
    now = [0.0]
    directory = ReplicatedDirectory(stale_seconds=60, clock=lambda: now[0])
    with pytest.raises(Unavailable):
        await directory.resolve("", "digest")
    directory.replace({("", "digest"): ALICE})
    assert await directory.resolve("", "digest") == ALICE
    assert await directory.resolve("", "other") is None
    now[0] = 59
    assert await directory.resolve("", "digest") == ALICE
    now[0] = 61
    with pytest.raises(Unavailable):
        await directory.resolve("", "digest")
    directory.confirm()
    assert await directory.resolve("", "digest") == ALICE


def test_changes_are_told_apart_from_withdrawals():
    """A row with a body is there, one without is gone; the mark is the highest."""
    rows = [
        (3, "api_key", "ab", "", '{"key_id": "k", "tenant": "t", "principal_key": "p", "expires_at": "2027-01-01T00:00:00+00:00"}'),
        (5, "api_key", "cd", "", None),
        (4, "issuer", "https://i", "", '{"name": "i", "audiences": ["memorygate"], "algorithms": ["RS256"], "max_token_lifetime_seconds": 60, "source": "URL", "url": null}'),
        (6, "issuer_key", "https://i", "kid", '{"jwk": {"kty": "RSA"}, "alg": null, "first_seen": null}'),
        (7, "issuer_key", "https://i", "old", None),
    ]  # fmt: skip
    names = ("mark", "kind", "a", "b", "body")
    result = credential_changes([{"newest": 7, **dict(zip(names, row, strict=True))} for row in rows], full=False)
    assert result.mark == 7
    assert [key.sha256 for key in result.api_keys] == ["ab"]
    assert result.api_keys[0].expires_at is not None
    assert result.gone_api_keys == ("cd",)
    assert [issuer.issuer for issuer in result.issuers] == ["https://i"]
    assert [(key.issuer, key.kid) for key in result.issuer_keys] == [("https://i", "kid")]
    assert result.gone_issuer_keys == (("https://i", "old"),)
    nothing = {"newest": 9, **dict.fromkeys(names)}
    assert credential_changes([nothing], full=False).mark == 9
