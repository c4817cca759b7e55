"""The cluster as a source, against an API server that misbehaves on demand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from tests.operator.fake_api_server import FakeApiServer

from metagate_crds.kinds import KINDS
from metagate_crds.objects import ObjectKey
from metagate_operator.cluster.cluster_source import ClusterSource
from metagate_operator.cluster.kubernetes_client import KubernetesClient
from metagate_operator.cluster.object_cache import ObjectCache
from metagate_operator.cluster.watcher import silence_kopf_loggers
from metagate_operator.sources.source import (
    Event,
    NamespaceGone,
    NamespacePut,
    ObjectGone,
    ObjectPut,
    Relist,
    SourceUnavailable,
)

silence_kopf_loggers()


class EventRecorder:
    """Hears the events of a source, and waits for those a test expects."""

    def __init__(self, source: ClusterSource) -> None:
        self.source = source
        self.events: list[Event] = []
        self._more = asyncio.Event()

    async def record(self) -> None:
        async for event in self.source.events():
            self.events.append(event)
            self._more.set()

    async def until(self, wanted, *, seconds: float = 10) -> Event:
        async with asyncio.timeout(seconds):
            while True:
                for event in self.events:
                    if wanted(event):
                        return event
                self._more.clear()
                await self._more.wait()

    async def quiet(self) -> None:
        """kopf has told what it listed at first, and the source has compared it with its own listing: no event."""
        async with asyncio.timeout(20):
            await self.source.watch_compared.wait()
        assert not self.events


async def until(fact: Callable[[], bool], *, seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not fact():
            await asyncio.sleep(0.02)


@asynccontextmanager
async def listening(api: FakeApiServer, directory: Path, **options) -> AsyncIterator[EventRecorder]:
    kubernetes = await KubernetesClient.connect(api.kubeconfig(directory))
    recorder = EventRecorder(ClusterSource(kubernetes, ObjectCache(), **options))
    task = asyncio.create_task(recorder.record())
    await recorder.source.listing()
    try:
        expected = 7 - (1 if options.get("namespaces") else 0) if not options.get("issuers") else 5
        await until(lambda: api.watching >= expected)
        yield recorder
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kubernetes.close()


@pytest.fixture
async def api() -> AsyncIterator[FakeApiServer]:
    async with FakeApiServer().serving() as server:
        server.namespace("team-a")
        server.put("Manifest", "team-a", "prod", {"version": 1})
        yield server


async def test_a_listing_holds_every_object_of_every_kind(api: FakeApiServer, tmp_path: Path) -> None:
    """Paging through more than a page of objects loses none, and keeps uid, generation and spec of each."""
    for number in range(1201):
        api.put("Profile", "team-a", f"p{number}", {"capabilities": {"n": number}})
    api.put("TokenIssuer", "", "cluster", {"issuer": "x"})
    kubernetes = await KubernetesClient.connect(api.kubeconfig(tmp_path))
    listing = await ClusterSource(kubernetes, ObjectCache()).listing()
    await kubernetes.close()
    assert {namespace.name for namespace in listing.namespaces} == {"team-a"}
    profiles = {obj.key.name: obj.spec["capabilities"]["n"] for obj in listing.objects if obj.key.kind == "Profile"}
    assert profiles == {f"p{number}": number for number in range(1201)}
    assert {obj.key for obj in listing.objects if obj.key.kind != "Profile"} == {
        ObjectKey("Manifest", "team-a", "prod"),
        ObjectKey("TokenIssuer", "", "cluster"),
    }


@pytest.mark.parametrize("fault", ["second page", "vanished kind", "no answer", "forbidden"])
async def test_a_listing_that_fails_anywhere_is_no_listing(api: FakeApiServer, tmp_path: Path, fault: str) -> None:
    """One failing page, a kind that is not served, a refused verb or a dead server: unavailable, never a
    shorter list.
    """
    for number in range(600):
        api.put("Profile", "team-a", f"p{number}", {})
    kubernetes = await KubernetesClient.connect(api.kubeconfig(tmp_path))
    source = ClusterSource(kubernetes, ObjectCache())
    match fault:
        case "second page":
            api.fail_page["profiles"] = 2
        case "vanished kind":
            api.vanished.add("policyprofiles")
        case "no answer":
            api.down = True
        case "forbidden":
            api.refused.add("list manifests")
    with pytest.raises(SourceUnavailable):
        await source.listing()
    await kubernetes.close()


async def test_a_change_is_told_once(api: FakeApiServer, tmp_path: Path) -> None:
    """A new object, a new generation and a deletion are each one event; a status write is none."""
    async with listening(api, tmp_path) as recorder:
        await recorder.quiet()
        api.put("Principal", "team-a", "indexer", {"type": "component"})
        put = await recorder.until(lambda event: isinstance(event, ObjectPut))
        assert isinstance(put, ObjectPut)
        assert put.object.key == ObjectKey("Principal", "team-a", "indexer")
        assert put.object.spec == {"type": "component"}
        manifest = api.objects[("manifests", "team-a", "prod")]
        api.version += 1
        manifest = {
            **manifest,
            "metadata": {**manifest["metadata"], "resourceVersion": str(api.version)},
            "status": {"observedGeneration": 1},
        }
        api.replay("Manifest", manifest)
        api.put("Principal", "team-a", "indexer", {"type": "worker"})
        await recorder.until(lambda event: isinstance(event, ObjectPut) and event.object.generation == 2)
        api.delete("Principal", "team-a", "indexer")
        gone = await recorder.until(lambda event: isinstance(event, ObjectGone))
        assert gone == ObjectGone(put.object.key, put.object.uid)
        assert len(recorder.events) == 3


async def test_namespaces_come_and_go(api: FakeApiServer, tmp_path: Path) -> None:
    """A namespace that is created, deleted and created again is told with its uid each time."""
    async with listening(api, tmp_path) as recorder:
        await recorder.quiet()
        first = api.namespace("team-b")["metadata"]["uid"]
        await recorder.until(lambda event: isinstance(event, NamespacePut) and event.namespace.uid == first)
        api.delete("Namespace", "", "team-b")
        assert await recorder.until(lambda event: isinstance(event, NamespaceGone)) == NamespaceGone("team-b", first)
        second = api.namespace("team-b")["metadata"]["uid"]
        await recorder.until(lambda event: isinstance(event, NamespacePut) and event.namespace.uid == second)


async def test_what_goes_between_the_listing_and_the_watch_is_missed_by_neither(
    api: FakeApiServer, tmp_path: Path
) -> None:
    """An object that the listing showed and kopf's first listing does not: the source asks to be listed again."""
    kubernetes = await KubernetesClient.connect(api.kubeconfig(tmp_path))
    recorder = EventRecorder(ClusterSource(kubernetes, ObjectCache()))
    await recorder.source.listing()
    api.put("Manifest", "team-a", "other", {"version": 1})
    api.delete("Manifest", "team-a", "prod")
    task = asyncio.create_task(recorder.record())
    try:
        await recorder.until(lambda event: isinstance(event, Relist))
        await recorder.until(lambda event: isinstance(event, ObjectPut) and event.object.key.name == "other")
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await kubernetes.close()


