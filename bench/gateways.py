"""`make bench-mcp`: what a call of a tool costs through InterroGate's MCP gateway, beside the same call without it.

By turns in one run, each over 1 and over 16 connections: the upstream itself (the official SDK, a tool that does
nothing); a relay of a few lines by the same SDK; the proxy of FastMCP; the gateway with its two receipts; and the
gateway whose database answers at once and keeps nothing. Raw requests of the revision 2026-07-28 without a session.
Every answer is checked for its status, and each call that the gateway answered has its outcome on record.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
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
WAYS = ("direct", "relay", "fastmcp", "without receipts", "gateway")


@dataclass(frozen=True, slots=True)
class Way:
    """One way to the tool: a server that listens, the name of the tool there, and the caller's credential."""

    name: str
    port: int
    tool: str
    process: int
    key: str = ""

    def request(self) -> bytes:
        meta = {
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientCapabilities": {},
            "io.modelcontextprotocol/clientInfo": {"name": "bench", "version": "1"},
        }
        params = {"name": self.tool, "arguments": {"text": "Review the draft and answer the mail."}, "_meta": meta}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        head = (
            f"POST /mcp HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nContent-Type: application/json\r\n"
            "Accept: application/json, text/event-stream\r\n"
            f"MCP-Protocol-Version: {REVISION}\r\nMcp-Method: tools/call\r\nMcp-Name: {self.tool}\r\n"
            + (f"X-API-Key: {self.key}\r\n" if self.key else "")
            + f"Content-Length: {len(body)}\r\n\r\n"
        )
        return head.encode() + body

    def answers(self) -> bool:
        """Whether a call of the tool succeeds: one that is refused would be quick."""
        head, _, body = self.request().partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().split("\r\n")[1:]]
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/mcp", body, dict(lines))
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                result = json.loads(answer.read()).get("result", {})
        except OSError:
            return False
        return not result.get("isError", True) and bool(result["content"])


@contextlib.contextmanager
def server(name: str, command: list[str], port: int, tool: str, key: str = "", **environment: str) -> Iterator[Way]:
    environ = {**os.environ, **environment}  # noqa: TID251
    process = subprocess.Popen([sys.executable, *command], env=environ, stderr=subprocess.DEVNULL, cwd=HERE)
    way = Way(name, port, tool, process.pid, key)
    try:
        deadline = time.monotonic() + 60
        while not way.answers():
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{name}: it ended, or did not answer within a minute")
            time.sleep(0.2)
        yield way
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def beside(kind: str, upstream: str = "") -> contextlib.AbstractContextManager[Way]:
    """A server of `mcp_upstream`."""
    port = setting.free_port()
    return server("direct" if kind == "noop" else kind, ["mcp_upstream.py", kind, str(port), upstream], port, TOOL.name)


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
            }
            tool = f"{PROBLEMATA}.{TOOL.name}"
            ways.append(
                stack.enter_context(server(name, [*command, "serve"], port, tool, key=caller.key, **environment))
            )
        yield on, ways


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
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions["fastmcp"] = metadata.version("fastmcp")
            ways.append(stack.enter_context(beside("fastmcp", upstream)))
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
    arguments = parser.parse_args()
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
