"""The reconciler on a real database: incremental and full passes agree, and whatever fails changes nothing."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.databases import Database, Server
from tests.integration.dev.scripted import (
    START,
    TEAM,
    ScriptedSource,
    binding,
    changed,
    declared,
    fetch,
    manifest,
    principal,
    revision,
    stored,
    team,
)
from tests.unit.cli.running import metagate
from tests.unit.crds.worlds import GATEWAY_POLICY, PLAN_TEMPLATE, PROBLEMATA

from metagate_crds.objects import CompileSettings, DeclaredObject, ObjectKey
from metagate_crds.verdict import Verdict
from metagate_operator.reconcile.reconciler import Reconciler
from metagate_operator.settings import WriterSettings
from metagate_operator.sources.source import ObjectGone, ObjectPut, Relist, SourceUnavailable
from metagate_store.errors import Fenced, StoreUnavailable
from metagate_store.migrating import BEYOND
from metagate_store.publisher import Publisher
from metagate_store.rows import Change, Published

pytestmark = pytest.mark.timeout(60)

QUICK = WriterSettings(debounce_seconds=0.001, backoff_seconds=0.02, backoff_max_seconds=0.1, brake_seconds=0.3)


class Recorder:
    """A Reporter that remembers."""

    def __init__(self) -> None:
        self.verdicts: dict[ObjectKey, Verdict] = {}
        self.order: list[str] = []
        self.blocked = asyncio.Event()
        self.blocked.set()

    async def report(self, verdicts: Sequence[Verdict], revision: int) -> None:
        await self.blocked.wait()
        for verdict in verdicts:
            self.verdicts[verdict.key] = verdict
            self.order.append(verdict.key.name)


class RunningReconciler:
    def __init__(
        self, source: ScriptedSource, reconciler: Reconciler, task: asyncio.Task[None], reporter: Recorder
    ) -> None:
        self.source, self.reconciler, self.task, self.reporter = source, reconciler, task, reporter

    async def until(self, true: Callable[[], bool], seconds: float = 5.0) -> None:
        """Wait for a fact that nothing announces."""
        async with asyncio.timeout(seconds):
            while not true():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.005)

    async def relisted(self) -> None:
        """Ask for a full pass and wait for its end."""
        listings = self.source.listings
        self.reconciler.resync("test")
        await self.until(lambda: self.source.listings > listings)
        await self.idle()

    async def idle(self) -> None:
        """Wait until everything that was told has been published."""
        reconciler = self.reconciler
        await self.until(lambda: self.source.queue.empty() and not reconciler._pending and not reconciler._relist)
        passes = reconciler.health.passes
        self.reconciler._wake.set()
        await self.until(lambda: reconciler.health.passes > passes)


@asynccontextmanager
async def reconciling(
    database: Database, source: ScriptedSource, *, store: Any = None, writer: WriterSettings = QUICK
) -> AsyncIterator[RunningReconciler]:
    publisher = await Publisher.open(database.publisher)
    reporter = Recorder()
    reconciler = Reconciler(
        source=source,
        publisher=store(publisher) if store else publisher,
        reporter=reporter,
        compile_settings=CompileSettings(),
        settings=writer,
    )
    task = asyncio.create_task(reconciler.run())
    try:
        yield RunningReconciler(source, reconciler, task, reporter)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await publisher.close()


@pytest.mark.invariant("INV-041", "EXT-04")
async def test_declared_is_served(fresh_database: Database) -> None:
    """A listing is published whole; each change after it by its event alone, with one audit row per changed object."""
    source = ScriptedSource(team("ada", "bob"))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        assert await revision(fresh_database.superuser) == 1
        assert len(await fetch(fresh_database.superuser, "SELECT 1 FROM metagate.change")) == 6
        bindings = "SELECT principal_key, digest FROM metagate.binding ORDER BY 1"
        first = await fetch(fresh_database.superuser, bindings)
        assert [row["principal_key"] for row in first] == ["ada", "bob"]
        assert first[0]["digest"] == first[1]["digest"] is not None
        key = ObjectKey("PrincipalBinding", "team", "bob")
        source.put(
            changed(source.objects[key], {**source.objects[key].spec, "overrides": {"capabilities": {"write": True}}})
        )
        await running.until(lambda: running.reconciler.health.revision == 2)
        second = await fetch(fresh_database.superuser, bindings)
        assert second[0]["digest"] == first[0]["digest"] != second[1]["digest"]
        source.remove(key)
        await running.until(lambda: running.reconciler.health.revision == 3)
        assert [row["principal_key"] for row in await fetch(fresh_database.superuser, bindings)] == ["ada"]
        audit = await fetch(
            fresh_database.superuser,
            "SELECT name, kind, generation, before_digest, after_digest FROM metagate.change WHERE revision > 1 ORDER BY seq",
        )
        assert [(row["name"], row["kind"], row["generation"]) for row in audit] == [
            ("bob", "PrincipalBinding", 2),
            ("bob", "PrincipalBinding", 2),
        ]
        assert audit[0]["after_digest"] == audit[1]["before_digest"] is not None
        assert audit[1]["after_digest"] is None
        assert source.listings == 1


async def test_no_change_mints_no_revision(fresh_database: Database) -> None:
    """Listing the same again, replayed events and a restart write nothing that is served."""
    source = ScriptedSource(team("ada"))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        for obj in list(source.objects.values()):
            source.put(obj)
        source.queue.put_nowait(Relist("test"))
        await running.until(lambda: source.listings == 2)
        await running.idle()
    before = await stored(fresh_database.superuser)
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
    assert await stored(fresh_database.superuser) == before
    assert await revision(fresh_database.superuser) == 1


@pytest.mark.invariant("INV-031")
async def test_an_invalid_update_keeps_the_last_good(fresh_database: Database) -> None:
    """What is refused stays served as it was (D-20), across a restart too; the verdict says so."""
    source = ScriptedSource(team("ada"))
    key = ObjectKey("Manifest", "team", "world")
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        before = await stored(fresh_database.superuser, ("binding", "manifest"))
        source.put(changed(source.objects[key], {"services": {"a": {"type": "x", "metadata": {"l": [{"Deploy": 1}]}}}}))
        await running.until(lambda: key in running.reporter.verdicts and not running.reporter.verdicts[key].ready)
        assert running.reporter.verdicts[key].served_generation == 1
        assert running.reconciler.health.not_ready >= 1
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
    assert await stored(fresh_database.superuser, ("binding", "manifest")) == before


async def test_a_listing_that_fails_changes_nothing(fresh_database: Database) -> None:
    """Neither at a resync nor at a start; when it works again, so does everything."""
    source = ScriptedSource(team("ada"))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        before = await stored(fresh_database.superuser)
        source.unavailable = True
        source.remove(ObjectKey("PrincipalBinding", "team", "ada"), silently=True)
        running.reconciler.resync("test")
        await running.until(lambda: running.reconciler.health.consecutive_failures >= 3)
        assert await stored(fresh_database.superuser) == before
        assert running.reconciler.health.alive(5)
        source.unavailable = False
        await running.until(lambda: running.reconciler.health.consecutive_failures == 0)
        await running.until(lambda: running.reconciler.health.revision == 2)


async def test_events_that_break_off_are_followed_by_a_listing(fresh_database: Database) -> None:
    """A source whose events end is asked again, and listed, because something may have been missed."""
    source = ScriptedSource(team("ada"))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        source.put(principal("eve"), silently=True)
        source.queue.put_nowait(SourceUnavailable("the watch broke"))
        await running.until(lambda: running.reconciler.health.revision == 2)
        source.put(principal("zoe"))
        await running.until(lambda: running.reconciler.health.revision == 3)


async def test_mass_deletion_waits_for_a_second_listing(fresh_database: Database) -> None:
    """A listing that misses most of a kind is not believed until a second one agrees; witnessed deletions are not
    braked.
    """
    names = [f"p{i:02}" for i in range(20)]
    source = ScriptedSource(team(*names))
    count = "SELECT count(*) AS n FROM metagate.binding"
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        kept = dict(source.objects)
        for name in names[5:]:
            source.remove(ObjectKey("PrincipalBinding", "team", name), silently=True)
        running.reconciler.resync("test")
        await running.until(lambda: running.reconciler.health.brake_held == 15)
        assert (await fetch(fresh_database.superuser, count))[0]["n"] == 20
        source.objects = kept
        await running.until(lambda: running.reconciler.health.brake_held == 0)
        assert (await fetch(fresh_database.superuser, count))[0]["n"] == 20
        for name in names[5:]:
            source.remove(ObjectKey("PrincipalBinding", "team", name), silently=True)
        running.reconciler.resync("test")
        await running.until(lambda: running.reconciler.health.revision == 2)
        assert (await fetch(fresh_database.superuser, count))[0]["n"] == 5
        for name in names[:5]:
            source.remove(ObjectKey("PrincipalBinding", "team", name))
        await running.until(
            lambda: running.reconciler.health.brake_held == 0 and running.reconciler.health.revision >= 3
        )
        await running.until(
            lambda: not any(key.kind == "PrincipalBinding" for key in running.reconciler._desired.world.objects)
        )
        assert (await fetch(fresh_database.superuser, count))[0]["n"] == 0


async def test_mass_deletion_at_a_start_waits(fresh_database: Database) -> None:
    """A first listing that misses what the database holds is not believed either."""
    source = ScriptedSource(team(*(f"p{i:02}" for i in range(12))))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
    before = await stored(fresh_database.superuser)
    empty = ScriptedSource()
    empty.namespaces = ()
    async with reconciling(fresh_database, empty, writer=QUICK.model_copy(update={"brake_seconds": 0.5})) as running:
        await running.reconciler.published()
        served = [table for table in before if table not in {"resource", "profile", "manifest"}]
        during = await stored(fresh_database.superuser, ("principal",))
        assert during == {"principal": before["principal"]}
        await running.until(lambda: running.reconciler.health.brake_held == 0)
        await running.idle()
        assert all(not rows for rows in (await stored(fresh_database.superuser, served)).values())


async def test_late_and_repeated_events(fresh_database: Database) -> None:
    """F32: an older generation, a repeated event, and an object told again after its deletion change nothing; a new one
    does.
    """
    source = ScriptedSource(team("ada"))
    key = ObjectKey("PrincipalBinding", "team", "ada")
    old = source.objects[key]
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        source.put(new := changed(old, {**old.spec, "overrides": {"capabilities": {"write": True}}}))
        await running.until(lambda: running.reconciler.health.revision == 2)
        for late in (old, new, old):
            source.queue.put_nowait(ObjectPut(late))
        await running.idle()
        assert running.reconciler.health.revision == 2
        source.remove(key)
        source.queue.put_nowait(ObjectPut(new))
        source.queue.put_nowait(ObjectGone(key, old.uid))
        await running.idle()
        assert await fetch(fresh_database.superuser, "SELECT 1 FROM metagate.binding") == []
        source.put(again := binding("ada"))
        source.queue.put_nowait(ObjectGone(key, old.uid))
        await running.idle()
        (row,) = await fetch(fresh_database.superuser, "SELECT owner::text FROM metagate.binding")
        assert row["owner"] == again.uid


class Failing:
    """A store that is away now and then."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.failures = 2
        self.loads = 0

    async def load(self) -> Published:
        self.loads += 1
        return await self._publisher.load()

    async def publish(self, change: Change, *, mirror: bool = False) -> int:
        if self.failures:
            self.failures -= 1
            if self.failures == 0:  # the commit happened, its answer was lost
                await self._publisher.publish(change, mirror=mirror)
            raise StoreUnavailable
        return await self._publisher.publish(change, mirror=mirror)


