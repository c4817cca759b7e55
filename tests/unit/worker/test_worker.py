"""The worker over a socket: what is sent, when nothing is sent any more, and what a stop leaves behind."""

import asyncio
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.unit.worker.queue_double import CUT, QueueDouble, problem, queue_double

from legivellum_worker import Escalate, Failed, Output, Release, Work, Worker, WorkerSettings
from legivellum_worker.gate_client import GateError
from metagate_client.errors import MisconfiguredError
from metagate_client.packet import Packet


@pytest.fixture
def gate() -> Iterator[QueueDouble]:
    with queue_double() as made:
        yield made


@pytest.fixture
def key_file(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("mgk_worker")
    return path


def worker_for(gate: QueueDouble, key_file: Path, **options: Any) -> Worker:
    settings = WorkerSettings(url=gate.url, api_key_file=str(key_file), environ={})
    return Worker(settings, **{"wait_seconds": 1, "stop_seconds": 1.0, **options})


@contextmanager
def running(gate: QueueDouble, worker: Worker, parallel: int = 1) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.run, args=(parallel,), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        gate.close()
        thread.join(15)
        assert not thread.is_alive()


def as_async(handler: Callable[[Work], object]) -> Callable[[Work], Any]:
    async def run(work: Work) -> object:
        await asyncio.sleep(0)
        return handler(work)

    return run


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> Callable[[Callable[[Work], object]], Callable[[Work], Any]]:
    """Makes a handler of either kind from a plain function."""
    return as_async if request.param == "async" else (lambda handler: handler)


def fail(error: BaseException) -> Callable[[Work], object]:
    def run(_: Work) -> object:
        raise error

    return run


ENDS = {
    "text": (
        lambda work: Output(f"read {work.payload_pointer}"),
        {"status": "success", "outcome_kind": "response_text", "outcome_text": "read s3://documents/t1"},
    ),
    "plain": (lambda _: "done", {"status": "success", "outcome_kind": "response_text", "outcome_text": "done"}),
    "nothing": (lambda _: None, {"status": "success", "outcome_kind": "none"}),
    "pointer": (
        lambda _: Output(pointer="s3://out/1", media_type="image/png", checksum="sha256:ab", size_bytes=7),
        {
            "status": "success",
            "outcome_kind": "artifact_pointer",
            "artifact_pointer": "s3://out/1",
            "artifact_location": "s3://out/1",
            "artifact_mime": "image/png",
            "artifact_checksum": "sha256:ab",
            "artifact_size_bytes": 7,
        },
    ),
    "both": (
        lambda _: Output("a summary", "text/markdown", pointer="s3://out/1", usage={"calls": 2}),
        {
            "status": "success",
            "outcome_kind": "mixed",
            "outcome_text": "a summary",
            "artifact_pointer": "s3://out/1",
            "artifact_location": "s3://out/1",
            "artifact_mime": "text/markdown",
            "metadata": {"usage": {"calls": 2}, "media_type": "text/markdown"},
        },
    ),
    "too large": (
        lambda _: Output("é" * 20_000),
        {"status": "failure", "outcome_kind": "none", "metadata": {"reason": "OUTPUT_TOO_LARGE"}},
    ),
    "failed": (
        fail(Failed("NO_MODEL", "the model is away")),
        {
            "status": "failure",
            "outcome_kind": "response_text",
            "outcome_text": "the model is away",
            "metadata": {"reason": "NO_MODEL"},
        },
    ),
    "exception": (
        fail(ValueError("password hunter2")),
        {"status": "failure", "outcome_kind": "none", "metadata": {"reason": "ValueError"}},
    ),
    "exit": (fail(SystemExit(3)), {"status": "failure", "outcome_kind": "none", "metadata": {"reason": "SystemExit"}}),
    "wrong type": (lambda _: 7, {"status": "failure", "outcome_kind": "none", "metadata": {"reason": "TypeError"}}),
    "escalate": (
        fail(Escalate("needs a person", to="lead", escalation_class="trust")),
        {"escalation_class": "trust", "escalation_reason": "needs a person", "escalation_to": "lead"},
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_handler_ends_as_it_says(gate: QueueDouble, key_file: Path, kind: Any, name: str) -> None:
    """Each result of a handler is one call under the lease, the same for both kinds of handler."""
    handler, expected = ENDS[name]
    worker = worker_for(gate, key_file)
    worker.on("index")(kind(handler))
    with running(gate, worker):
        gate.put("t1")
        assert gate.wait_for_end("t1") == {"lease_id": "t1#1", **expected}
    assert [path for path in gate.paths() if path != "/lease"] == [
        "/escalate" if "escalation_class" in expected else "/complete"
    ]


def test_nothing_of_an_exceptions_text_is_sent_or_logged(
    gate: QueueDouble, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The type says what went wrong; the text may hold a secret."""
    worker = worker_for(gate, key_file)
    worker.on("index")(fail(RuntimeError("canary-4711")))
    with running(gate, worker):
        gate.put("t1")
        gate.wait_for_end("t1")
    assert "canary-4711" not in str(gate.requests)
    assert "handler_failed task_id=t1 error=RuntimeError" in caplog.text
    assert "canary-4711" not in caplog.text


def test_a_task_is_given_back(gate: QueueDouble, key_file: Path, kind: Any) -> None:
    """Release names the pause and the reason."""
    worker = worker_for(gate, key_file)
    worker.on("index")(kind(fail(Release(after=60, reason="no GPU is free"))))
    with running(gate, worker):
        gate.put("t1")
        body = gate.wait_for_end("released t1")
    assert body == {"lease_id": "t1#1", "again_after_seconds": 60, "reason": "no GPU is free"}


def test_what_a_handler_sees(gate: QueueDouble, key_file: Path) -> None:
    """The task, the fence, the authority, and headers for calls to other gates."""
    result: dict[str, Any] = {}
    worker = worker_for(gate, key_file)

    @worker.on("index")
    def index(work: Work) -> None:
        result.update(
            task_id=work.task_id,
            number=work.number,
            authority=dict(work.authority),
            headers=work.headers,
            principal=work.principal_ai,
            root=(work.root_task_id, work.depth),
            left=0 < work.seconds_left() <= gate.ttl,
        )
        work.check()

    with running(gate, worker):
        gate.put("t1")
        gate.wait_for_end("t1")
    assert result == {
        "task_id": "t1",
        "number": 1,
        "authority": {"maxDepth": 2},
        "headers": {"X-API-Key": "mgk_worker", "Legivellum-Lease": "t1#1"},
        "principal": "ada",
        "root": ("root", 1),
        "left": True,
    }


def test_work_goes_on_in_parallel_and_not_beyond(gate: QueueDouble, key_file: Path, kind: Any) -> None:
    """Three at once with `parallel=3`: the fourth waits at the gate, where another worker may take it."""
    started = threading.Semaphore(0)
    go_on = threading.Event()
    worker = worker_for(gate, key_file)

    def index(_: Work) -> None:
        started.release()
        assert go_on.wait(10)

    async def index_async(work: Work) -> None:
        await asyncio.to_thread(index, work)

    worker.on("index")(index_async if kind is as_async else index)
    for number in range(4):
        gate.put(f"t{number}")
    with running(gate, worker, parallel=3):
        assert all(started.acquire(timeout=10) for _ in range(3))
        assert [task["task_id"] for task in gate.waiting] == ["t3"]
        assert gate.paths().count("/lease") <= 3
        go_on.set()
        gate.wait_until(lambda: len(gate.ended) == 4)


def test_a_lease_is_renewed_while_the_handler_works(gate: QueueDouble, key_file: Path, kind: Any) -> None:
    """At a third of its length: the handler outlives the first lease by far."""
    gate.ttl = 0.6
    done = threading.Event()
    worker = worker_for(gate, key_file)

    def index(_: Work) -> str:
        done.wait(10)
        return "late"

    async def index_async(work: Work) -> str:
        return await asyncio.to_thread(index, work)

    worker.on("index")(index_async if kind is as_async else index)
    with running(gate, worker):
        gate.put("t1")
        gate.wait_for("/lease/renew", 5)
        done.set()
        assert gate.wait_for_end("t1")["outcome_text"] == "late"


@pytest.mark.invariant("INV-088")
def test_a_lost_lease_cancels_the_handler_and_nothing_more_is_sent(
    gate: QueueDouble, key_file: Path, kind: Any
) -> None:
    """The gate says LEASE_LOST to a renewal: an async handler is cancelled, another one sees it and its result is dropped."""
    gate.ttl = 0.6
    gate.answers["/lease/renew"] = [problem(409, "LEASE_LOST")]
    ended = threading.Event()
    worker = worker_for(gate, key_file)

    def index(work: Work) -> str:
        assert work.cancelled.wait(10)
        with pytest.raises(Exception, match="has ended"):
            work.check()
        ended.set()
        return "for nobody"

    async def index_async(_: Work) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    worker.on("index")(index_async if kind is as_async else index)
    worker.on("next")(lambda _: "next")
    with running(gate, worker):
        gate.put("t1")
        assert ended.wait(10)
        gate.put("t2", "next")  # the worker goes on, with the place that is free again
        gate.wait_for_end("t2")
    assert [body["lease_id"] for path, body, _ in gate.requests if path not in {"/lease", "/lease/renew"}] == ["t2#1"]
    assert gate.paths().count("/lease/renew") == 1


def test_a_gate_that_is_away_past_the_end_of_the_lease_hears_nothing(gate: QueueDouble, key_file: Path) -> None:
    """No renewal came through: by the worker's own clock the lease has ended, so the result is dropped."""
    gate.ttl = 0.6
    gate.answers["/lease/renew"] = [problem(503, "UNAVAILABLE")] * 50
    worker = worker_for(gate, key_file)
    returned = threading.Event()

    @worker.on("index")
    def index(work: Work) -> str:
        work.cancelled.wait(10)
        returned.set()
        return "too late"

    with running(gate, worker):
        gate.put("t1")
        assert returned.wait(10)
    assert set(gate.paths()) == {"/lease", "/lease/renew"}


def test_no_renewal_is_left(gate: QueueDouble, key_file: Path) -> None:
    """LEASE_EXHAUSTED ends nothing: the handler has until the lease's end."""
    gate.ttl = 3.0
    gate.answers["/lease/renew"] = [problem(409, "LEASE_EXHAUSTED")]
    worker = worker_for(gate, key_file)

    @worker.on("index")
    def index(work: Work) -> str:
        gate.wait_for("/lease/renew")
        return "in time" if not work.cancelled.wait(0.2) else "cancelled"

    with running(gate, worker):
        gate.put("t1")
        assert gate.wait_for_end("t1")["outcome_text"] == "in time"
    assert gate.paths().count("/lease/renew") == 1


@pytest.mark.parametrize(
    "fault", [CUT, problem(503, "UNAVAILABLE"), problem(429, "RATE_LIMITED")], ids=["cut", "503", "429"]
)
@pytest.mark.parametrize("path", ["/lease", "/complete", "/escalate", "/lease/release"])
def test_a_call_without_an_answer_is_repeated_as_it_was(
    gate: QueueDouble, key_file: Path, path: str, fault: Any
) -> None:
    """The same key, the same body, until there is an answer: one end, however often it was sent."""
    results = {"/escalate": fail(Escalate("a person")), "/lease/release": fail(Release())}
    gate.answers[path] = [fault, problem(503, "UNAVAILABLE")]
    worker = worker_for(gate, key_file)
    worker.on("index")(results.get(path, lambda _: "once"))
    gate.put("t1")
    with running(gate, worker):
        gate.wait_for(path, 3)
        gate.wait_until(lambda: not gate.leased)
    sent = [(body, headers.get("idempotency-key")) for asked, body, headers in gate.requests if asked == path][:3]
    assert sent[0] == sent[1] == sent[2]


def test_an_escalation_that_is_not_permitted_is_a_failure(gate: QueueDouble, key_file: Path) -> None:
    gate.answers["/escalate"] = [problem(403, "ESCALATION_NOT_PERMITTED")]
    worker = worker_for(gate, key_file)
    worker.on("index")(fail(Escalate("help")))
    with running(gate, worker):
        gate.put("t1")
        assert gate.wait_for_end("t1")["metadata"] == {"reason": "ESCALATION_NOT_PERMITTED"}


def test_an_output_that_no_receipt_can_hold_is_a_failure(gate: QueueDouble, key_file: Path) -> None:
    """Refused once, it would be refused again: without an end the task would be leased for ever."""
    gate.answers["/complete"] = [problem(422, "INVALID_RECEIPT")]
    worker = worker_for(gate, key_file)
    worker.on("index")(lambda _: Output(pointer="ftp://x"))
    with running(gate, worker):
        gate.put("t1")
        body = gate.wait_for_end("t1")
    assert (body["status"], body["metadata"]) == ("failure", {"reason": "OUTPUT_REFUSED"})


@pytest.mark.invariant("INV-088")
def test_a_stop_lets_handlers_end_and_gives_back_the_rest(gate: QueueDouble, key_file: Path, kind: Any) -> None:
    """One handler ends in the time that it gets, the other is cancelled and its task given back: nothing stays leased."""
    worker = worker_for(gate, key_file, stop_seconds=1.5)
    stopping = threading.Event()
    cancelled = threading.Event()
    started = threading.Semaphore(0)

    def short(_: Work) -> str:
        started.release()
        stopping.wait(10)
        return "done"

    async def short_async(work: Work) -> str:
        return await asyncio.to_thread(short, work)

    def long(work: Work) -> str:
        started.release()
        work.cancelled.wait(30)
        cancelled.set()
        raise TimeoutError

    async def long_async(_: Work) -> None:
        started.release()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    worker.on("short")(short_async if kind is as_async else short)
    worker.on("long")(long_async if kind is as_async else long)
    gate.put("t1", "short")
    gate.put("t2", "long")
    with running(gate, worker, parallel=2):
        assert all(started.acquire(timeout=10) for _ in range(2))
        stopping.set()
        gate.wait_for_end("t1")
    assert cancelled.is_set()
    assert gate.ended["t1"]["outcome_text"] == "done"
    assert gate.ended["released t2"] == {"lease_id": "t2#1", "reason": "the worker stops"}
    assert gate.leased == {}


def test_a_handler_that_does_not_end_is_left_behind(gate: QueueDouble, key_file: Path) -> None:
    """It is a thread, and no thread can be killed: the task is given back all the same, and run returns."""
    worker = worker_for(gate, key_file, stop_seconds=0.1)
    never = threading.Event()
    started = threading.Event()

    @worker.on("index")
    def index(_: Work) -> None:
        started.set()
        never.wait(60)

    gate.put("t1")
    with running(gate, worker):
        assert started.wait(10)
    never.set()
    assert "released t1" in gate.ended
    assert "t1" not in gate.ended


def test_an_idle_worker_stops_at_once(gate: QueueDouble, key_file: Path) -> None:
    """The long poll is ended, not waited for."""
    worker = worker_for(gate, key_file, wait_seconds=20, stop_seconds=30.0)
    worker.on("index")(lambda _: None)
    with running(gate, worker):
        gate.wait_for("/lease")
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_a_refused_worker_says_so(gate: QueueDouble, key_file: Path) -> None:
    """A type that may not lease: repeating it would change nothing."""
    gate.answers["/lease"] = [problem(403, "ROLE_REQUIRED")]
    worker = worker_for(gate, key_file)
    worker.on("index")(lambda _: None)
    with pytest.raises(GateError, match="ROLE_REQUIRED"):
        worker.run()
    assert gate.paths() == ["/lease"]


async def test_a_worker_in_a_running_loop(gate: QueueDouble, key_file: Path) -> None:
    """`run_async` runs coroutine handlers on the caller's loop, and stops when it is cancelled."""
    worker = worker_for(gate, key_file)
    loops = []

    @worker.on("index")
    async def index(_: Work) -> str:
        loops.append(asyncio.get_running_loop())
        return "here"

    task = asyncio.create_task(worker.run_async())
    gate.put("t1")
    body = await asyncio.to_thread(gate.wait_for_end, "t1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body["outcome_text"] == "here"
    assert loops == [asyncio.get_running_loop()]


def test_needs_are_not_met_without_a_ledger(gate: QueueDouble, key_file: Path) -> None:
    """How a need ended stands in the ledger: a worker that knows none gives the task back; needs="any" does not look."""
    worker = worker_for(gate, key_file)
    worker.on("index")(lambda _: "never")
    worker.on("any", needs="any")(lambda work: str(len(work.evidence)))
    gate.put("t1", evidence=["01ARZ3NDEKTSV4RRFFQ69G5FAV"])
    gate.put("t2", "any", evidence=["01ARZ3NDEKTSV4RRFFQ69G5FAV"])
    with running(gate, worker):
        assert gate.wait_for_end("released t1")["again_after_seconds"] == 30
        assert gate.wait_for_end("t2")["outcome_text"] == "1"


PACKET = {
    "startup": {"startup_id": "x"},
    "services": {
        "queue": {"type": "asyncgate", "endpoint": "http://queue:8002/base"},
        "ledger": {"type": "memorygate", "endpoint": "http://ledger:8001"},
    },
}


def test_explicit_then_settings_then_the_packet(tmp_path: Path) -> None:
    """Where AsyncGate is, and as whom it is called."""
    packet = Packet(b"", PACKET)
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text(f"secret-{name}")
    environ = {
        "METAGATE_ASYNCGATE_URL": "http://set:1",
        "METAGATE_ASYNCGATE_TOKEN_FILE": str(tmp_path / "a"),
        "METAGATE_MEMORYGATE_TOKEN_FILE": str(tmp_path / "b"),
    }
    explicit = WorkerSettings(url="http://given:2", api_key_file=str(tmp_path / "c"), packet=packet, environ=environ)
    assert (explicit.asyncgate.url, explicit.asyncgate.credential()) == ("http://given:2", ("X-API-Key", "secret-c"))
    from_environment = WorkerSettings(packet=packet, environ=environ)
    assert from_environment.asyncgate.url == "http://set:1"
    assert from_environment.asyncgate.credential() == ("Authorization", "Bearer secret-a")
    assert from_environment.memorygate is not None
    assert from_environment.memorygate.url == "http://ledger:8001"
    assert from_environment.memorygate.credential() == ("Authorization", "Bearer secret-b")
    from_packet = WorkerSettings(packet=packet, token_file=str(tmp_path / "a"), environ={})
    assert (from_packet.asyncgate.address.host, from_packet.asyncgate.base) == ("queue", "/base")
    assert from_packet.memorygate is None  # without a credential for its audience
    assert "secret" not in repr(from_packet)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "set METAGATE_ASYNCGATE_URL"),
        ({"url": "http://queue:8002"}, "no credential for asyncgate"),
        ({"url": "queue:8002", "api_key_file": "k"}, "METAGATE_ASYNCGATE_URL must be like http://asyncgate:8002"),
        ({"url": "http://queue:8002", "api_key_file": "k", "token_file": "t"}, "choose one"),
    ],
)
def test_what_cannot_work_says_what_to_set(options: dict[str, str], words: str) -> None:
    with pytest.raises(MisconfiguredError, match=words):
        WorkerSettings(environ={}, **options)


def test_a_handler_is_registered_once() -> None:
    worker = Worker(WorkerSettings(url="http://queue:8002", api_key_file="k", environ={}))
    with pytest.raises(MisconfiguredError, match="without a handler"):
        worker.run()
    worker.on("index")(lambda _: None)
    with pytest.raises(MisconfiguredError, match="index has a handler"):
        worker.on("index")
    with pytest.raises(MisconfiguredError, match="needs is one of"):
        worker.on("other", needs="all")
    with pytest.raises(MisconfiguredError, match="parallel"):
        worker.run(0)


def test_the_page_names_every_variable() -> None:
    """docs/worker.md and the settings module agree."""
    from legivellum_worker import handler_process, settings

    page = (Path(__file__).parents[3] / "docs" / "worker.md").read_text()
    names = {
        value
        for module in (settings, handler_process)
        for value in vars(module).values()
        if isinstance(value, str) and value.startswith(("METAGATE_", "LEGIVELLUM_"))
    }
    assert names - {name for name in names if name in page} == set()
    assert set(re.findall(r"`((?:METAGATE|LEGIVELLUM)_[A-Z_]+)`", page)) <= names
