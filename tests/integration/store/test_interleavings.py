"""Publish, bootstrap and report in every order of their steps: two or three sessions, the real statements.

Small bounds here; `make faults` plays larger ones (METAGATE_FAULTS=all): every statement of a publish as a step of its
own, a third session, a commit that is lost or not heard of.
"""

import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from tests.databases import Database
from tests.integration.store.interleaving import Explored, Run, Stepped, SteppedPool, SteppedSession, explore, play
from tests.integration.store.worlds import Somebody, change_of, somebody

from metagate_store.errors import Fenced, StaleBase, StoreUnavailable
from metagate_store.publisher import STANDALONE, Publisher
from metagate_store.queries import sql
from metagate_store.reader import Reader
from metagate_store.rows import BootstrapOutcome, BootstrapResult, ReportOutcome

LARGE = os.environ.get("METAGATE_FAULTS") == "all"  # noqa: TID251 - the switch of `make faults`
larger = pytest.mark.skipif(not LARGE, reason="a larger bound: `make faults` plays it")
pytestmark = pytest.mark.timeout(600 if LARGE else 120)

PATIENT = {"lock_timeout": "0", "statement_timeout": "0", "idle_in_transaction_session_timeout": "0"}
"""Who waits for a lock waits until it is free: giving up is played as a commit that is lost."""

EDITIONS = {1: (b'{"capabilities":{"edition":1}}', 11), 2: (b'{"capabilities":{"edition":2}}', 22)}


def every_step(_name: str) -> bool:
    return True


def only(*names: str) -> Callable[[str], bool]:
    return set(names).__contains__


COARSE = only("publish.lock", "commit")
"""A publish in three parts: until it has the lock, until it commits, the commit."""


class InterleavingHarness:
    """A database of one's own, three connections for sessions, and a writer that prepares them."""

    def __init__(self, database: Database, monitor: asyncpg.Connection, writer: Publisher) -> None:
        self.database = database
        self.monitor = monitor
        self.writer = writer
        self._free: dict[str, list[asyncpg.Connection]] = {}
        self._used: list[tuple[str, asyncpg.Connection]] = []

    async def session(self, name: str, role: str = "api", pauses: Callable[[str], bool] = every_step) -> SteppedSession:
        free = self._free.setdefault(role, [])
        while free:
            if not (connection := free.pop()).is_closed():
                break
        else:
            connection = await asyncpg.connect(getattr(self.database, role), server_settings=PATIENT)
        self._used.append((role, connection))
        return SteppedSession(name, connection, pauses)

    async def over(self, sessions: Sequence[SteppedSession]) -> None:
        """The sessions' connections are free for the next order; one that is in the middle of something is ended."""
        for session in sessions:
            await session.end()
        for role, connection in self._used:
            if connection.is_closed() or connection.is_in_transaction():
                connection.terminate()
            else:
                self._free[role].append(connection)
        self._used.clear()

    async def close(self) -> None:
        for connections in self._free.values():
            for connection in connections:
                connection.terminate()

    async def edition(self, number: int, principal: Somebody | None = None) -> Somebody:
        """Publish this edition of somebody's world: a packet and a deadline that belong together."""
        principal = principal or somebody()
        principal.body, principal.sla_seconds = EDITIONS[number]
        await self.writer.publish(replace(change_of([principal]), audit=()))
        return principal

    async def rows(self, table: str, principal: Somebody) -> list[asyncpg.Record]:
        return await self.monitor.fetch(f"SELECT * FROM metagate.{table} WHERE tenant = $1", principal.tenant)

    @property
    def revision(self) -> int:
        return self.writer._revision


@pytest_asyncio.fixture(loop_scope="session")
async def harness(fresh_database: Database, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InterleavingHarness]:
    monkeypatch.setattr("metagate_store.reader.CONTENDED_PAUSES", (0.0,))
    monitor = await asyncpg.connect(fresh_database.superuser)
    writer = await Publisher.open(fresh_database.publisher)
    await writer.load()
    made = InterleavingHarness(fresh_database, monitor, writer)
    try:
        yield made
    finally:
        await made.close()
        await writer.close()
        await monitor.close()


