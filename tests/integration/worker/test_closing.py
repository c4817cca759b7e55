"""The step that ends a plan, leased from a real AsyncGate. DeleGate's answers are scripted here: each of them must occur,
and the pauses after them grow to ten minutes.
"""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import free_port
from tests.integration.worker.plan_fixture import PlanGates

from legivellum_worker import Failed, Release, Work, Worker, WorkerSettings
from legivellum_worker.closing import close_plan
from legivellum_worker.leased_work import WorkerLease, boot_clock
from legivellum_worker.settings import GateAccess


@dataclass
class ScriptedDelegate:
    """Answers `POST /plans/{id}/close` with the next of its statuses, then with the last again."""

    statuses: list[int]
    calls: list[tuple[str, str | None]] = field(default_factory=list)
    url: str = ""

    @contextmanager
    def serving(self) -> Iterator["ScriptedDelegate"]:
        scripted = self

        class Answers(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                scripted.calls.append((self.path, self.headers["X-API-Key"]))
                status = scripted.statuses.pop(0) if len(scripted.statuses) > 1 else scripted.statuses[0]
                body: dict[str, Any] = {"status": "success"}
                if status != 200:
                    body = {"status": status, "code": "PLAN_NOT_FINISHED" if status == 409 else "OTHER"}
                content = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
        self.url = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()


@contextmanager
def closing(gates: PlanGates, folder: Path, delegate: ScriptedDelegate, **options: Any) -> Iterator[Worker]:
    environ = {**gates.environment(folder), "METAGATE_DELEGATE_URL": delegate.url}
    worker = Worker(WorkerSettings(environ=environ), wait_seconds=1, stop_seconds=1, **options)
    worker.on("index")(lambda _: "done")
    thread = threading.Thread(target=worker.run, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(30)
        assert not thread.is_alive()


CLOSE = {"step_id": "close", "capability": "plan.close", "depends_on": ["read"]}


@pytest.mark.slow
def test_any_worker_closes_plans(gates: PlanGates, tmp_path: Path) -> None:
    """It asks again as long as the plan is open, and completes the step when it is closed; DepotGate is not asked."""
    with ScriptedDelegate([409, 503, 200]).serving() as delegate, closing(gates, tmp_path, delegate):
        plan = gates.plan({"step_id": "read"}, CLOSE)
        receipt = plan.wait_for("close")
        assert (receipt["status"], receipt["outcome_kind"]) == ("success", "none")
        key = gates.tenant.principals["worker"].key
        assert delegate.calls == [(f"/plans/{plan.plan_id}/close", key)] * 3
    assert plan.phases("close").count("lease_issued") == 3


@pytest.mark.slow
def test_a_worker_may_leave_plans_alone(gates: PlanGates, tmp_path: Path) -> None:
    """`closes=False`: the step waits for another worker."""
    with ScriptedDelegate([200]).serving() as delegate:
        with closing(gates, tmp_path, delegate, closes=False):
            plan = gates.plan({"step_id": "read"}, {**CLOSE, "depends_on": []}, {"step_id": "next"})
            plan.wait_for("next")
        assert delegate.calls == []
        assert "lease_issued" not in plan.phases("close")
        with closing(gates, tmp_path, delegate):
            plan.wait_for("close")


def work_of(task_id: str, number: int) -> Work:
    settings = WorkerSettings(url="http://127.0.0.1:9", api_key_file="k", environ={})
    task = {"task_id": task_id, "payload_pointer": "x", "capability": "plan.close"}
    return Work(
        WorkerLease({"lease_id": "l", "number": number, "expires_in_ms": 1, "task": task}, boot_clock()), settings
    )


def access(url: str, folder: Path) -> GateAccess:
    (folder / "key").write_text("mgk_worker")
    found = WorkerSettings(url=url, delegate_url=url, api_key_file=str(folder / "key"), environ={}).delegate
    assert found is not None
    return found


def test_pauses_grow_to_ten_minutes(tmp_path: Path) -> None:
    """32 leases, as many as AsyncGate gives, last about four hours of a DeleGate that is stopped."""
    nobody = access(f"http://127.0.0.1:{free_port()}", tmp_path)
    pauses = []
    for number in range(1, 33):
        with pytest.raises(Release) as release:
            close_plan(work_of(f"{new_id()}.close", number), nobody)
        pauses.append(release.value.after)
    assert pauses[:11] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600]
    assert set(pauses[10:]) == {600}
    assert 3.5 < sum(pauses) / 3600 < 4.5


@pytest.mark.parametrize("status", [401, 403, 409, 429, 500, 503])
def test_what_may_become_better_gives_the_step_back(tmp_path: Path, status: int) -> None:
    with ScriptedDelegate([status]).serving() as delegate, pytest.raises(Release):
        close_plan(work_of(f"{new_id()}.close", 1), access(delegate.url, tmp_path))


def test_a_plan_that_nobody_knows_is_a_failure(tmp_path: Path) -> None:
    with ScriptedDelegate([404]).serving() as delegate:
        for task_id in (f"{new_id()}.close", "no-plan"):
            with pytest.raises(Failed, match="PLAN_NOT_FOUND"):
                close_plan(work_of(task_id, 1), access(delegate.url, tmp_path))


def test_a_capability_is_kept_for_closing(tmp_path: Path) -> None:
    """AsyncGate takes 16 names, so a worker that closes plans has 15 of its own, or its own handler for the end."""
    options = {"url": "http://127.0.0.1:9", "api_key_file": "k", "environ": {}}
    closes = Worker(WorkerSettings(**options, delegate_url="http://127.0.0.1:9"))
    for number in range(15):
        closes.on(f"c{number}")(lambda _: None)
    with pytest.raises(Exception, match="or there are 15"):
        closes.on("c15")
    closes.on("plan.close")(lambda _: None)
    for worker in (
        Worker(WorkerSettings(**options)),
        Worker(WorkerSettings(**options, delegate_url="http://x:9"), closes=False),
    ):
        for number in range(16):
            worker.on(f"c{number}")(lambda _: None)
