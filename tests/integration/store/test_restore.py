"""A backup is restored: what was served since is not known, and no client sees a revision go backwards."""

import time

import asyncpg
import pytest
from tests.databases import Database
from tests.integration.store.worlds import change_of, publish, somebody
from tests.unit.cli.running import metagate

from legivellum.gate.identity_poller import IdentityReplica
from legivellum.identity.replica import IdentityDatabase, ReplicatedDirectory
from legivellum.postgres.published_identity import CredentialChanges
from metagate_store.errors import StaleBase
from metagate_store.migrating import BEYOND
from metagate_store.publisher import Publisher
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, Change


async def booted(reader: Reader, ask: object) -> tuple[str, int]:
    [answer] = await reader.bootstrap([ask])
    return answer.outcome, answer.revision


async def forget_newest(dsn: str, revision: int) -> None:
    """What a backup from before `revision` does not hold."""
    connection = await asyncpg.connect(dsn)
    await connection.execute("SET session_replication_role = replica")  # histories cannot be shortened otherwise
    for table in ("change", "revision"):
        await connection.execute(f"DELETE FROM metagate.{table} WHERE revision >= $1", revision)
    await connection.execute("UPDATE metagate.binding SET revision = $1", revision - 1)
    await connection.close()


async def test_revisions_go_on_beyond_what_was_served(fresh_database: Database) -> None:
    """After `metagate migrate --restored` every packet has a higher revision than before the loss; so has what is
    published next; and a writer that knew the lost revisions writes nothing until it has loaded."""
    principal = somebody()
    publisher = await Publisher.open(fresh_database.publisher)
    await publisher.load()
    for number in range(4):
        principal.components = (f"c{number}", "*")
        await publisher.publish(change_of([principal]))
    reader = await Reader.connect(fresh_database.api, size=1)
    outcome, observations = await booted(reader, principal.ask())
    assert (outcome, observations) == (BootstrapOutcome.OPENED, 4)
    await forget_newest(fresh_database.superuser, 3)
    assert (await booted(reader, principal.ask()))[1] < observations
    done = metagate("migrate", "--restored", DATABASE_URL=fresh_database.owner)
    assert done.returncode == 0, done.stderr
    assert "go on" in done.stderr
    assert await booted(reader, principal.ask()) == (BootstrapOutcome.OPENED, 2 + BEYOND)
    assert (await reader.state()).revision == 2 + BEYOND
    with pytest.raises(StaleBase):
        await publisher.publish(Change())
    await publisher.load()
    principal.components = ("later",)
    assert await publisher.publish(change_of([principal])) == 3 + BEYOND
    await reader.close()
    await publisher.close()


class KeyRecorder:
    """The keys that a gate would accept: each change that its follower hands over is applied."""

    def __init__(self) -> None:
        self.keys: set[str] = set()

    def apply(self, changes: CredentialChanges) -> None:
        known = set() if changes.full else self.keys - set(changes.gone_api_keys)
        self.keys = known | {key.sha256 for key in changes.api_keys}


async def test_a_gate_that_follows_reads_everything_anew(fresh_database: Database) -> None:
    """The marks of a restored database are lower than the one it knows: what was lost is forgotten, and what is published
    next is heard of at once, not when the marks have caught up."""
    kept, lost, later = somebody("kept"), somebody("lost"), somebody("later")
    await publish(fresh_database.publisher, kept)
    connection = await asyncpg.connect(fresh_database.superuser)
    backed_up = await connection.fetchval("SELECT metagate.credential_mark()")
    for number in range(3):
        await publish(fresh_database.publisher, somebody(f"other{number}"))
    await publish(fresh_database.publisher, lost)
    keys, directory = KeyRecorder(), ReplicatedDirectory(stale_seconds=60, clock=time.monotonic)

    async def connect() -> IdentityDatabase:
        return await IdentityDatabase.connect(fresh_database.identity, application_name="follower")

    follower = IdentityReplica(keys, directory, connect)
    await follower.look()
    assert {kept.key, lost.key} < keys.keys
    await connection.execute("SET session_replication_role = replica")  # what a backup does not hold leaves no trace
    await connection.execute("DELETE FROM metagate.credential_change WHERE mark > $1", backed_up)
    for table in ("api_key", "subject", "principal"):
        await connection.execute(f"DELETE FROM metagate.{table} WHERE tenant <> $1", kept.tenant)
    await connection.execute("SELECT setval('metagate.credential_mark', $1)", backed_up)
    await connection.close()
    await follower.look()
    assert keys.keys == {kept.key}
    await publish(fresh_database.publisher, later)
    await follower.look()
    assert keys.keys == {kept.key, later.key}
    await follower.close()


def test_waiting_changes_nothing(fresh_database: Database) -> None:
    """`--wait` with `--restored` is a contradiction, and is not understood."""
    assert metagate("migrate", "--wait", "--restored", DATABASE_URL=fresh_database.owner).returncode == 2