# ── who acts ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def boots(
    session: SteppedSession, principal: Somebody, key: str | None, instead: dict[str, str], **ending: int
) -> Any:
    """As the gate does: with the digest it knows, again with the one it is told, and anew after an error."""
    reader = Reader(SteppedPool(session, instead=instead, **ending))  # type: ignore[arg-type]
    expected = hashlib.sha256(EDITIONS[1][0]).hexdigest()
    for _ in range(6):
        try:
            [answer] = await reader.bootstrap([principal.ask(idempotency_key=key, expected_digest=expected)])
        except StoreUnavailable:
            continue
        if answer.outcome is not BootstrapOutcome.PACKET:
            return answer
        assert answer.digest is not None
        assert hashlib.sha256(answer.body or b"").hexdigest() == answer.digest
        expected = answer.digest
    raise AssertionError("the packet never stopped changing")


async def publishes(session: SteppedSession, writer: Publisher, changed: Somebody, number: int) -> int:
    """The writer's own publish, through a connection that steps."""
    connection, writer._connection = writer._connection, Stepped(session)
    try:
        changed = replace(changed, body=EDITIONS[number][0], sla_seconds=EDITIONS[number][1])
        return await writer.publish(replace(change_of([changed]), audit=()))
    finally:
        writer._connection = connection


def committed(session: SteppedSession, nth: int = -1) -> int | None:
    """When its (last) commit was let go; None when it did not come to that."""
    steps = session.begun("commit")
    return steps[nth] if steps else None


def scene(
    harness: InterleavingHarness,
    begin: Callable[[], Awaitable[tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]]],
) -> Callable[[Sequence[int]], Awaitable[tuple[Run, list[str]]]]:
    """A scene for `explore`: `begin` prepares the database, starts the sessions and gives what judges the end."""

    async def played(prefix: Sequence[int]) -> tuple[Run, list[str]]:
        sessions, judge = await begin()
        try:
            run = await play(sessions, prefix, harness.monitor)
            return run, [] if run.stuck else await judge(run)
        finally:
            await harness.over(sessions)

    return played


def expect_nothing_wrong(result: Explored, at_least: int) -> None:
    assert result.wrong == []
    assert result.orders >= at_least, f"only {result.orders} orders: the sessions did not meet"


async def test_every_order_is_played_once(harness: InterleavingHarness) -> None:
    """Two sessions of two steps have six orders; where one waits for a lock of the other, those that cannot be are left out."""
    observations: list[str] = []

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        sessions = [await harness.session(name) for name in ("a", "b")]

        async def walks(session: SteppedSession) -> None:
            await session.step("first")
            await session.step("second")

        for session in sessions:
            session.start(walks(session))

        async def judge(run: Run) -> list[str]:
            observations.append("".join(step[0] for step in run.order.split(" | ")))
            return []

        return sessions, judge

    expect_nothing_wrong(await explore(scene(harness, begin)), 6)
    assert sorted(observations) == ["aabb", "abab", "abba", "baab", "baba", "bbaa"]
    exclusive = await two_writers(harness, only("publish.lock", "commit"))
    assert exclusive.orders < 8 * 7 * 6 * 5 // 24, "nobody waited"


# ── one key, a publish in between ────────────────────────────────────────────────────────────────────────────────────


async def one_key(
    harness: InterleavingHarness,
    *,
    boots_: int = 2,
    pauses: Callable[[str], bool] | None = COARSE,
    instead: dict[str, str] | None = None,
    until_wrong: bool = False,
    **ending: int,
) -> Explored:
    """Bootstraps of one Idempotency-Key, and the next edition published meanwhile (`pauses` None: it is not)."""

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        principal = await harness.edition(1)
        first = harness.revision
        sessions = [await harness.session(f"boot {at}") for at in range(boots_)]
        for at, session in enumerate(sessions):
            session.start(boots(session, principal, "key", instead or {}, **(ending if at == 0 else {})))
        writing = None
        if pauses is not None:
            writing = await harness.session("publish", "publisher", pauses)
            writing.start(publishes(writing, harness.writer, principal, 2))

        async def judge(_run: Run) -> list[str]:
            stored, keys = await harness.rows("startup", principal), await harness.rows("idempotency", principal)
            return list(wrong_with_one_key(sessions, writing, first, stored, keys))

        return [*sessions, *([writing] if writing else [])], judge

    return await explore(scene(harness, begin), until_wrong=until_wrong)


