"""A data directory that the release before wrote is opened by this one, without a step by hand."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from tests.checkouts import checkout_of
from tests.integration.dev.running import DeclaredFolder, Dev, manifest, owner_cannot_change_the_ledger

PREVIOUS = "01711b5"
"""The commit before the packages moved to roots of their own."""
QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "MEMORYGATE_", "JWT_"))}  # noqa: TID251


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with the wheel of that commit and the dependencies that it pinned."""
    source = checkout_of(PREVIOUS, tmp_path_factory.mktemp("previous") / "source")
    if source is None:
        pytest.skip(f"the history here does not reach to {PREVIOUS}: a shallow clone")
    folder = source.parent
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], cwd=source, check=True
    )
    [wheel] = folder.glob("*.whl")
    python = folder / "environment/bin/python"
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "-q", "--python", sys.executable, folder / "environment"], check=True)
    install = [uv, "pip", "install", "-q", "--python", python, "-c", source / "requirements.lock"]
    done = subprocess.run(
        [*install, f"{wheel}[operator,embedded]"], env=QUIET, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"no package index can be asked here: {done.stderr.strip().splitlines()[-1]}")
    subprocess.run([python, "-c", "import metagate_cli.asking"], cwd=folder, env=QUIET, check=True)  # it is the old one
    return python


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_data_directory_of_the_release_before(previous: Path, tmp_path: Path) -> None:
    """What was served is served, with the same key and a revision that goes on; startups and receipts of before are there,
    a session that was open can be reported, and a change is published.
    """
    world, data = DeclaredFolder(tmp_path / "resources"), tmp_path / "data"
    old = Dev(
        world.folder, data, "--with", "memorygate", python=str(previous), cwd=tmp_path, MEMORYGATE_PORT="0"
    ).ready()
    try:
        opened = old.bootstrap(world.key).json()
        finished = old.bootstrap(world.key, "done").json()["startup"]["startup_id"]
        key = {"X-API-Key": world.key.key}
        report = {"startup_id": finished, "build_version": "1"}
        httpx.post(f"{old.url}/v1/startup/ready", json=report, headers=key).raise_for_status()
        _receipts(old, world, finished, at_least=2)
    finally:
        assert old.stop() == 0
    new = Dev(world.folder, data, "--with", "memorygate", cwd=tmp_path, MEMORYGATE_PORT="0").ready()
    try:
        admin = {"X-API-Key": world.admin.key}
        again = new.bootstrap(world.key).json()
        assert again["environment"] == opened["environment"]
        assert again["snapshot"]["revision"] >= opened["snapshot"]["revision"]
        assert again["startup"]["startup_id"] != opened["startup"]["startup_id"]
        startups = httpx.get(f"{new.url}/v1/startups", headers=admin).json()["items"]
        states = {item["startup_id"]: item["status"] for item in startups}
        assert states[finished] == "READY"
        report = {"startup_id": opened["startup"]["startup_id"], "error": "upgraded meanwhile"}
        failed = httpx.post(f"{new.url}/v1/startup/failed", json=report, headers=key)
        assert (failed.status_code, failed.json()["status"]) == (200, "FAILED")
        history = httpx.get(f"{new.url}/v1/admin/history", headers=admin).json()["items"]
        assert {item["revision"] for item in history} >= {1}
        world.write("manifest.yaml", manifest("us"))
        new.until(lambda: new.region(world.key) == "us", 20)
        _receipts(new, world, finished, at_least=2)
        _receipts(new, world, opened["startup"]["startup_id"], at_least=2)
        await owner_cannot_change_the_ledger(data)
    finally:
        assert new.stop() == 0


def _receipts(dev: Dev, world: DeclaredFolder, startup_id: str, *, at_least: int) -> None:
    """Wait until the ledger has so many receipts of a startup."""
    ledger = dev.events("serving")[-1]["ledger"]
    ends = time.monotonic() + 30
    while time.monotonic() < ends:
        answer = httpx.get(f"{ledger}/receipts/task/{startup_id}", headers={"X-API-Key": world.admin.key})
        if answer.status_code == 200 and len(answer.json()["items"]) >= at_least:
            return
        time.sleep(0.1)
    raise AssertionError(answer.text)
