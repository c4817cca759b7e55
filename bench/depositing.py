"""`make bench-depot`: what a deposit and a read cost DepotGate, beside the same bytes without a gate.

Every figure is a ratio of two things measured in one run, with durable commits and files; rounds alternate. Large files
go up and down by curl, one at a time. Beside them: `cp`, `sync` and `openssl dgst` of the same file, `openssl dgst` and
`cat` of the stored one, obstore alone at the same S3 server (versitygw), and for 4 KiB a file that is synced and then
one receipt by the ledger's own function. `--large` sends ten gigabytes through a gate and watches its memory.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

import asyncpg
import console
import machine
import obstore
import queueing
import setting
from obstore.store import S3Store
from ulid import ULID

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from tests.object_store import NoObjectStore, ObjectStore

from depotgate.schema import DEPOTGATE, KEEPER
from legivellum.postgres.migrations import migrate
from legivellum.receipts.receipt import Receipt, examine
from memorygate.schema import migrate_ledger

RESULTS = Path(__file__).resolve().parent / "results"
MIB = 1 << 20
SMALL = 4096
GOALS = {"upload": 0.5, "download": 0.6, "s3": 0.8, "small": 0.5, "rss_mib": 64, "others": 2.0}
APPEND = """
SELECT outcome FROM memorygate.append($1::text[]::uuid[], $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14,
    $15, $16, $17, $18, $19)
"""


# ── what is served ───────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass(frozen=True, slots=True)
class DepotUnderLoad:
    """A DepotGate with one process, and who asks it. `files`: its directory; None where it has a bucket."""

    on: setting.BenchServer
    depositor: queueing.BenchCaller
    port: int
    process: int
    files: Path | None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def worker(self) -> int:
        """The process that serves: the one that has the memory."""
        return (machine.children(self.process) or [self.process])[0]

    @property
    def command(self) -> list[str]:
        return ["curl", "-sS", "--fail-with-body", "-H", f"X-API-Key: {self.depositor.key}", "-H", "Expect:"]

    def curl(self, *arguments: str) -> bytes:
        return subprocess.run([*self.command, *arguments], check=True, capture_output=True).stdout

    def put(self, file: Path) -> str:
        """Deposit a file; its pointer."""
        answer = self.curl("-X", "POST", "-T", str(file), f"{self.url}/artifacts?role=input")
        return str(json.loads(answer)["pointer"])

    def get(self, pointer: str) -> None:
        self.curl("-o", "/dev/null", f"{self.url}/artifacts/{pointer}")


@contextlib.contextmanager
def served(
    store: str, environ: dict[str, str], on: setting.BenchServer, files: Path | None
) -> Iterator[DepotUnderLoad]:
    owner = on.postgres.dsn()
    depositor = queueing.BenchCaller(uuid4(), "depositor", "principal")
    asyncio.run(queueing.publish(on, depositor))
    settings = {
        "DATABASE_URL": queueing.as_role(owner, KEEPER),
        "IDENTITY_DATABASE_URL": on.postgres.dsn("metagate_identity"),
        "STORE": store,
        "PUBLIC_URL": "http://depot.example",
        "LEASES": "optional",
        "DEADLINE_MS": "10000",
    }
    before = dict(os.environ)  # noqa: TID251
    os.environ.update(environ)  # noqa: TID251 - the client of an object store reads its own variables
    try:
        with queueing.process("depotgate", settings, workers=1) as (port, pid):
            yield DepotUnderLoad(on, depositor, port, pid, files)
    finally:
        os.environ.clear()  # noqa: TID251
        os.environ.update(before)  # noqa: TID251


@contextlib.contextmanager
def database() -> Iterator[setting.BenchServer]:
    with setting.base() as on:
        asyncio.run(migrate_ledger(on.postgres.dsn()))
        asyncio.run(migrate(DEPOTGATE, on.postgres.dsn(), passwords={KEEPER: queueing.PASSWORD}))
        yield on


@contextlib.contextmanager
def on_files(on: setting.BenchServer, directory: Path) -> Iterator[DepotUnderLoad]:
    files = directory / f"store-{uuid4()}"
    files.mkdir()
    with served(f"file://{files}", {}, on, files) as depot:
        yield depot
    shutil.rmtree(files, ignore_errors=True)


# ── measuring ────────────────────────────────────────────────────────────────────────────────────────────────────────


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def in_turn(rounds: int, works: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each, one after the other, in every round; the first round warms up and is not counted."""
    taken: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            took = seconds(work)
            if number:
                taken[name].append(took)
    return taken


