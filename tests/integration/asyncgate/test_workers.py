"""The worker against a real gate: what is sent, when nothing is sent any more, and what a stop leaves behind."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from tests.integration.asyncgate.conftest import TaskDatabase
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.asyncgate.worker_fixture import CUT, RunningGate, WorkersGate, problem, workers_gate

from legivellum_worker import Escalate, Failed, Output, Release, Work, Worker, WorkerSettings
from legivellum_worker.gate_client import GateError, GateUnavailableError


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def process(task_database: TaskDatabase, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningGate]:
    tenant = TaskTenant(task_database)
    await tenant.publish()
    ceilings = tmp_path_factory.mktemp("gate") / "ceilings.yaml"
    ceilings.write_text("- {namespaces: ['team-*'], authority: {maxDepth: 2}}\n")
    made = RunningGate(tenant, ceilings=str(ceilings))
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


@pytest.fixture
def gate(process: RunningGate) -> Iterator[WorkersGate]:
    with workers_gate(process) as made:
        yield made


@pytest.fixture
def key_file(process: RunningGate, tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(process.tenant.principals["worker"].key)
    return path


class BoxedWorker(Worker):
    """Its capabilities are those of the test's own gate."""

    def __init__(self, gate: WorkersGate, *rest: Any, **options: Any) -> None:
        super().__init__(*rest, **options)
        self._gate = gate

    def on(self, capability: str, *, needs: str = "success") -> Any:
        return super().on(self._gate.box(capability), needs=needs)


def worker_for(gate: WorkersGate, key_file: Path, **options: Any) -> Worker:
    settings = WorkerSettings(url=gate.url, api_key_file=str(key_file), environ={})
    return BoxedWorker(gate, settings, **{"wait_seconds": 2, "stop_seconds": 1.0, **options})


@contextmanager
def running(gate: WorkersGate, worker: Worker, parallel: int = 1) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.run, args=(parallel,), daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        worker.stop()
        thread.join(30)
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
        fail(Escalate("needs a person", to="admin", escalation_class="trust")),
        {"escalation_class": "trust", "escalation_reason": "needs a person", "escalation_to": "admin"},
    ),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_handler_ends_as_it_says(gate: WorkersGate, key_file: Path, kind: Any, name: str) -> None:
    """Each result of a handler is one call under the lease, the same for both kinds of handler."""
    handler, expected = ENDS[name]
    worker = worker_for(gate, key_file)
    worker.on("index")(kind(handler))
    with running(gate, worker):
        gate.put("t1", escalation_to=["admin"])
        assert gate.wait_for_end("t1") == expected
    assert [path for path in gate.paths() if path != "/lease"] == [
        "/escalate" if "escalation_class" in expected else "/complete"
    ]


