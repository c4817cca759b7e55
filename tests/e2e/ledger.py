"""The ledger beside the release under test, and somebody who may read all of it."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.e2e.kubernetes import ROOT, NodeCluster, Object
from tests.e2e.release import CHART, NAME, NAMESPACE, InstalledRelease, pod, script

LEDGER = ROOT / "charts" / "memorygate"


def install_ledger(cluster: NodeCluster, *values: str) -> float:
    """The second of the two commands; how long it took until the ledger was Ready."""
    began = time.monotonic()
    trial = ("--set", f"database.trialOf={NAME}", "--set", "replicas=1", *values)
    cluster.helm("install", "memorygate", str(LEDGER), "-n", NAMESPACE, *trial, "--wait", "--timeout", "2m")
    return time.monotonic() - began


def mirror(cluster: NodeCluster, *values: str) -> None:
    """The first one, for a release that is there already."""
    told = ("--reset-then-reuse-values", "--set", "ledger.url=http://memorygate:8001", *values)
    cluster.helm("upgrade", NAME, str(CHART), "-n", NAMESPACE, *told, "--wait", "--timeout", "3m")
    cluster.rolled_out(NAMESPACE, "deployment/metagate-api", "deployment/metagate-operator")


@dataclass(frozen=True)
class LedgerReader:
    """Asked by an observer of the whole cluster, whose token is made for the ledger."""

    release: InstalledRelease

    def ask(self, *paths: str) -> list[Any]:
        command = ("-n", NAMESPACE, "exec", "auditor", "--", "python3", "/scripts/ask.py")
        pages = [paths[at : at + 400] for at in range(0, len(paths), 400)]
        return [
            json.loads(line) for page in pages for line in self.release.cluster.kubectl(*command, *page).splitlines()
        ]

    def tasks(self, task_ids: list[str], tenant: str) -> list[list[Object]]:
        """The receipts of each task."""
        return [page["items"] for page in self.ask(*(f"/receipts/task/{task}?tenant={tenant}" for task in task_ids))]

    def has(self, startups: list[Object]) -> bool:
        """Whether everything that MetaGate witnessed of them has arrived, each event once."""
        by_startup = self.tasks([startup["startup_id"] for startup in startups], startups[0]["tenant"])
        for startup, receipts in zip(startups, by_startup, strict=True):
            phases = [receipt["phase"] for receipt in receipts]
            assert phases == (["accepted"] if startup["acknowledged_at"] is None else ["accepted", "complete"]), phases
        return True


@contextmanager
def reading_ledger(release: InstalledRelease) -> Iterator[LedgerReader]:
    cluster = release.cluster
    auditor = pod("auditor", NAMESPACE, "watcher", ["python3", "/scripts/ask.py", "--stay"], scripts="ask",
                  audience="memorygate", METAGATE_URL="http://memorygate:8001")  # fmt: skip
    script(cluster, NAMESPACE, "ask.py")
    cluster.apply(auditor)
    cluster.kubectl("-n", NAMESPACE, "wait", "--for=condition=Ready", "pod/auditor", "--timeout=60s")
    yield LedgerReader(release)
    cluster.kubectl("-n", NAMESPACE, "delete", "pod", "auditor", "--now")