async def test_f30_gone_in_the_middle_of_a_watch_asks_for_a_listing(api: FakeApiServer, tmp_path: Path) -> None:
    """After a 410 kopf lists again and an object deleted meanwhile fires no event: the source asks to be listed, and
    tells no deletion.
    """
    api.put("Profile", "team-a", "worker", {})
    async with listening(api, tmp_path) as recorder:
        await recorder.quiet()
        api.delete("Profile", "team-a", "worker", quietly=True)
        api.expire_watches()
        await recorder.until(lambda event: isinstance(event, Relist))
        assert not [event for event in recorder.events if isinstance(event, ObjectGone | ObjectPut)]
        assert {obj.key.kind for obj in (await recorder.source.listing()).objects} == {"Manifest"}


async def test_f32_old_news_is_no_news(api: FakeApiServer, tmp_path: Path) -> None:
    """Replayed old versions, deletions of earlier incarnations and deletions from before the last sight are dropped."""
    old = api.put("Profile", "team-a", "worker", {"capabilities": {"a": 1}})
    api.delete("Profile", "team-a", "worker")
    first = api.put("Profile", "team-a", "worker", {"capabilities": {"a": 1}})
    api.put("Profile", "team-a", "worker", {"capabilities": {"a": 2}})
    async with listening(api, tmp_path) as recorder:
        await recorder.quiet()
        api.replay("Profile", first)
        api.replay("Profile", first, "DELETED")
        api.replay(
            "Profile", {**old, "metadata": {**old["metadata"], "resourceVersion": str(api.version + 1)}}, "DELETED"
        )
        api.put("Profile", "team-a", "worker", {"capabilities": {"a": 3}})
        put = await recorder.until(lambda event: isinstance(event, ObjectPut))
        assert isinstance(put, ObjectPut)
        assert put.object.spec == {"capabilities": {"a": 3}}
        assert [event for event in recorder.events if not isinstance(event, Relist)] == [put]


