"""The gate's directory between the authenticator and the store."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from uuid import uuid4

import pytest

from legivellum.http.batching import Batcher
from legivellum.identity.authenticator import Authenticator, AuthFailure, Caller, FailureReason
from legivellum.identity.caller import Credential
from legivellum.identity.keyring import KeyRing
from legivellum.postgres.published_identity import KnownPrincipal
from metagate_api.callers import SubjectDirectory
from metagate_store import rows

ISSUED = 1_800_000_000


class OneServiceAccount:
    """Believes every token: a service account's, issued at `ISSUED`."""

    def apply(self, changes: object) -> None: ...

    def verify(self, _value: bytes, _now: float) -> SimpleNamespace:
        return SimpleNamespace(
            credential=Credential("token", "https://cluster", "system:serviceaccount:team:indexer", "k"),
            audience="metagate",
            pod=None,
            issued_at=ISSUED,
            expires_at=datetime.fromtimestamp(ISSUED + 600, UTC),
            service_account=True,
            verification=None,
        )


@pytest.mark.parametrize(
    ("created", "welcome"),
    [
        (datetime.fromtimestamp(ISSUED - 1, UTC), True),
        (datetime.fromtimestamp(ISSUED + 1, UTC), False),
        (None, False),
    ],
    ids=["older namespace", "younger namespace", "unknown namespace"],
)
def test_a_token_must_be_younger_than_its_namespace(created: datetime | None, welcome: bool) -> None:
    """D-46: a service account's token from before its namespace is refused, and so it is while nobody knows its age."""
    identity = KnownPrincipal(uuid4(), "team", created, "indexer", "component", "Namespace", (), False)

    async def resolve(asks: Sequence[rows.CredentialRow]) -> list[KnownPrincipal | None]:
        return [identity for _ in asks]

    async def ask() -> Caller | AuthFailure:
        directory = SubjectDirectory(Batcher(resolve, name="resolve"), seconds=1.0)
        authenticator = Authenticator(keys=KeyRing(), tokens=OneServiceAccount(), directory=directory)
        return await authenticator.authenticate([(b"authorization", b"Bearer token")])

    answer = asyncio.run(ask())
    if welcome:
        assert isinstance(answer, Caller)
    else:
        assert isinstance(answer, AuthFailure)
        assert answer.reason is FailureReason.BEFORE_NAMESPACE