def ratio(taken: dict[str, list[float]], of: str, beside: str) -> dict[str, Any]:
    """How fast `of` was beside `beside`: 1 is as fast."""
    each = sorted(slow / fast for fast, slow in zip(taken[of], taken[beside], strict=True))
    return ratios(each)


def ratios(each: list[float]) -> dict[str, Any]:
    return {"ratio": round(statistics.median(each), 3), "ratios_by_round": [round(one, 3) for one in each]}


def megabytes_per_second(size: int, taken: list[float]) -> int:
    return round(size / MIB / statistics.median(taken))


def random_file(directory: Path, size: int) -> Path:
    path = directory / f"source-{size}"
    with path.open("wb") as file:
        for _ in range(0, size, MIB):
            file.write(os.urandom(min(MIB, size)))
    return path


def changed(file: Path) -> None:
    """Other bytes at the start: equal bytes would be stored once."""
    with file.open("r+b") as opened:
        opened.write(os.urandom(32))


def large_files(depot: DepotUnderLoad, arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    size = arguments.megabytes * MIB
    source, copy = random_file(directory, size), directory / "copy"
    pointers: list[str] = []

    def deposit() -> None:
        changed(source)
        pointers.append(depot.put(source))

    def by_hand() -> None:
        changed(source)
        subprocess.run(["cp", str(source), str(copy)], check=True)
        subprocess.run(["sync", str(copy)], check=True)
        subprocess.run(["openssl", "dgst", "-sha256", str(copy)], check=True, capture_output=True)

    up = in_turn(arguments.rounds, {"depotgate": deposit, "by hand": by_hand})
    [stored] = [path for path in depot_files(depot) if path.stat().st_size == size][-1:]
    down = in_turn(
        arguments.rounds,
        {
            "depotgate": lambda: depot.get(pointers[-1]),
            "openssl": lambda: subprocess.run(
                ["openssl", "dgst", "-sha256", str(stored)], check=True, capture_output=True
            ),
            "cat": lambda: subprocess.run(["cat", str(stored)], check=True, stdout=subprocess.DEVNULL),
        },
    )
    return {
        "megabytes": arguments.megabytes,
        "up_mb_s": {name: megabytes_per_second(size, taken) for name, taken in up.items()},
        "down_mb_s": {name: megabytes_per_second(size, taken) for name, taken in down.items()},
        "upload": ratio(up, "depotgate", "by hand"),
        "download": ratio(down, "depotgate", "openssl"),
        "cat": ratio(down, "depotgate", "cat"),
    }


def depot_files(depot: DepotUnderLoad) -> list[Path]:
    assert depot.files is not None
    return sorted((path for path in depot.files.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime)


def at_s3(on: setting.BenchServer, arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    size = arguments.megabytes * MIB
    source = random_file(directory, size)
    store = ObjectStore.start(directory / "s3", environment=dict(os.environ))  # noqa: TID251
    try:
        bucket = store.make_bucket()
        alone = S3Store(
            bucket,
            endpoint=store.url,
            access_key_id=store.access_key,
            secret_access_key=store.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )

        async def put_alone() -> None:
            writer = obstore.open_writer_async(alone, f"alone/{uuid4()}", buffer_size=8 * MIB)
            digest = hashlib.sha256()
            async with writer:
                with source.open("rb") as file:
                    while piece := file.read(8 * MIB):
                        digest.update(piece)
                        await writer.write(piece)

        with served(f"s3://{bucket}", store.credentials, on, None) as depot:
            pointers: list[str] = []

            def deposit() -> None:
                changed(source)
                pointers.append(depot.put(source))

            def by_obstore() -> None:
                changed(source)
                asyncio.run(put_alone())

            up = in_turn(arguments.rounds, {"depotgate": deposit, "obstore": by_obstore})
        return {
            "up_mb_s": {name: megabytes_per_second(size, taken) for name, taken in up.items()},
            "s3": ratio(up, "depotgate", "obstore"),
        }
    finally:
        store.end()


# ── small ones ───────────────────────────────────────────────────────────────────────────────────────────────────────


async def small_deposits(depot: DepotUnderLoad, connections: int, lasting: float) -> float:
    """4 KiB deposits a second."""
    request = (
        f"POST /artifacts?role=input HTTP/1.1\r\nHost: bench\r\nX-API-Key: {depot.depositor.key}\r\n"
        f"Content-Type: application/octet-stream\r\nContent-Length: {SMALL}\r\n\r\n"
    ).encode()
    until, done = time.perf_counter() + lasting, 0

    async def connection() -> None:
        nonlocal done
        reader, writer = await asyncio.open_connection("127.0.0.1", depot.port)
        while time.perf_counter() < until:
            writer.write(request + os.urandom(SMALL))
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].split(b"\r")[0])
            body = await reader.readexactly(length)
            assert head[9:12] == b"201", head + body
            done += 1
        writer.close()

    await asyncio.gather(*(connection() for _ in range(connections)))
    return done / lasting


def synced_file(directory: Path, content: bytes) -> str:
    """As the store does it: temporary file, data on disk, link, directory on disk."""
    part, name = directory / f".{uuid4()}", directory / str(uuid4())
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, content)
    os.fdatasync(descriptor)
    os.close(descriptor)
    os.link(part, name)
    part.unlink()
    folder = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    os.fsync(folder)
    os.close(folder)
    return hashlib.sha256(content).hexdigest()