async def test_a_database_that_fails(fresh_database: Database) -> None:
    """After an error nothing is assumed: loaded, listed, and published once, although one answer was lost after its
    commit.
    """
    source = ScriptedSource(team("ada"))
    async with reconciling(fresh_database, source, store=Failing) as running:
        await running.reconciler.published()
        assert running.reconciler.health.failures == 2
    assert await revision(fresh_database.superuser) == 1


@pytest.mark.invariant("INV-028")
async def test_a_slow_reporter_delays_nobody(fresh_database: Database) -> None:
    """Publishing goes on while reporting hangs; then the freshest change is reported first."""
    source = ScriptedSource(team("ada", "bob"))
    async with reconciling(fresh_database, source) as running:
        running.reporter.blocked.clear()
        await running.reconciler.published()
        key = ObjectKey("Principal", "team", "ada")
        for suspended in (True, False, True):
            source.put(changed(source.objects[key], {"type": "component", "suspended": suspended}))
            await running.idle()
        assert running.reconciler.health.revision == 4
        running.reporter.blocked.set()
        await running.until(
            lambda: running.reporter.verdicts.get(key) is not None and running.reporter.verdicts[key].generation == 4
        )


async def test_another_writer_takes_over(fresh_database: Database) -> None:
    """F28: of two writers the later one writes; the earlier one writes nothing more and ends, saying so."""
    source = ScriptedSource(team("ada"))
    async with reconciling(fresh_database, source) as old:
        await old.reconciler.published()
        newer = ScriptedSource(team("ada", "bob"))
        newer.objects |= source.objects
        async with reconciling(fresh_database, newer) as new:
            await new.reconciler.published()
            before = await stored(fresh_database.superuser)
            source.remove(ObjectKey("PrincipalBinding", "team", "ada"))
            with pytest.raises(Fenced, match="nothing was written"):
                await old.task
            assert await stored(fresh_database.superuser) == before


