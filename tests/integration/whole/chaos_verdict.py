"""What is left after the faults: nothing lost, nothing twice, nothing that contradicts the receipts (CO-03)."""

import asyncio
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import asyncpg
from tests.integration.asyncgate.test_rebuild import SAME
from tests.integration.whole.story_load import Story
from tests.integration.whole.system import STORY_TASKS, WholeSystem

from asyncgate.rebuilding import orphans
from asyncgate.rebuilding import rebuild as rebuild_tasks
from depotgate.rebuilding import rebuild as rebuild_artifacts
from interrogate.verifying import verify as verify_counters
from memorygate.verifying import verify as verify_ledger

COMPLY = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()", "comply"]
_TABLES = {
    "asyncgate.task": f"SELECT {SAME} FROM asyncgate.task ORDER BY task_id",
    "asyncgate.need": "SELECT obligation_id, task_id, elsewhere FROM asyncgate.need ORDER BY 1, 2",
    "depotgate.artifact": "SELECT * FROM depotgate.artifact ORDER BY tenant, artifact_id",
    "depotgate.blob": "SELECT * FROM depotgate.blob ORDER BY key",
    "memorygate.obligation": "SELECT * FROM memorygate.obligation ORDER BY tenant, obligation_id, kind",
}
"""What gates hold, but for what is local to them: renewals, digests, keys."""


@dataclass(slots=True)
class ChaosVerdict:
    stories: int = 0
    receipts: int = 0
    lost: list[str] = field(default_factory=list)
    double: list[str] = field(default_factory=list)
    contradicting: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not (self.lost or self.double or self.contradicting)


async def judged(system: WholeSystem, stories: Sequence[Story]) -> ChaosVerdict:
    connection = await asyncpg.connect(system.gates.database.superuser)
    try:
        rows = await connection.fetch("SELECT body FROM memorygate.receipt ORDER BY stored_at, position")
        receipts = [json.loads(row["body"]) for row in rows]
        verdict = ChaosVerdict(len(stories), len(receipts))
        by_story: dict[str, list[dict[str, Any]]] = {story.plan_id: [] for story in stories}
        for receipt in receipts:
            by_story.get(receipt["root_task_id"] if "root_task_id" in receipt else _root(receipt), []).append(receipt)
        for story in stories:
            _judge_story(story, by_story[story.plan_id], verdict)
    finally:
        await connection.close()
    verdict.contradicting += await contradictions(system)
    return verdict


def _root(receipt: dict[str, Any]) -> str:
    return str(receipt["task_id"]).partition(".")[0]


def _judge_story(story: Story, receipts: list[dict[str, Any]], verdict: ChaosVerdict) -> None:
    ends = Counter(
        item["obligation_id"] for item in receipts if (item["kind"], item["phase"]) == ("obligation", "complete")
    )
    verdict.lost += [f"{name}: no end" for name in story.obligations if not ends[name]]
    verdict.double += [f"{name}: {count} ends" for name, count in ends.items() if count > 1]
    opened = Counter(
        item["obligation_id"] for item in receipts
        if (item["emitter"], item["phase"], item["kind"]) == ("delegate", "accepted", "obligation")
    )  # fmt: skip
    verdict.double += [f"{name}: opened {count} times" for name, count in opened.items() if count > 1]
    expected = {*story.obligations}
    if opened.keys() != expected:
        verdict.contradicting.append(f"{story.plan_id}: obligations {sorted(opened.keys() ^ expected)}")
    for emitter, phase, count in (
        ("svc:interrogate", "accepted", 1 + len(STORY_TASKS)), ("svc:asyncgate", "accepted", len(STORY_TASKS)),
    ):  # fmt: skip
        number = sum(
            (item["emitter"], item["phase"]) == (emitter, phase) and item["kind"] in {"admission", "obligation"}
            for item in receipts
        )
        if number != count:
            verdict.double.append(f"{story.plan_id}: {number} {phase} of {emitter}, not {count}")
    failed = [
        f"{item['obligation_id']}: {item['status']} {item.get('metadata')}" for item in receipts
        if (item["kind"], item["phase"]) == ("obligation", "complete") and item["status"] != "success"
    ]  # fmt: skip
    verdict.contradicting += failed


async def contradictions(system: WholeSystem) -> list[str]:
    """Of the chain, of what is derived from it, of what each gate holds after it was made anew, and what `legivellum comply`
    finds.
    """
    found = []
    dsn = system.gates.database.superuser
    ledger, counters = await verify_ledger(dsn), await verify_counters(dsn)
    found += [f"memorygate verify: {ledger.bad}"] if ledger.bad else []
    found += [f"interrogate verify: {counters.bad}"] if counters.bad else []
    found += [f"asyncgate orphans: {orphan}" for orphan in await orphans(dsn)]
    before = await _contents(dsn)
    await rebuild_tasks(dsn)
    await rebuild_artifacts(dsn)
    await verify_ledger(dsn, rebuild=True)
    after = await _contents(dsn)
    found += await findings(system)
    return found + [f"{table} is not what its rebuild is" for table in _TABLES if before[table] != after[table]]


async def findings(system: WholeSystem) -> list[str]:
    """Of `legivellum comply`, with an admin's key, about the whole tenant."""
    gates, [tenant] = system.gates, system.tenants.values()
    key = gates.directory / "admin.key"
    key.write_text(tenant.principals["admin"].key, encoding="ascii")
    urls = {
        f"METAGATE_{gate.upper()}_URL": gates.url(gate)
        for gate in ("memorygate", "asyncgate", "depotgate", "interrogate")
    }
    environment = {**urls, "METAGATE_URL": gates.url("metagate"), "METAGATE_API_KEY_FILE": str(key)}
    done = await asyncio.to_thread(
        subprocess.run,
        [*COMPLY, "-o", "json"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    if done.returncode not in {0, 1}:
        return [f"legivellum comply: {done.returncode} {done.stdout} {done.stderr}"]
    return [f"legivellum comply: {finding}" for finding in json.loads(done.stdout)["findings"]]


async def _contents(dsn: str) -> dict[str, list[tuple[Any, ...]]]:
    connection = await asyncpg.connect(dsn)
    try:
        return {table: [tuple(row) for row in await connection.fetch(query)] for table, query in _TABLES.items()}
    finally:
        await connection.close()
