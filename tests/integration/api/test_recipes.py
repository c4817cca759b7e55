"""docs/howto/recipes.md, each block as it stands on the page: one start each, READY; and FAILED where preparing fails."""

import asyncio
import json
import os
import re
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.api.processes import free_port
from tests.package_environment import environment_with

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "howto" / "recipes.md").read_text()
BLOCK = re.compile(r'^```\w+ title="([^"]+)"\n(.*?)^```$', re.MULTILINE | re.DOTALL)
RECIPES = dict(BLOCK.findall(PAGE))
CONSOLE = re.compile(r"^```console\n\$ (.*)\n```$", re.MULTILINE)


def written(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).write_text(RECIPES[name])
    return folder


def variables(gate: GateFixture, who: PrincipalFixture, folder: Path, **more: str) -> dict[str, str]:
    """The environment of a program; the credential is in a file with a newline at its end, as Secrets have it."""
    (folder / "key").write_text(who.key + "\n")
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
    ours = {
        "METAGATE_URL": gate.url,
        "METAGATE_COMPONENT_KEY": "indexer_1",
        "METAGATE_API_KEY_FILE": str(folder / "key"),
        "PYTHONPATH": str(ROOT / "client"),
    }
    return {**inherited, "NO_PROXY": "*", **ours, **more}


@asynccontextmanager
async def started(
    *command: str | Path, cwd: Path, environment: Mapping[str, str]
) -> AsyncIterator[asyncio.subprocess.Process]:
    with (cwd / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=cwd, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
            await asyncio.wait_for(process.wait(), 20)


async def finished(*command: str | Path, cwd: Path, environment: Mapping[str, str]) -> int:
    async with asyncio.timeout(60), started(*command, cwd=cwd, environment=environment) as process:
        return await process.wait()


async def answer_of(port: int, process: asyncio.subprocess.Process, folder: Path, path: str = "/") -> Any:
    """What the program says on its port, once it listens."""
    async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(90):
        while True:
            assert process.returncode is None, (folder / "log").read_text()
            try:
                return (await client.get(f"http://127.0.0.1:{port}{path}")).json()
            except httpx.ConnectError:
                await asyncio.sleep(0.05)


async def sessions(gate: GateFixture, who: PrincipalFixture) -> list[str]:
    """The status of each start of this principal."""
    sql = "SELECT status FROM metagate.startup WHERE tenant = $1 ORDER BY opened_at"
    return [row["status"] for row in await gate.ask(sql, who.tenant)]


async def reached(gate: GateFixture, who: PrincipalFixture, *expected: str) -> None:
    async with asyncio.timeout(30):
        while await sessions(gate, who) != list(expected):
            await asyncio.sleep(0.05)


@asynccontextmanager
async def unsteady(gate: GateFixture) -> AsyncIterator[str]:
    """An address that answers 503 once and then hands everything on: a gate that is just being replaced."""
    refusal = json.dumps({"code": "OVERLOADED", "detail": "busy"}).encode()
    refused = False

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal refused
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(re.findall(rb"content-length: (\d+)", head, re.IGNORECASE)[0]))
        if refused:
            onward, back = await asyncio.open_connection(*gate.address)
            back.write(
                re.sub(
                    rb"\r\n\r\n$", b"\r\nConnection: close\r\n\r\n", re.sub(rb"(?i)\r\nconnection:[^\r]*", b"", head)
                )
                + body
            )
            writer.write(await onward.read())
            back.close()
        else:
            refused = True
            writer.write(
                b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
                % len(refusal)
            )
            writer.write(refusal)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed here")
    return path


def test_every_block_is_run_here() -> None:
    run = {
        "boot.sh",
        "service.py",
        "langgraph.json",
        "world.py",
        "web.py",
        "agent.py",
        "boot.mjs",
        "server.mjs",
        "sidecar.yaml",
    }
    assert set(RECIPES) == run
    assert CONSOLE.findall(PAGE) == ["uvicorn service:app --port 8080", "langgraph dev --no-browser --no-reload"]


async def test_bash_and_curl(gate: GateFixture, tmp_path: Path) -> None:
    """One session in spite of an answer that did not come; the packet is a file that is the owner's alone."""
    need("curl")
    who = await gate.principal()
    written(tmp_path, "boot.sh")
    async with unsteady(gate) as url:
        environment = variables(gate, who, tmp_path, METAGATE_URL=url)
        assert await finished("bash", "boot.sh", cwd=tmp_path, environment=environment) == 0, (
            tmp_path / "log"
        ).read_text()
    packet = json.loads((tmp_path / "packet.json").read_text())
    assert packet["environment"] == {"region": "eu"}
    assert (tmp_path / "packet.json").stat().st_mode & 0o777 == 0o600
    assert await sessions(gate, who) == ["READY"]


async def test_bash_reports_what_fails(gate: GateFixture, tmp_path: Path) -> None:
    need("curl")
    who = await gate.principal()
    (tmp_path / "boot.sh").write_text(RECIPES["boot.sh"].replace(": load and connect here", "test -f model.bin"))
    assert await finished("bash", "boot.sh", cwd=tmp_path, environment=variables(gate, who, tmp_path)) != 0
    assert await sessions(gate, who) == ["FAILED"]


async def test_bash_says_why_it_is_refused(gate: GateFixture, tmp_path: Path) -> None:
    need("curl")
    who = await gate.principal(bound=False)
    written(tmp_path, "boot.sh")
    assert await finished("bash", "boot.sh", cwd=tmp_path, environment=variables(gate, who, tmp_path)) != 0
    assert "NO_BINDING" in (tmp_path / "log").read_text()