async def files_and_receipts(depot: DepotUnderLoad, directory: Path, connections: int, lasting: float) -> float:
    """The same without a gate: a synced file, then one receipt by the ledger's function, on so many connections."""
    pool = await asyncpg.create_pool(
        depot.on.superuser.replace("/postgres?", "/metagate?"), min_size=connections, max_size=connections
    )
    tenant, until, done = str(uuid4()), time.perf_counter() + lasting, 0

    async def one_after_another() -> None:
        nonlocal done
        while time.perf_counter() < until:
            await asyncio.get_running_loop().run_in_executor(threads, synced_file, directory, os.urandom(SMALL))
            await pool.fetch(APPEND, *append_columns(tenant))
            done += 1

    with ThreadPoolExecutor(connections) as threads:
        await asyncio.gather(*(one_after_another() for _ in range(connections)))
    await pool.close()
    return done / lasting


def append_columns(tenant: str) -> tuple[list[Any], ...]:
    task_id = str(ULID())
    receipt = examine(
        {
            "receipt_id": str(ULID()), "phase": "accepted", "task_id": task_id, "obligation_id": task_id,
            "principal_ai": "depositor", "recipient_ai": "depositor", "task_summary": "index a document",
        },
        tenant=tenant,
        emitter="depositor",
    )  # fmt: skip
    assert isinstance(receipt, Receipt), receipt
    fields, body = json.loads(receipt.form), receipt.form.decode()
    names = ("tenant_id", "receipt_id", "kind", "phase")
    rest = (
        "emitter", "task_id", "parent_task_id", "obligation_id", "principal_ai", "recipient_ai", "status",
        "caused_by_receipt_id",
    )  # fmt: skip
    return (
        *([fields[name]] for name in names),
        ["open-for-others"],
        *([fields.get(name, "")] for name in rest),
        [""], [b""], [""], [body], [hashlib.sha256(body.encode()).digest()], [""],
    )  # fmt: skip