def wrong_with_one_key(
    sessions: Sequence[SteppedSession],
    writing: SteppedSession | None,
    first: int,
    stored: Sequence[asyncpg.Record],
    keys: Sequence[asyncpg.Record],
) -> Iterator[str]:
    answers = [session.result() for session in sessions]
    if errors := [repr(answer) for answer in answers if not isinstance(answer, BootstrapResult)]:
        yield f"not answered: {errors}"
        return
    outcomes = sorted(answer.outcome for answer in answers)
    if (
        set(outcomes) - {BootstrapOutcome.OPENED, BootstrapOutcome.REPLAYED}
        or outcomes.count(BootstrapOutcome.OPENED) > 1
    ):
        yield f"answered {outcomes}"
    same = {
        (a.startup_id, a.packet_id, a.issued_at, a.deadline_at, a.digest, a.revision, a.compiled_at) for a in answers
    }
    if len(same) != 1:
        yield f"one key, {len(same)} different answers"
    if (len(stored), len(keys)) != (1, 1):
        yield f"{len(stored)} sessions and {len(keys)} keys are stored"
        return
    answer, row = answers[0], stored[0]
    if (row["startup_id"], row["digest"], row["revision"]) != (answer.startup_id, answer.digest, answer.revision):
        yield "what was answered is not what is stored"
    edition = answer.revision - first + 1
    body, seconds = EDITIONS.get(edition, (b"", 0))
    if answer.digest != hashlib.sha256(body).hexdigest():
        yield f"revision {answer.revision} with the packet of another one"
    if (answer.deadline_at - answer.issued_at).total_seconds() != seconds:
        yield f"the deadline of another edition than {edition}"
    if writing is not None and isinstance(writing.result(), BaseException):
        yield f"not published: {writing.result()!r}"
    # A boot all of whose statements were begun after the publish was committed may not be told the old world,
    # unless somebody else had opened the session before.
    done = committed(writing) if writing else None
    if done is not None and edition == 1 and all(min(at for at, _ in session.log) > done for session in sessions):
        yield "everybody asked after the publish, and was told the old edition"


@pytest.mark.invariant("INV-016")
async def test_two_boots_of_one_key_and_a_publish(harness: InterleavingHarness) -> None:
    """However two bootstraps of one key and a publish interleave: one session, one answer, of one edition."""
    expect_nothing_wrong(await one_key(harness), 90)


@larger
@pytest.mark.invariant("INV-016")
async def test_two_boots_and_every_statement_of_a_publish(harness: InterleavingHarness) -> None:
    """The same with each statement of the publish as a step."""
    expect_nothing_wrong(await one_key(harness, pauses=every_step), 2_000)


@pytest.mark.invariant("INV-016")
@pytest.mark.parametrize("ending", ["unheard", "lost"])
async def test_a_boot_that_is_asked_again(harness: InterleavingHarness, ending: str) -> None:
    """A commit that nobody heard of, or that never happened, and its retry beside another boot: still one session."""
    expect_nothing_wrong(await one_key(harness, pauses=None, **{ending: 1}), 8)


@larger
@pytest.mark.invariant("INV-016")
@pytest.mark.parametrize("ending", ["unheard", "lost"])
async def test_a_boot_that_is_asked_again_while_publishing(harness: InterleavingHarness, ending: str) -> None:
    """The same with a publish in between."""
    expect_nothing_wrong(await one_key(harness, **{ending: 1}), 450)


@larger
@pytest.mark.invariant("INV-016")
async def test_three_boots_of_one_key(harness: InterleavingHarness) -> None:
    """Three at once: which of two that wait for the same key PostgreSQL wakes first is its own choice, not enumerated."""
    expect_nothing_wrong(await one_key(harness, boots_=3, pauses=None), 40)


