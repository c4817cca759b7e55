"""`make bench-mcp`: what a call of a tool costs through InterroGate's MCP gateway, beside the same call without it.

By turns in one run, each over 1 and over 16 connections: the upstream itself (the official SDK, a tool that does
nothing); a relay of a few lines by the same SDK; the proxy of FastMCP; ContextForge; the gateway with its two receipts;
and the gateway whose database answers at once and keeps nothing. Raw requests without a session, of the revision
2026-07-28 where it is spoken.
Every answer is checked for its status, and each call that the gateway answered has its outcome on record.
"""

import argparse
import asyncio
import contextlib
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any
from uuid import UUID

import admitting
import console
import ledger
import load
import machine
import setting
from mcp_upstream import TOOL

from interrogate.schema import INTERROGATE
from interrogate.schema import WRITER as GATE_WRITER
from legivellum.postgres.migrations import migrate
from memorygate.schema import WRITER as LEDGER_WRITER
from memorygate.schema import migrate_ledger
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.models import PolicyProfileSpec, ProblemataSpec
from metagate_store.publisher import Publisher
from metagate_store.rows import Change

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results"
REVISION = "2026-07-28"
GOALS = {"added_ms": 6.0, "with receipts": 0.7}
SURFACE, PROFILE, PROBLEMATA = "tools", "tools", "bench"
WAYS = ("direct", "relay", "fastmcp", "contextforge", "without receipts", "gateway")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the tool: a server that listens, the name of the tool there, and headers of the caller."""

    name: str
    port: int
    tool: str
    process: int
    headers: Mapping[str, str] = field(default_factory=dict)
    path: str = "/mcp"

    def request(self) -> bytes:
        meta = {
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        }
        params = {"name": self.tool, "arguments": {"text": "Review the draft and answer the mail."}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        headers = {
            "Host": f"127.0.0.1:{self.port}",
            "Content-Type": "application/json",
            "Accept": "application/json, text/event-stream",
            "MCP-Protocol-Version": REVISION,
            "Mcp-Method": "tools/call",
            "Mcp-Name": self.tool,
            "Content-Length": str(len(body)),
            **self.headers,
        }
        lines = [f"POST {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
        return "\r\n".join(lines).encode() + body

    def answers(self) -> bool:
        """Whether a call of the tool succeeds: one that is refused would be quick."""
        head, _, body = self.request().partition(b"\r\n\r\n")
        headers = dict(line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{self.path}", body, headers)
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                result = json.loads(answer.read()).get("result", {})
        except OSError:
            return False
        return not result.get("isError", True) and bool(result["content"])


@contextlib.contextmanager
def running(command: Sequence[str], directory: Path = HERE, **environment: str) -> Iterator["subprocess.Popen[bytes]"]:
    environ = {**os.environ, **environment}  # noqa: TID251
    process = subprocess.Popen(
        command, env=environ, cwd=directory, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def until(what: str, ready: Callable[[], bool], process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 120
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{what}: it ended, or was not ready within two minutes")
        time.sleep(0.2)


@contextlib.contextmanager
def server(
    name: str, command: list[str], port: int, tool: str, headers: Mapping[str, str] | None = None, **environment: str
) -> Iterator[Way]:
    with running([sys.executable, *command], **environment) as process:
        way = Way(name, port, tool, process.pid, headers or {})
        until(name, way.answers, process)
        yield way


def beside(kind: str, upstream: str = "", packages: Path | None = None) -> contextlib.AbstractContextManager[Way]:
    """A server of `mcp_upstream`; `packages`: a directory of what only it imports."""
    port = setting.free_port()
    name = "direct" if kind == "noop" else kind
    environment = {} if packages is None else {"PYTHONPATH": str(packages.resolve())}
    return server(name, ["mcp_upstream.py", kind, str(port), upstream], port, TOOL.name, **environment)


@contextlib.contextmanager
def contextforge(binary: Path, upstream: str) -> Iterator[Way]:
    """ContextForge as it starts by itself, on SQLite, with the upstream registered by its administrator."""
    port, secret, password = setting.free_port(), secrets.token_urlsafe(48), f"aB3!{secrets.token_urlsafe(24)}"
    environment = {
        "AUTH_ENCRYPTION_SECRET": secrets.token_urlsafe(48),
        "BASIC_AUTH_PASSWORD": f"cD4!{secrets.token_urlsafe(24)}",
        "CACHE_TYPE": "memory",
        "DATABASE_URL": "sqlite:///./mcp.db",
        "ENVIRONMENT": "development",
        "JWT_SECRET_KEY": secret,
        "LOG_LEVEL": "ERROR",
        "MCPGATEWAY_UI_ENABLED": "false",
        "PASSWORD_CHANGE_ENFORCEMENT_ENABLED": "false",
        "PLATFORM_ADMIN_EMAIL": "admin@example.com",
        "PLATFORM_ADMIN_PASSWORD": password,
        "RATE_LIMITING_ENABLED": "false",
        "SSRF_ALLOW_LOCALHOST": "true",
    }
    address = f"http://127.0.0.1:{port}"

    def post(path: str, body: object, **headers: str) -> dict[str, Any]:
        sent = {"Content-Type": "application/json", **headers}
        request = urllib.request.Request(address + path, json.dumps(body).encode(), sent)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def is_healthy() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=2):
            return True
        return False

    with tempfile.TemporaryDirectory(prefix="contextforge-") as directory:
        command = [str(binary), "--host", "127.0.0.1", "--port", str(port)]
        with running(command, Path(directory), **environment) as process:
            until("contextforge", is_healthy, process)
            token = post("/auth/email/login", {"email": "admin@example.com", "password": password})["access_token"]
            bearer = {"Authorization": f"Bearer {token}"}
            gateway = {"name": "up", "url": upstream, "transport": "STREAMABLEHTTP", "visibility": "public"}
            post("/gateways", gateway, **bearer)
            # It speaks the revisions with a handshake, and answers a call without one.
            way = Way(
                "contextforge",
                port,
                f"up-{TOOL.name}",
                process.pid,
                {**bearer, "MCP-Protocol-Version": "2025-11-25"},
                "/mcp/",
            )
            until("contextforge", way.answers, process)
            yield way


def policy(upstream: str) -> dict[str, Any]:
    target = {"name": "upstream", "kind": "Mcp", "url": upstream}
    surface = {"surfaceId": SURFACE, "kind": "McpGateway", "principals": ["*"], "targets": [target]}
    return {
        "limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 1_000_000_000},
        "surfaces": [{**surface, "capabilities": {"allow": ["bench.*"]}}],
    }


def problemata() -> dict[str, Any]:
    definition = TOOL.model_dump(by_alias=True, exclude_none=True)
    return {
        "version": "1",
        "gateway": {"policyProfileRef": {"name": PROFILE}, "surfaceId": SURFACE, "principals": ["bench"]},
        "payloadKind": "call",
        "exposeTools": True,
        "capabilities": [{"id": "bench.echo", "tool": {"target": "upstream", "definition": definition}}],
    }


async def publish(on: setting.BenchServer, tenant: UUID, upstream: str) -> None:
    policy_body = PolicyProfileSpec.model_validate(policy(upstream)).declared()
    problemata_body = ProblemataSpec.model_validate(problemata()).declared()
    common = {"tenant": str(tenant), "generation": 1}
    rows = {
        "policy_profile": {"name": PROFILE, "body": policy_body, "policy_hash": digest(canonical(policy_body))},
        "problemata": {"name": PROBLEMATA, "body": problemata_body, "content_hash": digest(canonical(problemata_body))},
    }
    publisher = await Publisher.open(on.publisher)
    await publisher.load()
    upserts = {table: [setting._row(**common, **row)] for table, row in rows.items()}  # noqa: SLF001 - the benchmark's own
    await publisher.publish(Change(upserts=upserts))
    await publisher.close()


@contextlib.contextmanager
def gateways(upstream: str) -> Iterator[tuple[setting.BenchServer, list[Way]]]:
    """The gate twice on one database: as it is, and with a database of its process that answers at once."""
    with setting.base() as on, contextlib.ExitStack() as stack:
        owner = on.postgres.dsn()
        asyncio.run(migrate_ledger(owner, passwords={LEDGER_WRITER: admitting.PASSWORD}))
        asyncio.run(migrate(INTERROGATE, owner, passwords={GATE_WRITER: admitting.PASSWORD}))
        caller = ledger.ledger_principal("bench", "principal")
        asyncio.run(ledger.publish(on, caller))
        asyncio.run(publish(on, caller.tenant, upstream))
        before, _, after = owner.partition("@")
        ways = []
        for name, command in (("gateway", ["-c", admitting.SERVE]), ("without receipts", ["unrecorded.py"])):
            port = setting.free_port()
            environment = {
                "INTERROGATE_DATABASE_URL": f"{before.partition('://')[0]}://{GATE_WRITER}:{admitting.PASSWORD}@{after}",
                "INTERROGATE_IDENTITY_DATABASE_URL": on.postgres.dsn("metagate_identity"),
                "INTERROGATE_PORT": str(port),
                "INTERROGATE_WORKERS": "1",
                "INTERROGATE_RATE_PER_SECOND": "0",
                "INTERROGATE_TARGET_HOSTS": "127.0.0.1:*",
            }
            tool = f"{PROBLEMATA}.{TOOL.name}"
            ways.append(
                stack.enter_context(
                    server(name, [*command, "serve"], port, tool, headers={"X-API-Key": caller.key}, **environment)
                )
            )
        yield on, ways


def version_of(binary: Path) -> str:
    say = "from importlib.metadata import version; print(version('mcp-contextforge-gateway'))"
    python = binary.parent / "python"
    return subprocess.run([python, "-c", say], capture_output=True, text=True, check=True).stdout.strip()


def recorded(on: setting.BenchServer) -> int:
    """Calls whose outcome is on record."""
    rows = asyncio.run(ledger.fetch(on, "SELECT count(*) FROM interrogate.call WHERE outcome = 'success'"))
    return int(rows[0][0])


def asked(way: Way, connections: int, seconds: float) -> load.Tally:
    tally = load.drive("127.0.0.1", way.port, [way.request()], connections=connections, seconds=seconds, warm=0.5)
    assert set(tally.statuses) == {200}, (way.name, tally.statuses)
    return tally


def row(tallies: list[load.Tally], direct: list[load.Tally]) -> dict[str, Any]:
    pairs = list(zip(tallies, direct, strict=True))
    ratios = [tally.rate / bare.rate for tally, bare in pairs]
    return {
        "per_second": round(statistics.median(tally.rate for tally in tallies)),
        "p50_ms": round(statistics.median(tally.quantile(0.5) for tally in tallies), 2),
        "p99_ms": round(statistics.median(tally.quantile(0.99) for tally in tallies), 2),
        "added_p50_ms": round(statistics.median(t.quantile(0.5) - bare.quantile(0.5) for t, bare in pairs), 2),
        "added_p99_ms": round(statistics.median(t.quantile(0.99) - bare.quantile(0.99) for t, bare in pairs), 2),
        "ratio": round(statistics.median(ratios), 2),
        "ratios_by_round": [round(ratio, 2) for ratio in ratios],
    }


def measured(arguments: argparse.Namespace) -> dict[str, Any]:
    with contextlib.ExitStack() as stack:
        direct = stack.enter_context(beside("noop"))
        upstream = f"http://127.0.0.1:{direct.port}/mcp"
        on, through = stack.enter_context(gateways(upstream))
        ways = [direct, stack.enter_context(beside("relay", upstream))]
        versions = {"mcp": metadata.version("mcp")}
        if arguments.packages is not None:
            [found] = metadata.distributions(name="fastmcp", path=[str(arguments.packages)])
            versions["fastmcp"] = found.version
            ways.append(stack.enter_context(beside("fastmcp", upstream, arguments.packages)))
        if arguments.contextforge is not None:
            versions["contextforge"] = version_of(arguments.contextforge)
            ways.append(stack.enter_context(contextforge(arguments.contextforge, upstream)))
        ways = sorted([*ways, *through], key=lambda way: WAYS.index(way.name))
        result: dict[str, Any] = {"versions": versions}
        for connections in (1, 16):
            tallies: dict[str, list[load.Tally]] = {way.name: [] for way in ways}
            for number in range(arguments.rounds):
                console.step(f"{connections} connections: round {number + 1} of {arguments.rounds}")
                for way in ways:
                    before = recorded(on)
                    tallies[way.name].append(asked(way, connections, arguments.seconds))
                    if way.name == "gateway":
                        answered = tallies[way.name][-1].statuses[200]
                        assert recorded(on) - before >= answered, "an answer without its outcome on record"
            rows = {name: row(of_way, tallies["direct"]) for name, of_way in tallies.items()}
            with_receipts = [
                full.rate / bare.rate
                for full, bare in zip(tallies["gateway"], tallies["without receipts"], strict=True)
            ]
            result[str(connections)] = {"rows": rows, "with_receipts": admitting.ratios(with_receipts)}
        return result


def shown(result: dict[str, Any]) -> None:
    for connections in ("1", "16"):
        part = result["ways"][connections]
        columns = ("per_second", "p50_ms", "p99_ms", "added_p50_ms", "added_p99_ms", "ratio")
        console.table(
            f"tools/call over {connections} connections",
            ("", "per second", "p50 ms", "p99 ms", "added p50", "added p99", "÷ direct"),
            [[name, *(of_way[column] for column in columns)] for name, of_way in part["rows"].items()],
            f"with receipts ÷ without: {part['with_receipts']['ratio']:.2f} (goal {GOALS['with receipts']})",
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--packages", type=Path, help="the directory in which FastMCP is installed")
    parser.add_argument("--contextforge", type=Path, help="its program, in an environment of its own")
    arguments = parser.parse_args()
    if arguments.contextforge is not None:
        arguments.contextforge = arguments.contextforge.absolute()  # it is started in another directory
    result: dict[str, Any] = {
        "machine": machine.described(),
        "goals": GOALS,
        "rounds": arguments.rounds,
        "seconds": arguments.seconds,
        "load_average_before": os.getloadavg()[0],
        "ways": measured(arguments),
    }
    shown(result)
    RESULTS.mkdir(exist_ok=True)
    kept = RESULTS / "gateways.json"
    kept.write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {kept}")


if __name__ == "__main__":
    main()