async def test_fastapi(gate: GateFixture, tmp_path: Path) -> None:
    who = await gate.principal()
    port = free_port()
    written(tmp_path, "service.py")
    command = [sys.executable, "-m", *CONSOLE.findall(PAGE)[0].replace("8080", str(port)).split()]
    async with started(*command, cwd=tmp_path, environment=variables(gate, who, tmp_path)) as process:
        world = await answer_of(port, process, tmp_path, "/world")
    assert world == {"memory": "http://memorygate:8001", "environment": {"region": "eu"}}
    assert await sessions(gate, who) == ["READY"]


async def test_fastapi_reports_what_fails(gate: GateFixture, tmp_path: Path) -> None:
    """The packet names no ledger: the lifespan raises, the server ends, and FAILED is recorded."""
    who = await gate.principal()
    (tmp_path / "service.py").write_text(RECIPES["service.py"].replace('"memorygate"', '"asyncgate"'))
    command = [sys.executable, "-m", "uvicorn", "service:app", "--port", str(free_port())]
    assert await finished(*command, cwd=tmp_path, environment=variables(gate, who, tmp_path)) != 0
    assert await sessions(gate, who) == ["FAILED"]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_a_langgraph_server(gate: GateFixture, tmp_path: Path) -> None:
    binaries = await asyncio.to_thread(environment_with, tmp_path / "environment", "langgraph-cli[inmem]==0.4.40")
    who = await gate.principal()
    port = free_port()
    folder = tmp_path / "agent"
    folder.mkdir()
    written(folder, "langgraph.json", "world.py", "web.py", "agent.py")
    environment = variables(gate, who, folder, LANGGRAPH_CLI_NO_ANALYTICS="1", LANGSMITH_TRACING="false")
    command = [*CONSOLE.findall(PAGE)[1].split(), "--port", str(port)]
    async with started(binaries / command[0], *command[1:], cwd=folder, environment=environment) as process:
        assert (await answer_of(port, process, folder, "/ok"))["ok"] is True
        question = {"assistant_id": "agent", "input": {"question": "Where am I?"}}
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            answer = (await client.post(f"http://127.0.0.1:{port}/runs/wait", json=question)).json()
    assert answer.get("answer") == "Where am I? In eu.", answer
    assert await sessions(gate, who) == ["READY"]


async def test_node(gate: GateFixture, tmp_path: Path) -> None:
    node = need("node")
    who = await gate.principal()
    port = free_port()
    written(tmp_path, "boot.mjs", "server.mjs")
    async with unsteady(gate) as url:
        environment = variables(gate, who, tmp_path, METAGATE_URL=url, PORT=str(port))
        async with started(node, "server.mjs", cwd=tmp_path, environment=environment) as process:
            assert await answer_of(port, process, tmp_path) == {"region": "eu"}
            await reached(gate, who, "READY")


async def test_node_reports_what_fails(gate: GateFixture, tmp_path: Path) -> None:
    """The port is taken: FAILED is recorded with the kind of the error, and not with what it says."""
    node = need("node")
    who = await gate.principal()
    written(tmp_path, "boot.mjs")
    (tmp_path / "server.mjs").write_text(
        "import { start } from './boot.mjs';\nawait start(() => { throw new TypeError('hunter2') });\n"
    )
    assert await finished(node, "server.mjs", cwd=tmp_path, environment=variables(gate, who, tmp_path)) != 0
    assert await sessions(gate, who) == ["FAILED"]
    [row] = await gate.ask("SELECT report::text FROM metagate.startup WHERE tenant = $1", who.tenant)
    assert "TypeError" in row["report"]
    assert "hunter2" not in row["report"]


def placed(command: list[str], packet: Path, port: int) -> list[str]:
    """A container's command, with a folder for its volume and a free port for its port."""
    return [re.sub(r"/packet(?=/|$)", str(packet), word).replace("8080", str(port)) for word in command]


async def test_a_sidecar(gate: GateFixture, tmp_path: Path) -> None:
    """Both containers' commands: the packet is there for the group before the application starts, READY only after it listens."""
    pod = yaml.safe_load(RECIPES["sidecar.yaml"])["spec"]
    [sidecar], [application] = pod["initContainers"], pod["containers"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    assert {mount["name"] for container in (sidecar, application) for mount in container["volumeMounts"]} == volumes
    assert sidecar["restartPolicy"] == "Always"
    who = await gate.principal()
    port = free_port()
    packet = tmp_path / "packet"
    packet.mkdir()
    program, *arguments = placed(sidecar["command"], packet, port)
    assert program == "metagate"
    environment = variables(gate, who, tmp_path)
    async with started(sys.executable, "-m", "metagate_client", *arguments, cwd=tmp_path, environment=environment):
        await reached(gate, who, "OPEN")
        probe = placed(sidecar["startupProbe"]["exec"]["command"], packet, port)
        async with asyncio.timeout(30):
            while await finished(*probe, cwd=packet, environment=environment):
                await asyncio.sleep(0.05)
        assert (packet / "packet.json").stat().st_mode & 0o777 == 0o640
        assert await sessions(gate, who) == ["OPEN"]
        async with started(
            *placed(application["command"], packet, port), cwd=packet, environment=environment
        ) as process:
            served = await answer_of(port, process, packet, "/packet.json")
            assert served["environment"] == {"region": "eu"}
            await reached(gate, who, "READY")