async def test_it_would_notice_a_second_session(harness: InterleavingHarness) -> None:
    """The proof of the proof: a bootstrap that inserts without having won the key is found out."""
    broken = await other_function(harness, "bootstrap", ("WHERE w.key IS NULL OR EXISTS (", "WHERE true OR EXISTS ("))
    result = await one_key(harness, pauses=None, instead=broken, until_wrong=True)
    assert any("2 sessions and 1 keys" in says for says in result.wrong)


async def test_it_would_notice_a_statement_split_in_two(harness: InterleavingHarness) -> None:
    """The proof of the proof: what was resolved by one statement and recorded by another mixes two editions."""

    class Split(SteppedPool):
        async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
            [resolved] = await super().fetch(query, *arguments[:10], [None], *arguments[11:])
            digest = resolved["digest"]
            while True:
                [recorded] = await super().fetch(query, *arguments[:10], [digest], *arguments[11:])
                if recorded["outcome"] != "PACKET":
                    break
                digest = recorded["digest"]
            expect_nothing_wrong = {**dict(recorded), "digest": resolved["digest"], "revision": resolved["revision"]}
            return [tuple(expect_nothing_wrong.values())]  # type: ignore[list-item]

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        principal = await harness.edition(1)
        first = harness.revision
        booting = await harness.session("boot")
        writing = await harness.session("publish", "publisher", COARSE)

        async def split() -> BootstrapResult:
            [answer] = await Reader(Split(booting)).bootstrap([principal.ask(idempotency_key="key")])  # type: ignore[arg-type]
            return answer

        booting.start(split())
        writing.start(publishes(writing, harness.writer, replace(principal), 2))

        async def judge(_run: Run) -> list[str]:
            stored, keys = await harness.rows("startup", principal), await harness.rows("idempotency", principal)
            return list(wrong_with_one_key([booting], writing, first, stored, keys))

        return [booting, writing], judge

    exploration = await explore(scene(harness, begin), until_wrong=True)
    assert any("what was answered is not what is stored" in says for says in exploration.wrong)


async def other_function(harness: InterleavingHarness, name: str, *changes: tuple[str, str]) -> dict[str, str]:
    """A copy of one of the API's functions with something else in it, and the statement that calls it instead."""
    text: str = await harness.monitor.fetchval(f"SELECT pg_get_functiondef('metagate.{name}'::regproc)")
    for item, other in changes:
        assert item in text
        text = text.replace(item, other)
    await harness.monitor.execute(text.replace(f"FUNCTION metagate.{name}(", f"FUNCTION metagate.{name}_changed("))
    statement = sql(f"read.{name}")
    return {statement: statement.replace(f"metagate.{name}(", f"metagate.{name}_changed(")}


# ── reports ──────────────────────────────────────────────────────────────────────────────────────────────────────────


async def reports(
    harness: InterleavingHarness, *statuses: str, instead: dict[str, str] | None = None, until_wrong: bool = False
) -> Explored:
    """Reports of one session, each by a session of its own."""

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        principal = await harness.edition(1)
        opening = await harness.session("boot", pauses=only())
        opened = await boots(opening, principal, None, {})
        sessions = [await harness.session(f"{status} {at}") for at, status in enumerate(statuses)]

        async def tells(session: SteppedSession, status: str) -> Any:
            reader = Reader(SteppedPool(session, instead=instead))  # type: ignore[arg-type]
            [answer] = await reader.report([principal.tells(opened.startup_id, status, mirror=True)])
            return answer

        for session, status in zip(sessions, statuses, strict=True):
            session.start(tells(session, status))

        async def judge(_run: Run) -> list[str]:
            [row] = await harness.rows("startup", principal)
            sent = await harness.rows("outbox", principal)
            return list(wrong_with_reports(sessions, statuses, row, [message["event"] for message in sent]))

        return sessions, judge

    return await explore(scene(harness, begin), until_wrong=until_wrong)


