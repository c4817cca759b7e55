"""`metagate dev` as people run it: a process of its own, a directory, a data directory, HTTP."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from legivellum.identity.api_keys import MintedKey, mint

HEAD = "apiVersion: metagate.legivellum.io/v1alpha1\n"


def resource(kind: str, name: str, spec: Any, namespace: str | None = None) -> str:
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return f"{HEAD}kind: {kind}\nmetadata: {json.dumps(metadata)}\nspec: {json.dumps(spec)}\n"


def principal(name: str, key: MintedKey, **more: Any) -> str:
    spec = {"type": "component", "apiKeys": [{"id": key.id, "sha256": key.sha256}], **more}
    return resource("Principal", name, spec)


def binding(name: str, **more: Any) -> str:
    spec = {
        "principalRef": {"name": name},
        "profileRef": {"name": "worker"},
        "manifestRef": {"name": "world"},
        "components": ["*"],
    }
    return resource("PrincipalBinding", name, {**spec, **more})


def manifest(region: str) -> str:
    return resource("Manifest", "world", {"deploymentKey": "d", "environment": {"region": region}})


class DeclaredFolder:
    """A small declared world in a directory: profile, manifest, one principal with a key, its binding, an admin."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.admin = mint(), mint()
        folder.mkdir(parents=True)
        self.write("profile.yaml", resource("Profile", "worker", {"capabilities": {"read": True}}))
        self.write("manifest.yaml", manifest("eu"))
        self.write("people/ada.yaml", principal("ada", self.key))
        self.write("people/admin.yaml", principal("admin", self.admin, type="admin"))
        self.write("bindings.yaml", binding("ada"))

    def write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path


class Dev:
    """One `metagate dev`. `lines` is what it said, as it says it."""

    def __init__(
        self,
        resources: Path,
        data: Path,
        *arguments: str,
        port: int = 0,
        python: str = sys.executable,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        quiet = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "JWT_"))}  # noqa: TID251
        self.process = subprocess.Popen(
            [python, "-m", "metagate_cli.main", "dev", "--resources", str(resources), "--data-dir", str(data),
             "--port", str(port), *arguments],
            env={**quiet, **environment},
            cwd=cwd,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
        )  # fmt: skip
        self.lines: list[str] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()
        self.url = ""

    def _read(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as stderr:
            for line in stderr:
                self.lines.append(line.rstrip("\n"))

    def events(self, name: str) -> list[dict[str, Any]]:
        """The structured lines of one event."""
        return [line for line in map(_json, list(self.lines)) if line.get("event") == name]

    def ready(self) -> Dev:
        self.until(lambda: bool(self._urls()) or self.process.poll() is not None, 90)
        assert self.process.poll() is None, "\n".join(self.lines)
        self.url = self._urls()[-1]
        return self

    def _urls(self) -> list[str]:
        """What is served where; a child of the machine says that it serves in the same log, and not where."""
        return [event["url"] for event in self.events("serving") if "url" in event]

    def until(self, true: Callable[[], bool], seconds: float = 3.0) -> float:
        """Wait until it is true; how long that took."""
        started = time.monotonic()
        while not true():
            assert time.monotonic() - started < seconds, "\n".join(self.lines[-20:])
            time.sleep(0.01)
        return time.monotonic() - started

    def bootstrap(self, key: MintedKey, component: str = "any") -> httpx.Response:
        return httpx.post(f"{self.url}/v1/bootstrap", json={"component_key": component}, headers={"X-API-Key": key.key})

    def region(self, key: MintedKey) -> str:
        answer = self.bootstrap(key)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["environment"]["region"])

    def child(self, gate: str) -> psutil.Process:
        """The process of a gate that it serves."""
        children = psutil.Process(self.process.pid).children()
        [process] = [child for child in children if f"{gate}.gate" in child.cmdline()]
        return process

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.ended()

    def ended(self, seconds: float = 30) -> int:
        """Wait for its end; its exit code."""
        code = self.process.wait(seconds)
        self._thread.join(5)
        return code


def _json(line: str) -> dict[str, Any]:
    try:
        return dict(json.loads(line))
    except ValueError:
        return {}


async def owner_cannot_change_the_ledger(data: Path) -> None:
    """Log in as MetaGate's owner into the running database of a data directory, and try what would change a ledger row."""
    password = json.loads((data / "passwords.json").read_text())["metagate_owner"]
    port = int((data / "pgdata/postmaster.pid").read_text().splitlines()[3])
    connection = await asyncpg.connect(
        host="127.0.0.1", port=port, user="metagate_owner", password=password, database="metagate"
    )
    try:
        tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'memorygate'")
        assert len(tables) > 3
        for table in tables:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(f"DELETE FROM memorygate.{table['tablename']}")
        for statement in ("SET ROLE memorygate_owner", "GRANT memorygate_owner TO metagate_owner"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await connection.execute(statement)
    finally:
        await connection.close()