KILLED = """
import asyncio, sys
from metagate_crds.objects import CompileSettings
from metagate_operator.settings import WriterSettings, kill_at
from metagate_operator.reconcile.reconciler import Reconciler
from metagate_operator.reconcile.verdict_log import VerdictLog
from metagate_store.publisher import Publisher
from tests.integration.dev import scripted

async def main():
    settings = WriterSettings()
    publisher = await Publisher.open(sys.argv[1], failpoint=kill_at(settings.fail.split(",")))
    source = scripted.ScriptedSource(scripted.team("ada"))
    reconciler = Reconciler(source=source, publisher=publisher, reporter=VerdictLog(), compile_settings=CompileSettings(), settings=settings)
    task = asyncio.create_task(reconciler.run())
    await reconciler.published()

asyncio.run(main())
"""


@pytest.mark.parametrize("step", ["after_packets", "after_declared", "after_tables", "before_commit", "after_commit"])
async def test_killed_in_the_middle_of_a_publish(fresh_database: Database, step: str) -> None:
    """F27: kill -9 at each step leaves the old snapshot or the new one whole, and the next start finishes the work."""
    code = await asyncio.to_thread(
        lambda: subprocess.run(
            [
                "env",
                f"METAGATE_FAIL={step}",
                f"PYTHONPATH={Path.cwd()}",
                sys.executable,
                "-c",
                KILLED,
                fresh_database.publisher,
            ],
            capture_output=True,
            timeout=30,
            check=False,
        )
    )
    assert code.returncode == -signal.SIGKILL, code.stderr.decode()
    expected = 1 if step == "after_commit" else 0
    assert await revision(fresh_database.superuser) == expected
    assert len(await fetch(fresh_database.superuser, "SELECT 1 FROM metagate.binding")) == expected
    source = ScriptedSource(team("ada"))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
    (row,) = await fetch(
        fresh_database.superuser,
        "SELECT b.digest, p.body FROM metagate.binding b JOIN metagate.packet p USING (digest)",
    )
    assert row["body"]