async def test_f29_a_silent_watch_is_given_up(api: FakeApiServer, tmp_path: Path) -> None:
    """A watch that stays open and says nothing is closed after the inactivity timeout, and the next one tells what was
    missed.
    """
    async with listening(api, tmp_path, inactivity_timeout=1.0) as recorder:
        await recorder.quiet()
        api.silent = True
        api.put("Profile", "team-a", "unheard", {})
        await until(lambda: api.withheld > 0)
        assert not recorder.events
        api.silent = False
        await recorder.until(lambda event: isinstance(event, ObjectPut) and event.object.key.name == "unheard")


async def test_the_bell_rings_again_after_the_server_was_away(api: FakeApiServer, tmp_path: Path) -> None:
    """Connections refused for a while, then changes are told again without a restart of the process."""
    async with listening(api, tmp_path) as recorder:
        await recorder.quiet()
        api.down = True
        api.hang_up()
        with pytest.raises(SourceUnavailable):
            await recorder.source.listing()
        dropped = api.dropped
        await until(lambda: api.dropped > dropped)  # the watch has tried again, too
        api.down = False
        await recorder.source.listing()
        api.put("Profile", "team-a", "later", {})
        await recorder.until(
            lambda event: isinstance(event, ObjectPut) and event.object.key.name == "later", seconds=20
        )


async def test_a_kind_that_vanished_is_watched_again_when_it_is_back(api: FakeApiServer, tmp_path: Path) -> None:
    """Without its CRD a kind makes every listing unavailable; once it is back, so are its events."""
    async with listening(api, tmp_path) as recorder:
        await recorder.quiet()
        api.vanished.add("profiles")
        api.hang_up()
        with pytest.raises(SourceUnavailable):
            await recorder.source.listing()
        asked = api.requests["watch profiles"]
        await until(lambda: api.requests["watch profiles"] > asked or api.requests["list profiles"] > 2)
        api.vanished.clear()
        await recorder.source.listing()
        await recorder.until(lambda event: isinstance(event, Relist), seconds=20)
        await until(lambda: api.watching >= 7)
        api.put("Profile", "team-a", "later", {})
        await recorder.until(
            lambda event: isinstance(event, ObjectPut) and event.object.key.name == "later", seconds=20
        )


async def test_only_the_named_namespaces_are_read(api: FakeApiServer, tmp_path: Path) -> None:
    """With namespaces given, nothing outside of them is asked for, and TokenIssuers come from files."""
    api.namespace("team-b")
    api.put("Manifest", "team-b", "other", {})
    issuers = tmp_path / "issuers"
    issuers.mkdir()
    (issuers / "idp.yaml").write_text(
        "apiVersion: metagate.legivellum.io/v1alpha1\nkind: TokenIssuer\nmetadata: {name: idp}\nspec: {issuer: https://idp.example.com}\n"
    )
    async with listening(api, tmp_path, namespaces=["team-a"], issuers=issuers) as recorder:
        listing = await recorder.source.listing()
        assert [namespace.name for namespace in listing.namespaces] == ["team-a"]
        assert {obj.key for obj in listing.objects} == {
            ObjectKey("Manifest", "team-a", "prod"),
            ObjectKey("TokenIssuer", "", "idp"),
        }
        await recorder.quiet()
        api.put("Manifest", "team-b", "other", {"version": 2})
        api.put("Manifest", "team-a", "prod", {"version": 2})
        await recorder.until(lambda event: isinstance(event, ObjectPut))
        assert [event.object.key.namespace for event in recorder.events if isinstance(event, ObjectPut)] == ["team-a"]
    assert "list tokenissuers" not in api.requests
    assert "list namespaces" not in api.requests
    assert set(KINDS) == {
        "TokenIssuer",
        "Principal",
        "Profile",
        "Manifest",
        "PrincipalBinding",
        "PolicyProfile",
        "Problemata",
        "PlanTemplate",
    }