def wrong_with_reports(
    sessions: Sequence[SteppedSession], statuses: Sequence[str], row: asyncpg.Record, sent: Sequence[str]
) -> Iterator[str]:
    answers = [session.result() for session in sessions]
    if errors := [repr(answer) for answer in answers if isinstance(answer, BaseException)]:
        yield f"not answered: {errors}"
        return
    recorded = [
        status for answer, status in zip(answers, statuses, strict=True) if answer.outcome is ReportOutcome.RECORDED
    ]
    if recorded != [row["status"]]:
        yield f"recorded {recorded}, stored {row['status']}"
    if sent != [row["status"]]:
        yield f"the ledger is told {sent}, stored is {row['status']}"
    for answer, status in zip(answers, statuses, strict=True):
        if answer.outcome is ReportOutcome.CONTENDED:
            continue
        if (answer.status, answer.acknowledged_at, answer.late) != (row["status"], row["acknowledged_at"], row["late"]):
            yield f"told {answer.status} at {answer.acknowledged_at}, stored {row['status']} at {row['acknowledged_at']}"
        if answer.outcome not in {
            ReportOutcome.RECORDED,
            ReportOutcome.REPEATED if status == row["status"] else ReportOutcome.OTHER_STATE,
        }:
            yield f"{status} was answered {answer.outcome}"


@pytest.mark.invariant("INV-026")
@pytest.mark.parametrize("statuses", [("READY", "FAILED"), ("READY", "READY")], ids="-".join)
async def test_two_reports_of_one_session(harness: InterleavingHarness, statuses: tuple[str, ...]) -> None:
    """However two reports interleave: one is recorded, once, and the other is told which."""
    expect_nothing_wrong(await reports(harness, *statuses), 6)


@larger
@pytest.mark.invariant("INV-026")
async def test_three_reports_of_one_session(harness: InterleavingHarness) -> None:
    """The same with three."""
    expect_nothing_wrong(await reports(harness, "READY", "FAILED", "READY"), 90)


async def test_it_would_notice_a_state_written_twice(harness: InterleavingHarness) -> None:
    """The proof of the proof: an update that does not look whether the session is still open is found out."""
    broken = await other_function(
        harness,
        "report",
        ("    WHERE s.status = 'OPEN'\n    FOR UPDATE OF s SKIP LOCKED\n", ""),
        ("AND s.startup_id = l.startup_id AND s.status = 'OPEN'", "AND s.startup_id = l.startup_id"),
    )
    result = await reports(harness, "READY", "FAILED", instead=broken, until_wrong=True)
    assert any("recorded ['READY', 'FAILED']" in says for says in result.wrong)


# ── a boot, its report, and a suspension ─────────────────────────────────────────────────────────────────────────────


async def suspended(harness: InterleavingHarness, pauses: Callable[[str], bool]) -> Explored:
    """A component boots and reports READY while somebody suspends its principal."""

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        principal = await harness.edition(1)
        booting = await harness.session("boot")
        writing = await harness.session("suspend", "publisher", pauses)
        writer = harness.writer

        async def lives() -> tuple[BootstrapOutcome, ReportOutcome | None]:
            opened = await boots(booting, principal, None, {})
            if opened.outcome is not BootstrapOutcome.OPENED:
                return opened.outcome, None
            [expect_nothing_wrong] = await Reader(SteppedPool(booting)).report([principal.tells(opened.startup_id)])  # type: ignore[arg-type]
            return opened.outcome, expect_nothing_wrong.outcome

        async def suspends() -> int:
            connection, writer._connection = writer._connection, Stepped(writing)
            try:
                return await writer.publish(replace(change_of([replace(principal, suspended=True)]), audit=()))
            finally:
                writer._connection = connection

        booting.start(lives())
        writing.start(suspends())

        async def judge(_run: Run) -> list[str]:
            stored = [row["status"] for row in await harness.rows("startup", principal)]
            return list(wrong_with_suspension(booting, writing, stored))

        return [booting, writing], judge

    return await explore(scene(harness, begin))