NAMES = ["ada", "bob", "cy"]
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("principal"), st.sampled_from(NAMES), st.booleans()),
        st.tuples(
            st.just("binding"),
            st.sampled_from(NAMES),
            st.sampled_from(["plain", "override", "broken", "inactive", "other"]),
        ),
        st.tuples(st.just("manifest"), st.just("world"), st.sampled_from(["eu", "us", "forbidden"])),
        st.tuples(
            st.just("gone"),
            st.sampled_from(["Principal", "PrincipalBinding", "Manifest"]),
            st.sampled_from([*NAMES, "world"]),
        ),
    ),
    min_size=1,
    max_size=12,
)


def apply(source: ScriptedSource, step: tuple[str, str, Any]) -> None:
    """One thing that happens, as people do it."""
    what, name, how = step
    if what == "gone":
        key = ObjectKey(name, "team", how)
        if key in source.objects:
            source.remove(key)
        return
    if what == "principal":
        fresh = principal(name)
        spec: dict[str, Any] = {"type": "component", "suspended": how}
    elif what == "manifest":
        fresh = manifest()
        spec = {"deploymentKey": "d", "environment": {"deploy": 1} if how == "forbidden" else {"region": how}}
    else:
        fresh = binding(name)
        spec = dict(fresh.spec)
        if how == "override":
            spec["overrides"] = {"capabilities": {"extra": name}}
        elif how == "broken":
            spec["components"] = "not a list"
        elif how == "inactive":
            spec["active"] = False
        elif how == "other":
            spec["principalRef"] = {"name": "ada"}
    before = source.objects.get(fresh.key)
    if before is None:
        source.put(type(fresh)(fresh.key, fresh.uid, 1, fresh.created, spec))
    elif before.spec != spec:
        source.put(changed(before, spec))


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(steps=STEPS)
async def test_events_and_listing_agree(postgres: Server, steps: list[tuple[str, str, Any]]) -> None:
    """Whatever happens in whatever order: what events led to is what a full pass finds nothing to change in."""
    database = await postgres.make()
    try:
        source = ScriptedSource(team("ada"))
        async with reconciling(database, source) as running:
            await running.reconciler.published()
            for step in steps:
                apply(source, step)
            await running.idle()
            by_events = await stored(database.superuser)
            at = await revision(database.superuser)
            await running.relisted()
            assert await stored(database.superuser) == by_events
            assert await revision(database.superuser) == at
    finally:
        await postgres.drop(database)


