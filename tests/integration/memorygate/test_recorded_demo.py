"""The recorded demo in an empty ledger: the same story byte for byte, and nothing that breaks a rule.

`tests/recordings/demo.py` records it anew.
"""

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
import pytest_asyncio
from tests.databases import Server
from tests.integration.memorygate.conftest import make_ledger
from tests.integration.memorygate.ledger_fixture import (
    LedgerPrincipal,
    free_port,
    ledger_fixture,
    ledger_process,
    ready,
)
from tests.recordings.demo import EXPLAINED, RECEIPTS

from legivellum.base.canonical_json import canonical
from legivellum.base.timestamps import rfc3339
from legivellum.receipts.archive_format import ADDED
from legivellum.receipts.chain import chain_seed, link
from metagate_cli.compliance_reading import LedgerReading, PatientClient

pytestmark = pytest.mark.asyncio(loop_scope="session")
LEGIVELLUM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]
MEMORYGATE = [sys.executable, "-c", "from memorygate.main import main; main()"]
RECORDED: list[dict[str, Any]] = [json.loads(line) for line in RECEIPTS.read_text().splitlines()]
PLAN = next(item["task_id"] for item in RECORDED if item.get("task_type") == "plan.run" and item["phase"] == "accepted")


@dataclass(frozen=True, slots=True)
class ReplayedLedger:
    """A served ledger without receipts, and somebody of the recorded tenant and of another one."""

    owner: str
    url: str
    people: dict[UUID, LedgerPrincipal]
    folder: Path

    async def run(self, *command: str, tenant: str | None = None) -> subprocess.CompletedProcess[bytes]:
        environment = {"PATH": os.environ["PATH"], "METAGATE_MEMORYGATE_URL": self.url}  # noqa: TID251 - of a child
        if tenant is not None:
            key = self.folder / "key"
            key.write_text(self.people[UUID(tenant)].key)
            environment["METAGATE_API_KEY_FILE"] = str(key)
        return await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False)

    async def replay(self, receipts: list[dict[str, Any]]) -> None:
        file = self.folder / "receipts.jsonl"
        file.write_text("".join(f"{json.dumps(item)}\n" for item in receipts))
        done = await self.run(*MEMORYGATE, "import", "--database-url", self.owner, str(file))
        assert done.returncode == 0, done.stderr


OTHERS = {days: str(uuid4()) for days in (2, 4)}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def replayed(postgres: Server, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ReplayedLedger]:
    database = await make_ledger(postgres)
    folder = tmp_path_factory.mktemp("replayed")
    tenants = (UUID(RECORDED[0]["tenant_id"]), *map(UUID, OTHERS.values()))
    people = {tenant: LedgerPrincipal(tenant, "ida") for tenant in tenants}
    port = free_port()
    process = ledger_process(database, port, folder / "log")
    async with ledger_fixture(database, *people.values()):
        await process.start()
        try:
            await ready(f"http://127.0.0.1:{port}")
            yield ReplayedLedger(database.owner, f"http://127.0.0.1:{port}", people, folder)
        finally:
            await process.kill()
    await postgres.drop(database.database)


async def test_the_recorded_demo_is_explained_byte_for_byte(replayed: ReplayedLedger) -> None:
    """Ids and times of the record stay; the same record again changes nothing."""
    tenant = RECORDED[0]["tenant_id"]
    for _ in range(2):
        await replayed.replay(RECORDED)
        told = await replayed.run(*LEGIVELLUM, "explain", PLAN, "-o", "wide", tenant=tenant)
        assert (told.returncode, told.stdout) == (0, EXPLAINED.read_bytes()), told.stderr
    done = await replayed.run(*LEGIVELLUM, "comply", "-o", "json", tenant=tenant)
    report = json.loads(done.stdout)
    assert (done.returncode, report["findings"]) == (0, [])
    # The plan's tree, and an input each.
    assert (report["receipts"], report["roots"]) == (35, 3)


async def test_memory_is_bounded_by_what_may_be_held(replayed: ReplayedLedger) -> None:
    """However little of the stream may be held, each tree is read whole and once."""
    await replayed.replay(RECORDED)
    person = replayed.people[UUID(RECORDED[0]["tenant_id"])]
    client = PatientClient(replayed.url, person.headers)

    def read(most: int) -> tuple[dict[str, int], int, int]:
        reading = LedgerReading(client, most_held=most)
        trees = {tree.root_task_id: len(tree.facts) for tree in reading.since(None)}
        assert not any(tree.broken for tree in reading.since(None))
        return trees, len(trees), sum(trees.values())

    whole = await asyncio.to_thread(read, 1_000)
    assert whole[1:] == (3, 35)
    for most in (0, 1, 2, 10, 34):
        assert await asyncio.to_thread(read, most) == whole


def shifted(receipts: list[dict[str, Any]], tenant: str, end: datetime) -> list[dict[str, Any]]:
    """The same story of another tenant, ended then: with digests and chains of its own."""
    later = end - datetime.fromisoformat(receipts[-1]["stored_at"])
    chains: dict[str, tuple[int, bytes]] = {}
    answered = []
    for item in receipts:
        body = {name: value for name, value in item.items() if name not in ADDED} | {"tenant_id": tenant}
        root, at = item["root_task_id"], datetime.fromisoformat(item["stored_at"]) + later
        position, previous = chains.get(root, (0, chain_seed(tenant, root)))
        digest = hashlib.sha256(canonical(body)).digest()
        chain = link(previous, digest, item["receipt_id"], position + 1, at)
        chains[root] = position + 1, chain
        added = {"stored_at": rfc3339(at), "sha256": digest.hex(), "root_task_id": root, "position": position + 1}
        answered.append({**body, **added, "chain_sha256": chain.hex()})
    return answered


@pytest.mark.parametrize(("days", "steps"), [(2, []), (4, ["read-0", "read-1"])])
async def test_a_story_that_nobody_went_on_with(replayed: ReplayedLedger, days: int, steps: list[str]) -> None:
    """Up to where its steps wait at AsyncGate: after three days those that wait for nothing else are found."""
    first_lease = next(number for number, item in enumerate(RECORDED) if item["phase"] == "lease_issued")
    tenant = OTHERS[days]
    await replayed.replay(shifted(RECORDED[:first_lease], tenant, datetime.now(UTC) - timedelta(days=days)))
    done = await replayed.run(*LEGIVELLUM, "comply", "--root", PLAN, "-o", "json", tenant=tenant)
    findings = [(finding["code"], finding["task_id"]) for finding in json.loads(done.stdout)["findings"]]
    assert findings == [("OBLIGATION_UNATTENDED", f"{PLAN}.{step}") for step in steps]
    assert done.returncode == bool(steps)


async def test_a_ledger_that_does_not_answer_cannot_be_looked_at(replayed: ReplayedLedger) -> None:
    """Neither can a tree that nobody has heard of, nor one that is not mine to read."""
    away = f"http://127.0.0.1:{free_port()}"
    for command, said in (
        (("--root", "nobody"), "no receipt"),
        (("--tenant", OTHERS[4]), "TENANT_MISMATCH"),
    ):
        done = await replayed.run(*LEGIVELLUM, "comply", *command, tenant=OTHERS[2])
        assert (done.returncode, done.stdout) == (3, b""), done.stderr
        assert said in done.stderr.decode()
    silent = ReplayedLedger(replayed.owner, away, replayed.people, replayed.folder)
    done = await silent.run(*LEGIVELLUM, "comply", tenant=OTHERS[2])
    assert (done.returncode, done.stdout) == (3, b"")
