"""The ledger's chart beside MetaGate's: what pods boot arrives there, once; and whether it is there is nothing to them."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from tests.e2e.kubernetes import ROOT, Object, eventually
from tests.e2e.ledger import LedgerReader, install_ledger, mirror, reading_ledger
from tests.e2e.release import AGENTS, NAMESPACE, InstalledRelease, PodLoad, loop, undisturbed

Say = Callable[[str], None]


@pytest.fixture(scope="module")
def ledger(release: InstalledRelease, say: Say) -> Iterator[LedgerReader]:
    """Both commands at once: the order does not matter."""
    cluster = release.cluster
    cluster.kubectl("apply", "-f", str(ROOT / "examples" / "pods" / "world.yaml"))
    with ThreadPoolExecutor(2) as both:
        mirrored, seconds = both.submit(mirror, cluster), both.submit(install_ledger, cluster)
        mirrored.result()
        say(f"helm install memorygate --wait {seconds.result():.1f} s, while MetaGate was told of it")
    with reading_ledger(release) as reader:
        yield reader
    cluster.helm("uninstall", "memorygate", "-n", NAMESPACE)


@pytest.fixture(scope="module")
def booted(ledger: LedgerReader) -> Iterator[tuple[PodLoad, Callable[[], list[Object]]]]:
    """Pods' behaviour in a loop, and how to list what it opened (and nothing that was opened before)."""
    before = {startup["startup_id"] for startup in ledger.release.startups(AGENTS, "courier-load")}

    def opened() -> list[Object]:
        return [e for e in ledger.release.startups(AGENTS, "courier-load") if e["startup_id"] not in before]

    yield loop(ledger.release.cluster), opened
    ledger.release.cluster.kubectl("-n", AGENTS, "delete", "pod", "courier-load", "--now", "--ignore-not-found")


@pytest.mark.invariant("INV-039", "INV-121")
def test_what_pods_boot_arrives_at_the_ledger(ledger: LedgerReader, booted: tuple[PodLoad, Callable[[], list[Object]]]):
    """A boot and a READY in a pod: two linked receipts of one closed obligation, naming component, principal and pod."""
    ready = eventually(lambda: [item for item in booted[1]() if item["status"] == "READY"][-20:], within=30)
    eventually(lambda: ledger.has(ready), within=30)
    receipts = ledger.tasks([startup["startup_id"] for startup in ready], ready[0]["tenant"])
    for startup, (opened, ended) in zip(ready, receipts, strict=True):
        assert ended["caused_by_receipt_id"] == opened["receipt_id"]
        assert opened["obligation_id"] == ended["obligation_id"] == startup["startup_id"]
        assert (opened["recipient_ai"], ended["status"]) == ("courier", "success")
        assert opened["metadata"]["component_key"] == "courier-load"
        assert opened["metadata"]["pod"]["name"] == "courier-load"
        assert opened["tenant_id"] == startup["tenant"]
    tenant = ready[0]["tenant"]
    [counted] = ledger.ask(f"/v1/summary?tenant={tenant}")
    assert counted["startups"]["success"] >= len(ready)
    assert ledger.release.ask(f"/v1/summary?tenant={tenant}")["startups"]["ready"] >= len(ready)


@pytest.mark.invariant("INV-025", "INV-028")
def test_uninstalling_the_ledger_disturbs_no_boot_and_a_new_one_catches_up(
    ledger: LedgerReader, booted: tuple[PodLoad, Callable[[], list[Object]]], say: Say
):
    """`helm uninstall memorygate` under load: no boot fails or is repeated; a new install gets everything, once."""
    cluster = ledger.release.cluster
    load, opened = booted
    cluster.helm("uninstall", "memorygate", "-n", NAMESPACE, "--wait", "--timeout", "2m")
    during = {item["startup_id"] for item in opened()}
    ready = len(during)
    eventually(lambda: len(opened()) > ready + 20, within=30)
    seconds = install_ledger(cluster)
    missed = len(opened()) - ready
    counts = load.counts()
    began = time.monotonic()
    startups = opened()
    eventually(lambda: ledger.has(startups), within=90, every=1)
    say(
        f"ledger uninstalled under load: {counts['booted']} boots, {counts['failed']} failed, {missed} opened without it;"
        f" installed again in {seconds:.1f} s, everything there {time.monotonic() - began:.1f} s after the last boot"
    )
    undisturbed(counts)
    assert missed > 20
    assert len(startups) >= counts["booted"]