async def test_a_key_stays_with_the_tenant_that_declared_it_first(fresh_database: Database) -> None:
    """D-70: neither an older Principal that adds another tenant's key nor the deletion of the first Principal moves it;
    a writer that starts anew knows that too.
    """
    keys = {"type": "component", "apiKeys": [{"id": "0123456789", "sha256": "ab" * 32}]}
    thief = DeclaredObject(
        ObjectKey("Principal", "metagate-system", "thief"), str(uuid4()), 1, START, {"type": "component"}
    )
    rightful = declared("Principal", "rightful", keys)
    holders = "SELECT tenant::text, principal_key FROM metagate.api_key"

    async def served() -> list[tuple[str, str]]:
        return [tuple(row) for row in await fetch(fresh_database.superuser, holders)]

    def conflicted(running: RunningReconciler, key: ObjectKey) -> str:
        return next(c.status for c in running.reporter.verdicts[key].conditions if c.type == "Conflicted")

    source = ScriptedSource([thief, rightful])
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        assert await served() == [(TEAM.uid, "rightful")]
        source.put(changed(thief, keys))
        await running.idle()
        assert await served() == [(TEAM.uid, "rightful")]
        source.remove(rightful.key)
        await running.idle()
        assert await served() == [], "it opens nothing while nobody of its tenant declares it"
        assert conflicted(running, thief.key) == "True"
    source = ScriptedSource(list(source.objects.values()))
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        assert await served() == []
        source.put(declared("Principal", "rightful", keys))
        await running.idle()
        assert await served() == [(TEAM.uid, "rightful")]
        assert conflicted(running, thief.key) == "True"


@pytest.mark.parametrize("table", ["policy_profile", "problemata", "plan_template"])
async def test_after_a_restore_every_policy_is_published_anew(fresh_database: Database, table: str) -> None:
    """What is declared is that of the backup: it gets a revision beyond any that was served, once, and stays the same."""
    policy = declared("PolicyProfile", "front-desk", GATEWAY_POLICY)
    gateway = [declared("Principal", "mail-gateway", {"type": "service"}), declared("Problemata", "mail", PROBLEMATA)]
    plan = [declared("Principal", "indexer", {"type": "worker"}), declared("PlanTemplate", "review", PLAN_TEMPLATE)]
    source = ScriptedSource([*team("ada"), policy, *gateway, *plan])
    published = f"SELECT revision, content FROM metagate.{table}"
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        before = await stored(fresh_database.superuser)
        [first] = await fetch(fresh_database.superuser, published)
    done = await asyncio.to_thread(metagate, "migrate", "--restored", DATABASE_URL=fresh_database.owner)
    assert done.returncode == 0, done.stderr
    async with reconciling(fresh_database, source) as running:
        await running.reconciler.published()
        [second] = await fetch(fresh_database.superuser, published)
        assert second["revision"] == await revision(fresh_database.superuser) > first["revision"] + BEYOND
        assert await stored(fresh_database.superuser) == before
        await running.relisted()
        assert [row["revision"] for row in await fetch(fresh_database.superuser, published)] == [second["revision"]]