def wrong_with_suspension(booting: SteppedSession, writing: SteppedSession, stored: Sequence[str]) -> Iterator[str]:
    done = committed(writing)
    if isinstance(writing.result(), BaseException) or done is None:
        yield f"not suspended: {writing.result()!r}"
        return
    lived = booting.result()
    if isinstance(lived, BaseException):
        yield f"not answered: {lived!r}"
        return
    requests = booting.begun("read.bootstrap")[0]
    reported = booting.begun("read.report")
    expected = (
        (BootstrapOutcome.SUSPENDED if requests > done else BootstrapOutcome.OPENED),
        None if requests > done else ReportOutcome.SUSPENDED if reported[0] > done else ReportOutcome.RECORDED,
    )
    if lived != expected:
        yield f"{lived}, by the order it is {expected}"
    if stored != {None: [], ReportOutcome.SUSPENDED: ["OPEN"], ReportOutcome.RECORDED: ["READY"]}[expected[1]]:
        yield f"stored {stored} after {expected}"


async def test_a_suspension_holds_from_its_commit_on(harness: InterleavingHarness) -> None:
    """A boot and its report see a suspension exactly when it was committed before they were asked."""
    expect_nothing_wrong(await suspended(harness, COARSE), 15)


@larger
async def test_a_suspension_holds_from_its_commit_on_by_every_statement(harness: InterleavingHarness) -> None:
    """The same with each statement of the publish as a step."""
    expect_nothing_wrong(await suspended(harness, every_step), 300)


# ── a writer that is killed ──────────────────────────────────────────────────────────────────────────────────────────


async def killed(harness: InterleavingHarness, writes: Callable[[str], bool], asks: Callable[[str], bool]) -> Explored:
    """The writer's backend is ended at any step of its publish, beside a boot."""

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        await harness.writer.load()
        principal = await harness.edition(1)
        first = harness.revision
        booting = await harness.session("boot", pauses=asks)
        writing = await harness.session("publish", "publisher", writes)
        killing = await harness.session("kill", "superuser")

        async def kills() -> None:
            await killing.step("kill")
            await killing.connection.execute(
                f"SELECT pg_terminate_backend({writing.connection.get_server_pid()}, 5000)"
            )

        booting.start(boots(booting, principal, "key", {}))
        writing.start(publishes(writing, harness.writer, replace(principal), 2))
        killing.start(kills())

        async def judge(_run: Run) -> list[str]:
            stored, keys = await harness.rows("startup", principal), await harness.rows("idempotency", principal)
            wrong = list(wrong_with_one_key([booting], None, first, stored, keys))
            served = await harness.monitor.fetchrow(
                "SELECT b.digest, b.sla_seconds, b.revision, (SELECT max(revision) FROM metagate.revision) AS newest "
                "FROM metagate.binding AS b WHERE b.tenant = $1", principal.tenant,
            )  # fmt: skip
            edition = served["newest"] - first + 1
            body, seconds = EDITIONS[edition]
            if tuple(served)[:3] != (hashlib.sha256(body).hexdigest(), seconds, served["newest"]):
                wrong.append(f"half a publish is served: {tuple(served)}")
            result = writing.result()
            if not isinstance(result, BaseException) and edition != 2:
                wrong.append("published, it was said, and is not")
            if isinstance(result, BaseException) and edition == 2:
                wrong.append(f"published, and {result!r} was said before its commit was asked for")
            # The next writer takes over where this one ended.
            if (await harness.writer.load()).revision != served["newest"]:
                wrong.append("the next writer begins elsewhere")
            return wrong

        return [booting, writing, killing], judge

    return await explore(scene(harness, begin))


@pytest.mark.invariant("INV-016")
async def test_a_writer_killed_at_any_step(harness: InterleavingHarness) -> None:
    """Whole or not at all, for the boot that comes in between and for the writer that comes after."""
    expect_nothing_wrong(
        await killed(harness, only("publish.lock", "upsert.binding", "commit"), only("read.bootstrap")), 18
    )


@larger
@pytest.mark.invariant("INV-016")
async def test_a_writer_killed_at_any_statement(harness: InterleavingHarness) -> None:
    """The same at each statement of the publish, and with the boot's commit as a step."""
    expect_nothing_wrong(await killed(harness, every_step, every_step), 400)


# ── two writers ──────────────────────────────────────────────────────────────────────────────────────────────────────


