"""What the log says of a database that cannot be used, from the first attempt on."""

from collections.abc import Callable
from typing import Any

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from legivellum.postgres.errors import SchemaMismatch, Unavailable
from memorygate import following
from memorygate.following import IdentityFollower, LedgerFollower
from memorygate.gate import Gate
from memorygate.identity import Directory
from memorygate.settings import Settings


def gate() -> Gate:
    return Gate(Settings(database_url=SecretStr("postgresql://unused")))


class Unreachable:
    """A connection that fails as it is told."""

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def __call__(self) -> Any:
        raise self.errors.pop(0)


def ledger(connect: Unreachable) -> LedgerFollower:
    return LedgerFollower(gate(), connect, needed=1)


def identity(connect: Unreachable) -> IdentityFollower:
    directory = Directory(stale_seconds=60, clock=lambda: 0.0)
    believer: Any = None
    return IdentityFollower(gate(), believer, directory, connect)


@pytest.mark.parametrize(("follower", "event"), [(ledger, "ledger_lost"), (identity, "identity_lost")])
async def test_a_gate_that_is_never_ready_says_why(
    follower: Callable[[Unreachable], LedgerFollower | IdentityFollower], event: str, monkeypatch: pytest.MonkeyPatch
):
    """The first failure is one line with its reason, the same again is none, another one is a line again."""
    made = follower(Unreachable(Unavailable("no login"), Unavailable("no login"), SchemaMismatch("too old")))
    with capture_logs() as logs:
        monkeypatch.setattr(following, "_log", following.structlog.get_logger("test"))
        for _ in range(3):
            await made.step()
    assert [(one["event"], one["error"], one["reason"]) for one in logs] == [
        (event, "Unavailable", "no login"), (event, "SchemaMismatch", "too old"),
    ]  # fmt: skip