def small_ones(depot: DepotUnderLoad, arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    beside = directory / "small"
    beside.mkdir()
    result: dict[str, Any] = {}
    for connections in (1, 16):
        rates: dict[str, list[float]] = {"depotgate": [], "file and receipt": []}
        for _ in range(arguments.rounds):
            rates["depotgate"].append(asyncio.run(small_deposits(depot, connections, arguments.seconds)))
            rates["file and receipt"].append(
                asyncio.run(files_and_receipts(depot, beside, connections, arguments.seconds))
            )
        each = sorted(a / b for a, b in zip(rates["depotgate"], rates["file and receipt"], strict=True))
        result[str(connections)] = {
            "per_second": {name: round(statistics.median(values)) for name, values in rates.items()},
            **ratios(each),
        }
    return result


# ── ten gigabytes ────────────────────────────────────────────────────────────────────────────────────────────────────


class MemoryWatch:
    """What the gate's memory is, and how long another route of it takes, while work goes on."""

    def __init__(self, depot: DepotUnderLoad) -> None:
        self._depot = depot
        self._stop = threading.Event()
        self._request = urllib.request.Request(f"{depot.url}/v1/interview", headers={"X-API-Key": depot.depositor.key})
        self.highest_mb = 0.0
        self.milliseconds: list[float] = []

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.highest_mb = max(self.highest_mb, machine.rss_megabytes(self._depot.worker))
            began = time.perf_counter()
            with urllib.request.urlopen(self._request) as answer:
                answer.read()
            self.milliseconds.append((time.perf_counter() - began) * 1000)

    @property
    def p99(self) -> float:
        ordered = sorted(self.milliseconds)
        return ordered[int(0.99 * len(ordered))]


def ten_gigabytes(depot: DepotUnderLoad, arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    """One file of so many gigabytes up and down, then eight at once; the memory, and the p99 of another route."""
    source = random_file(directory, 64 * MIB)
    depot.get(depot.put(source))
    with MemoryWatch(depot) as idle:
        time.sleep(5)
    before = machine.rss_megabytes(depot.worker)
    size = arguments.gigabytes << 30
    with MemoryWatch(depot) as alone:
        began = time.perf_counter()
        pointer = json.loads(streamed_up(depot, size))["pointer"]
        up = time.perf_counter() - began
        began = time.perf_counter()
        depot.get(pointer)
        down = time.perf_counter() - began
    for path in depot_files(depot):
        path.unlink()  # room for the next ten
    share = size // 8
    with MemoryWatch(depot) as together, ThreadPoolExecutor(8) as threads:
        pointers = list(threads.map(lambda _: json.loads(streamed_up(depot, share))["pointer"], range(8)))
        list(threads.map(depot.get, pointers))
    return {
        "gigabytes": arguments.gigabytes,
        "up_mb_s": round(size / MIB / up),
        "down_mb_s": round(size / MIB / down),
        "rss_before_mb": round(before),
        "rss_growth_mib": {
            "one": round((alone.highest_mb - before) * 1e6 / MIB),
            "eight": round((together.highest_mb - before) * 1e6 / MIB),
        },
        "others_p99_ms": {"idle": round(idle.p99, 2), "one": round(alone.p99, 2), "eight": round(together.p99, 2)},
    }


def streamed_up(depot: DepotUnderLoad, size: int) -> bytes:
    """So many bytes that are nowhere before: a machine need not have room for them twice."""
    block = os.urandom(MIB)
    curl = subprocess.Popen(
        [*depot.command, "-X", "POST", "-T", "-", f"{depot.url}/artifacts?role=input"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert curl.stdin is not None
    assert curl.stdout is not None
    for number in range(size // MIB):
        curl.stdin.write(block if number % 64 else os.urandom(MIB))
    curl.stdin.close()
    answer = curl.stdout.read()
    assert curl.wait() == 0, answer
    return answer


# ── the command ──────────────────────────────────────────────────────────────────────────────────────────────────────


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4)
    parser.add_argument("--megabytes", type=int, default=512, help="of each large file")
    parser.add_argument("--gigabytes", type=int, default=10, help="with --large")
    parser.add_argument("--large", action="store_true", help="only: many gigabytes, and the memory they take")
    parser.add_argument("--only", choices=["files", "s3", "small"])
    parser.add_argument("--directory", type=Path, help="where the stores are: the disk that is measured")
    return parser.parse_args()


def measured(arguments: argparse.Namespace, directory: Path) -> dict[str, Any]:
    result: dict[str, Any] = {}
    with database() as on:
        if arguments.large:
            with on_files(on, directory) as depot:
                return {"large": ten_gigabytes(depot, arguments, directory)}
        if arguments.only in {None, "files"}:
            with on_files(on, directory) as depot:
                result["files"] = large_files(depot, arguments, directory)
        if arguments.only in {None, "small"}:
            with on_files(on, directory) as depot:
                result["small"] = small_ones(depot, arguments, directory)
        if arguments.only in {None, "s3"}:
            try:
                result["objects"] = at_s3(on, arguments, directory)
            except NoObjectStore as absent:
                console.step(f"NOT RUN: {absent}")
    return result


def main() -> None:
    arguments = parsed()
    directory = Path(tempfile.mkdtemp(prefix="depot-bench-", dir=arguments.directory))
    try:
        parts = measured(arguments, directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    kept = RESULTS / "depot.json"
    result = {
        **(json.loads(kept.read_text()) if kept.exists() else {}),
        "machine": machine.described(),
        "goals": GOALS,
        "rounds": arguments.rounds,
        "load_average_after": os.getloadavg()[0],
        **parts,
    }
    for name, part in parts.items():
        console.step(f"{name}: {json.dumps(part)}")
    RESULTS.mkdir(exist_ok=True)
    kept.write_text(json.dumps(result, indent=2) + "\n")
    console.step(f"written: {kept}")


if __name__ == "__main__":
    main()
