"""DepotGate on a real S3 server: deposits, reads and ranges over HTTP, and the server away and back."""

import asyncio
import os
from pathlib import Path

import pytest
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.depotgate.conftest import DepotDatabase
from tests.integration.depotgate.gate_fixture import serving_depotgate
from tests.integration.memorygate.conftest import new_id, rows
from tests.object_store import ObjectStore

from depotgate.blobs import PART_BYTES

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_gate_on_a_bucket(
    depot_database: DepotDatabase, object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.credentials.items():
        monkeypatch.setenv(name, value)
    tenant = TaskTenant(depot_database.tasks)
    await tenant.publish()
    store = f"s3://{object_store.make_bucket()}/depot"
    small, large = os.urandom(1_000), os.urandom(2 * PART_BYTES + 11)
    async with serving_depotgate(tenant, depot_database, tmp_path, store=store) as depot:
        kept = {content: (await depot.kept(content))["pointer"] for content in (small, large, b"")}
        for content, pointer in kept.items():
            assert (await depot.get(f"/artifacts/{pointer}")).content == content
        part = await depot.get(f"/artifacts/{kept[large]}", range="bytes=8388600-8388620")
        assert (part.status_code, part.content) == (206, large[8388600:8388621])
        again = await depot.kept(large)
        assert (await depot.get(f"/artifacts/{again['pointer']}")).content == large

        object_store.end()
        try:
            artifact_id = new_id()
            answers = await asyncio.gather(
                depot.deposit(small + b"more", artifact_id=artifact_id), depot.get(f"/artifacts/{kept[small]}")
            )
            assert [answer.json()["code"] for answer in answers] == ["UNAVAILABLE", "UNAVAILABLE"]
            assert (await depot.get(f"/artifacts/{kept[small]}/manifest")).status_code == 200
            query = "SELECT FROM depotgate.artifact WHERE artifact_id = $1"
            assert await rows(depot_database.superuser, query, artifact_id) == []
        finally:
            object_store.begin()
        assert (await depot.deposit(small + b"more", artifact_id=artifact_id)).status_code == 201
        assert (await depot.get(f"/artifacts/{kept[small]}")).content == small
