"""`metagate dev --with memorygate`: both gates on one machine, in one command."""

import time
from pathlib import Path

import httpx
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, owner_cannot_change_the_ledger, principal
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(120)


@pytest.mark.invariant("INV-039", "INV-121")
def test_a_boot_and_a_ready_are_two_linked_receipts_of_one_closed_obligation(tmp_path: Path):
    """Boot, report, and read the task at the ledger; then start again: nothing is there twice."""
    world = DeclaredFolder(tmp_path / "resources")
    observer = mint()
    world.write("people/eve.yaml", principal("eve", observer, type="observer"))
    port = free_port()
    ledger = f"http://127.0.0.1:{port}"
    ids = []
    for _ in range(2):
        dev = Dev(world.folder, tmp_path / "data", "--with", "memorygate", MEMORYGATE_PORT=str(port))
        try:
            dev.ready()
            assert dev.events("serving")[-1]["ledger"] == ledger
            startup_id = dev.bootstrap(world.key).json()["startup"]["startup_id"]
            ids.append(startup_id)
            answer = httpx.post(
                f"{dev.url}/v1/startup/ready",
                json={"startup_id": startup_id, "build_version": "1"},
                headers={"X-API-Key": world.key.key},
            )
            assert answer.json()["status"] == "READY"
            for item in ids:
                opened, ended = _receipts(ledger, item, observer.key)
                assert (opened["phase"], ended["phase"], ended["status"]) == ("accepted", "complete", "success")
                assert ended["caused_by_receipt_id"] == opened["receipt_id"]
                assert ended["obligation_id"] == opened["obligation_id"] == item
            summary = httpx.get(f"{ledger}/v1/summary", headers={"X-API-Key": observer.key}).json()
            assert summary["startups"] == {"open": 0, "success": len(ids), "failure": 0}
        finally:
            assert dev.stop() == 0
    assert (world.folder / "principals" / "metagate-system" / "ledger-witness.yaml").exists()
    assert (tmp_path / "data" / "keys" / "ledger-witness.key").stat().st_mode & 0o077 == 0


def _receipts(ledger: str, task: str, key: str) -> list[dict[str, str]]:
    """Both receipts, once they have arrived."""
    end = time.monotonic() + 20
    while True:
        result = httpx.get(f"{ledger}/receipts/task/{task}", headers={"X-API-Key": key})
        if result.status_code == 200 and len(result.json()["items"]) == 2:
            return list(result.json()["items"])
        assert time.monotonic() < end, result.text
        time.sleep(0.05)


@pytest.mark.invariant("INV-069")
async def test_no_other_login_changes_the_ledger(tmp_path: Path):
    """Neither by right nor by a role that it could take on: the login of MetaGate's owner cannot touch a ledger row."""
    world = DeclaredFolder(tmp_path / "resources")
    dev = Dev(world.folder, tmp_path / "data", "--with", "memorygate", MEMORYGATE_PORT=str(free_port()))
    try:
        dev.ready()
        await owner_cannot_change_the_ledger(tmp_path / "data")
    finally:
        assert dev.stop() == 0