def test_nothing_of_an_exceptions_text_is_sent_or_logged(
    gate: WorkersGate, key_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The type says what went wrong; the text may hold a secret."""
    worker = worker_for(gate, key_file)
    worker.on("index")(fail(RuntimeError("canary-4711")))
    with running(gate, worker):
        gate.put("t1")
        gate.wait_for_end("t1")
    assert "canary-4711" not in str(gate.requests)
    assert f"handler_failed task_id={gate.box('t1')} error=RuntimeError" in caplog.text
    assert "canary-4711" not in caplog.text


def test_a_task_is_given_back(gate: WorkersGate, key_file: Path, kind: Any) -> None:
    """Release names the pause and the reason."""
    worker = worker_for(gate, key_file)
    worker.on("index")(kind(fail(Release(after=60, reason="no GPU is free"))))
    with running(gate, worker):
        gate.put("t1")
        body = gate.wait_for_end("released t1")
    assert body == {"again_after_seconds": 60, "reason": "no GPU is free"}


def test_a_gate_that_does_not_answer_gives_the_task_back(gate: WorkersGate, key_file: Path, kind: Any) -> None:
    """It says nothing about the task, which is tried again after a while; the refusal of a gate is a failure."""
    worker = worker_for(gate, key_file)
    worker.on("index")(kind(fail(GateUnavailableError("depotgate", "no answer in time"))))
    worker.on("refused")(kind(fail(GateError("depotgate", 409, "ARTIFACT_CONFLICT", "secret-4711"))))
    with running(gate, worker):
        gate.put("t1")
        assert gate.wait_for_end("released t1") == {"again_after_seconds": 30, "reason": "depotgate did not answer"}
        gate.put("t2", "refused")
        assert gate.wait_for_end("t2")["metadata"] == {"reason": "GateError"}
    assert "secret-4711" not in str(gate.requests)


@pytest.mark.invariant("INV-088")
def test_a_gate_that_says_the_lease_is_lost_ends_the_work(gate: WorkersGate, key_file: Path, kind: Any) -> None:
    """Whichever gate says it first: nothing more is sent."""
    worker = worker_for(gate, key_file)
    worker.on("index")(kind(fail(GateError("depotgate", 409, "LEASE_LOST", "the lease has ended"))))
    worker.on("next")(lambda _: "next")
    with running(gate, worker):
        gate.put("t1")
        gate.wait_until(lambda: gate.leased)
        gate.put("t2", "next")
        gate.wait_for_end("t2")
    assert [path for path in gate.paths() if path not in {"/lease", "/lease/renew"}] == ["/complete"]


def test_what_a_handler_sees(gate: WorkersGate, key_file: Path) -> None:
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
        gate.put("t1", authority={"maxDepth": 2})
        gate.wait_for_end("t1")
    [lease_id] = {body["lease_id"] for path, body, _ in gate.requests if path == "/complete"}
    assert result == {
        "task_id": gate.box("t1"),
        "number": 1,
        "authority": {"maxDepth": 2},
        "headers": {"X-API-Key": key_file.read_text(), "Legivellum-Lease": lease_id},
        "principal": "principal",
        "root": (gate.box("t1"), 0),
        "left": True,
    }


def test_work_goes_on_in_parallel_and_not_beyond(gate: WorkersGate, key_file: Path, kind: Any) -> None:
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
        assert len(gate.leased) == 3
        assert gate.paths().count("/lease") <= 3
        go_on.set()
        gate.wait_until(lambda: len(gate.ended) == 4)


def test_a_lease_is_renewed_while_the_handler_works(gate: WorkersGate, key_file: Path, kind: Any) -> None:
    """At a third of its length: the handler outlives the first lease by far."""
    gate.ttl = 5
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
        gate.wait_for("/lease/renew", 4)
        done.set()
        assert gate.wait_for_end("t1")["outcome_text"] == "late"


@pytest.mark.invariant("INV-088")
def test_a_lost_lease_cancels_the_handler_and_nothing_more_is_sent(
    gate: WorkersGate, key_file: Path, kind: Any
) -> None:
    """The task is revoked, so a renewal hears LEASE_LOST: an async handler is cancelled, another one sees it and its result is dropped."""
    gate.ttl = 5
    started, ended = threading.Event(), threading.Event()
    worker = worker_for(gate, key_file)

    def index(work: Work) -> str:
        started.set()
        assert work.cancelled.wait(10)
        with pytest.raises(Exception, match="has ended"):
            work.check()
        ended.set()
        return "for nobody"

    async def index_async(_: Work) -> None:
        started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.set()
            raise

    worker.on("index")(index_async if kind is as_async else index)
    worker.on("next")(lambda _: "next")
    with running(gate, worker):
        gate.put("t1")
        assert started.wait(10)
        assert gate.ask("principal", f"/tasks/{gate.box('t1')}/revoke", {"what": "task"})[0] == 200
        assert ended.wait(5)  # a third of the lease, and what the call takes
        gate.put("t2", "next")  # the worker goes on, with the place that is free again
        gate.wait_for_end("t2")
    assert [path for path in gate.paths() if path not in {"/lease", "/lease/renew"}] == ["/complete"]
    assert set(gate.ended) == {"t2"}
    assert gate.phases("t1")[-2:] == ["revoked", "complete"]


def test_a_gate_that_is_away_past_the_end_of_the_lease_hears_nothing(gate: WorkersGate, key_file: Path) -> None:
    """No renewal came through: by the worker's own clock the lease has ended, so the result is dropped."""
    gate.ttl = 5
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


def test_no_renewal_is_left(gate: WorkersGate, key_file: Path) -> None:
    """LEASE_EXHAUSTED ends nothing: the handler has until the lease's end."""
    gate.ttl = 6
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
    gate: WorkersGate, key_file: Path, path: str, fault: Any
) -> None:
    """The same key, the same body, until there is an answer: one end, however often it was sent."""
    results = {"/escalate": fail(Escalate("a person")), "/lease/release": fail(Release(after=600))}
    gate.answers[path] = [fault, problem(503, "UNAVAILABLE")]
    worker = worker_for(gate, key_file)
    worker.on("index")(results.get(path, lambda _: "once"))
    gate.put("t1")
    with running(gate, worker):
        gate.wait_for(path, 3)
        gate.wait_until(lambda: gate.ended and not gate.leased)
    sent = [(body, headers.get("idempotency-key")) for asked, body, headers in gate.requests if asked == path][:3]
    assert sent[0] == sent[1] == sent[2]
    assert gate.phases("t1").count("lease_issued") == 1


