"""The refresher: when it fetches, what it stores, what it says."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from tests.operator.issuers.test_jwks import document, key

from metagate_crds.verdict import Condition
from metagate_operator.issuers.key_fetcher import KeysUnavailable
from metagate_operator.issuers.key_refresher import CLUSTER_KEYS, KeyRefresher, RefreshIntervals
from metagate_store.errors import StoreUnavailable
from metagate_store.rows import IssuerKeyRow, IssuerRow

START = datetime(2026, 5, 4, 12, tzinfo=UTC)
WEB = IssuerRow("https://idp.example.com", "idp", ("metagate",), ("ES256",), 3600, "URL", "https://idp.example.com/k")
CLUSTER = IssuerRow("https://kubernetes.default.svc", "cluster", ("metagate",), ("RS256", "ES256"), 3600, "Cluster")
INLINE = IssuerRow("https://inline.example.com", "inline", ("metagate",), ("ES256",), 3600, "Inline")


class FakeStore:
    """The publisher's rows of keys, in memory."""

    def __init__(self, *rows: IssuerRow) -> None:
        self.rows: list[IssuerRow] = list(rows)
        self.keys: dict[tuple[str, str], IssuerKeyRow] = {}
        self.away = False
        self.asked_while_away = 0

    async def issuers(self) -> Sequence[IssuerRow]:
        if self.away:
            self.asked_while_away += 1
            raise StoreUnavailable
        return list(self.rows)

    async def issuer_keys(self, issuer: str) -> Sequence[IssuerKeyRow]:
        return [row for (name, _), row in self.keys.items() if name == issuer]

    async def keep_issuer_keys(self, keys: Sequence[IssuerKeyRow], gone: Sequence[tuple[str, str]] = ()) -> None:
        self.keys |= {(row.issuer, row.kid): row for row in keys}
        for item in gone:
            self.keys.pop(item, None)


class IssuerWorld:
    def __init__(self, *rows: IssuerRow) -> None:
        self.store = FakeStore(*rows)
        self.seconds = 0.0
        self.asked: list[str] = []
        self.answers: dict[str, bytes | Exception] = {
            "https://idp.example.com/k": document(key("a")),
            CLUSTER_KEYS: document(key("c")),
        }
        self.changed: list[str] = []
        self.refresher = KeyRefresher(
            store=self.store,
            web=self.fetch,
            cluster=self.fetch,
            pace=RefreshIntervals(cluster=15, url=60, retry=2),
            on_change=self.changed.append,
            clock=lambda: self.seconds,
            now=lambda: START + timedelta(seconds=self.seconds),
            jitter=lambda: 0.0,
        )

    async def fetch(self, url: str) -> bytes:
        self.asked.append(url)
        answer = self.answers[url]
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def after(self, seconds: float) -> None:
        self.seconds += seconds
        await self.refresher.refresh_due()

    def believed(self) -> set[str]:
        return {row.kid for row in self.store.keys.values() if row.retired_at is None}


async def test_each_source_is_asked_at_its_own_pace() -> None:
    """The cluster's keys are looked at more often than the web's, and inline ones never."""
    world = IssuerWorld(WEB, CLUSTER, INLINE)
    for _ in range(61):
        await world.after(1)
    assert world.asked.count(CLUSTER_KEYS) == 5
    assert world.asked.count("https://idp.example.com/k") == 2
    assert len(world.asked) == 7
    assert world.believed() == {"a", "c"}


async def test_rotation_overlaps_and_then_retires() -> None:
    """A new key is believed with the next fetch, the old one until it was missed three times and ten minutes."""
    world = IssuerWorld(WEB)
    await world.after(0)
    world.answers["https://idp.example.com/k"] = document(key("b"))
    for _ in range(9):
        await world.after(60)
        assert world.believed() == {"a", "b"}
    await world.after(60)
    assert world.believed() == {"b"}


@pytest.mark.parametrize(
    "broken",
    [KeysUnavailable("it answered 503"), b"", b'{"keys":[]}', b'{"keys":[{"kty":"oct","k":"AAAA","kid":"a"}]}'],
    ids=["away", "nothing", "empty", "symmetric"],
)
async def test_a_failed_fetch_changes_nothing_but_the_condition(broken: bytes | Exception) -> None:
    """For an hour of failures the keys stay as they are and status says that they are stale (F34)."""
    world = IssuerWorld(WEB)
    await world.after(0)
    before = dict(world.store.keys)
    assert world.refresher.freshness["idp"] == Condition("KeysFresh", "True", "KeysFetched", "1 key published")
    world.answers["https://idp.example.com/k"] = broken
    for _ in range(60):
        await world.after(60)
    assert world.store.keys == before
    stale = world.refresher.freshness["idp"]
    assert (stale.status, stale.reason) == ("False", "KeysStale")
    assert "AAAA" not in stale.message
    assert world.changed == ["idp", "idp"]
    world.answers["https://idp.example.com/k"] = document(key("a"))
    await world.after(60)
    assert world.refresher.freshness["idp"].status == "True"


async def test_after_a_failure_it_asks_sooner() -> None:
    """A failure is retried after two seconds, then four, up to the ordinary interval."""
    world = IssuerWorld(WEB)
    world.answers["https://idp.example.com/k"] = KeysUnavailable("it answered 503")
    at = []
    for second in range(200):
        before = len(world.asked)
        await world.after(1 if second else 0)
        at += [second] * (len(world.asked) - before)
    assert at == [0, 2, 6, 14, 30, 62, 122, 182]


async def test_one_issuer_that_fails_does_not_hold_up_another() -> None:
    """Each issuer stands for itself."""
    world = IssuerWorld(WEB, CLUSTER)
    world.answers[CLUSTER_KEYS] = KeysUnavailable("the API server is away")
    await world.after(0)
    assert world.believed() == {"a"}
    assert {name: item.status for name, item in world.refresher.freshness.items()} == {
        "idp": "True",
        "cluster": "False",
    }


async def test_a_new_or_changed_issuer_is_fetched_at_once() -> None:
    """What was just declared, or points elsewhere now, does not wait for the interval."""
    world = IssuerWorld()
    await world.after(0)
    world.store.rows.append(WEB)
    await world.after(1)
    assert world.believed() == {"a"}
    moved = IssuerRow(WEB.issuer, "idp", ("metagate",), ("ES256",), 3600, "URL", "https://idp.example.com/new")
    world.answers["https://idp.example.com/new"] = document(key("n"))
    world.store.rows[0] = moved
    await world.after(1)
    assert world.believed() == {"a", "n"}
    world.store.rows.clear()
    await world.after(1)
    assert world.refresher.freshness == {}


async def test_without_a_cluster_a_cluster_issuer_says_so() -> None:
    """Standalone there is no API server to ask; the condition says what to do instead."""
    world = IssuerWorld(CLUSTER)
    world.refresher._cluster = None
    await world.after(0)
    assert "URL or Inline" in world.refresher.freshness["cluster"].message


async def test_a_database_that_is_away_ends_nothing() -> None:
    """While the store is unavailable the refresher waits; when it is back it goes on."""
    import asyncio

    world = IssuerWorld(WEB)
    world.store.away = True
    world.refresher._pace = RefreshIntervals(look=0.01)
    task = asyncio.create_task(world.refresher.run())
    try:
        async with asyncio.timeout(10):
            while world.store.asked_while_away < 2 and not task.done():
                await asyncio.sleep(0.01)
        assert not task.done()
        world.store.away = False
        world.refresher.wake()
        for _ in range(200):
            if world.believed():
                break
            await asyncio.sleep(0.01)
        assert world.believed() == {"a"}
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