async def two_writers(
    harness: InterleavingHarness,
    pauses: Callable[[str], bool],
    *,
    instead: dict[str, str] | None = None,
    until_wrong: bool = False,
) -> Explored:
    """Two writers take over and publish, each its own edition of the same principal."""

    async def begin() -> tuple[list[SteppedSession], Callable[[Run], Awaitable[list[str]]]]:
        await harness.writer.load()
        principal = await harness.edition(1)
        before = harness.revision
        sessions = [await harness.session(f"writer {at}", "publisher", pauses) for at in (1, 2)]

        async def writes(session: SteppedSession, number: int) -> tuple[int, int | BaseException]:
            writer = Publisher("", cluster_uid=STANDALONE, failpoint=lambda _name: None)
            writer._connection = Stepped(session, instead)
            await writer.load()
            mine = replace(principal, sla_seconds=100 * number)
            try:
                return writer.epoch, await writer.publish(replace(change_of([mine]), audit=()))
            except (Fenced, StaleBase) as error:
                return writer.epoch, error

        for number, session in enumerate(sessions, 1):
            session.start(writes(session, number))

        async def judge(_run: Run) -> list[str]:
            minted = await harness.monitor.fetch(
                "SELECT revision, epoch FROM metagate.revision WHERE revision > $1 ORDER BY revision", before
            )
            [bound] = await harness.rows("binding", principal)
            return list(wrong_with_writers(sessions, before, minted, bound))

        return sessions, judge

    return await explore(scene(harness, begin), until_wrong=until_wrong)


def wrong_with_writers(
    sessions: Sequence[SteppedSession], before: int, minted: Sequence[asyncpg.Record], bound: asyncpg.Record
) -> Iterator[str]:
    results = [session.result() for session in sessions]
    if errors := [repr(result) for result in results if isinstance(result, BaseException)]:
        yield f"neither published nor fenced: {errors}"
        return
    wrote = sorted(
        (expect_nothing_wrong, epoch, 100 * number)
        for number, (epoch, expect_nothing_wrong) in enumerate(results, 1)
        if isinstance(expect_nothing_wrong, int)
    )
    if [(row["revision"], row["epoch"]) for row in minted] != [
        (expect_nothing_wrong, epoch) for expect_nothing_wrong, epoch, _ in wrote
    ]:
        yield f"told {wrote}, minted {[tuple(row) for row in minted]}"
    if [expect_nothing_wrong for expect_nothing_wrong, _, _ in wrote] != list(
        range(before + 1, before + 1 + len(wrote))
    ):
        yield f"revisions {[expect_nothing_wrong for expect_nothing_wrong, _, _ in wrote]} after {before}"
    if (bound["sla_seconds"], bound["revision"]) != (
        (wrote[-1][2], wrote[-1][0]) if wrote else (EDITIONS[1][1], before)
    ):
        yield f"served {bound['sla_seconds']} of revision {bound['revision']}, written was {wrote}"
    for session, other in (sessions, reversed(sessions)):
        # Who had not committed when the other one took over is fenced.
        taken, last = other.begun("commit")[0], committed(session)
        published = isinstance(session.result()[1], int)
        if published and last is not None and session.result()[0] < other.result()[0] and taken < last:
            yield f"{session.name} wrote in its epoch after {other.name} had begun another"
    if not wrote:
        yield "nobody could publish"


@pytest.mark.invariant("INV-016")
async def test_two_writers_never_both(harness: InterleavingHarness) -> None:
    """However two writers take over and publish: who was taken over writes nothing, revisions have no gap."""
    expect_nothing_wrong(await two_writers(harness, COARSE), 10)


@larger
async def test_two_writers_never_both_by_every_statement(harness: InterleavingHarness) -> None:
    """The same with each statement as a step."""
    expect_nothing_wrong(await two_writers(harness, every_step), 100)


async def test_it_would_notice_writers_without_their_lock(harness: InterleavingHarness) -> None:
    """The proof of the proof: without the advisory lock a writer that was taken over still writes."""
    unlocked = {sql("publish.lock"): "SELECT 1"}
    steps = only("publish.lock", "publish.position", "upsert.binding", "commit")
    assert (await two_writers(harness, steps, instead=unlocked, until_wrong=True)).wrong