def test_an_escalation_that_is_not_permitted_is_a_failure(gate: WorkersGate, key_file: Path) -> None:
    worker = worker_for(gate, key_file)
    worker.on("index")(fail(Escalate("help")))
    with running(gate, worker):
        gate.put("t1", escalation_to=[])
        assert gate.wait_for_end("t1")["metadata"] == {"reason": "ESCALATION_NOT_PERMITTED"}


def test_an_output_that_no_receipt_can_hold_is_a_failure(gate: WorkersGate, key_file: Path) -> None:
    """Refused once, it would be refused again: without an end the task would be leased for ever."""
    worker = worker_for(gate, key_file)
    worker.on("index")(lambda _: Output(pointer="data:text/plain,x"))
    with running(gate, worker):
        gate.put("t1")
        body = gate.wait_for_end("t1")
    assert (body["status"], body["metadata"]) == ("failure", {"reason": "OUTPUT_REFUSED"})


@pytest.mark.invariant("INV-088")
def test_a_stop_lets_handlers_end_and_gives_back_the_rest(gate: WorkersGate, key_file: Path, kind: Any) -> None:
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
    assert gate.ended["released t2"]["reason"] == "the worker stops"
    assert gate.leased == {}


def test_a_handler_that_does_not_end_is_left_behind(gate: WorkersGate, key_file: Path) -> None:
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


def test_an_idle_worker_stops_at_once(gate: WorkersGate, key_file: Path) -> None:
    """The long poll is ended, not waited for."""
    worker = worker_for(gate, key_file, wait_seconds=20, stop_seconds=30.0)
    worker.on("index")(lambda _: None)
    with running(gate, worker):
        gate.wait_for("/lease")
        began = time.monotonic()
    assert time.monotonic() - began < 10


def test_a_refused_worker_says_so(gate: WorkersGate, key_file: Path) -> None:
    """A type that may not lease: repeating it would change nothing."""
    key_file.write_text(gate.tenant.principals["observer"].key)
    worker = worker_for(gate, key_file)
    worker.on("index")(lambda _: None)
    with pytest.raises(GateError, match="ROLE_REQUIRED"):
        worker.run()
    assert gate.paths() == ["/lease"]


async def test_a_worker_in_a_running_loop(gate: WorkersGate, key_file: Path) -> None:
    """`run_async` runs coroutine handlers on the caller's loop, and stops when it is cancelled."""
    worker = worker_for(gate, key_file)
    loops = []

    @worker.on("index")
    async def index(_: Work) -> str:
        loops.append(asyncio.get_running_loop())
        return "here"

    task = asyncio.create_task(worker.run_async())
    await asyncio.to_thread(gate.put, "t1")
    body = await asyncio.to_thread(gate.wait_for_end, "t1")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert body["outcome_text"] == "here"
    assert loops == [asyncio.get_running_loop()]


def test_needs_are_not_met_without_a_ledger(gate: WorkersGate, key_file: Path) -> None:
    """How a need ended stands in the ledger: a worker that knows none gives the task back; needs="any" does not look."""
    worker = worker_for(gate, key_file)
    worker.on("index")(lambda _: "never")
    worker.on("any", needs="any")(lambda work: str(len(work.evidence)))
    worker.on("first")(lambda _: "first")
    gate.put("t0", "first")
    gate.put("t1", needs=[gate.box("t0")])
    gate.put("t2", "any", needs=[gate.box("t0")])
    with running(gate, worker):
        assert gate.wait_for_end("released t1")["again_after_seconds"] == 30
        assert gate.wait_for_end("t2")["outcome_text"] == "1"
