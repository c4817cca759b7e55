"""`legivellum work` as a container runs it, against a real gate: real processes, real signals, a directory with the two
packages only.
"""

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from tests.integration.asyncgate.conftest import TaskDatabase
from tests.integration.asyncgate.gate_fixture import TaskTenant
from tests.integration.asyncgate.worker_fixture import (
    KILLED_AFTER,
    KILLED_BEFORE,
    RunningGate,
    WorkersGate,
    problem,
    workers_gate,
)

ROOT = Path(__file__).parents[3]
ALONE = "import sys; sys.path[:0] = [{path!r}]; from legivellum_worker.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client, the worker library and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("metagate_client", "legivellum_worker"):
        shutil.copytree(ROOT / "client" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def process(task_database: TaskDatabase) -> AsyncIterator[RunningGate]:
    tenant = TaskTenant(task_database)
    await tenant.publish()
    made = RunningGate(tenant)
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


@pytest.fixture
def gate(process: RunningGate) -> Iterator[WorkersGate]:
    with workers_gate(process) as made:
        yield made


class WorkerProcess:
    """Starts `legivellum work` without site-packages: what it cannot import it does not have."""

    def __init__(self, alone: Path, folder: Path, gate: WorkersGate) -> None:
        self.alone, self.folder, self.gate = alone, folder, gate
        (folder / "key").write_text(gate.tenant.principals["worker"].key)

    @contextmanager
    def running(self, script: str, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A shell script as the handler, on the capability `index`."""
        handler = self.folder / "handler.sh"
        handler.write_text(f"#!/bin/sh\n{script}\n")
        handler.chmod(0o755)
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", ALONE.format(path=str(self.alone))),
                *("--capability", self.gate.box("index"), *options, "--", str(handler)),
            ],
            env={
                "PATH": os.environ["PATH"],  # noqa: TID251
                "TMPDIR": str(self.folder),
                "METAGATE_ASYNCGATE_URL": self.gate.url,
                "METAGATE_API_KEY_FILE": str(self.folder / "key"),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(40)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def worker(alone: Path, tmp_path: Path, gate: WorkersGate) -> WorkerProcess:
    return WorkerProcess(alone, tmp_path, gate)


ENDS = {
    "echo done > $LEGIVELLUM_WORK_DIR/output": {"status": "success", "outcome_text": "done\n"},
    "true": {"status": "success", "outcome_kind": "none"},
    "cd $LEGIVELLUM_WORK_DIR; echo '# x' > output; echo text/markdown > output.type": {
        "outcome_text": "# x\n",
        "metadata": {"media_type": "text/markdown"},
    },
    "exit 3": {"status": "failure", "metadata": {"reason": "EXIT_3"}},
    "kill -9 $$": {"status": "failure", "metadata": {"reason": "SIGKILL"}},
    "head -c 30000 /dev/zero > $LEGIVELLUM_WORK_DIR/output": {"metadata": {"reason": "OUTPUT_TOO_LARGE"}},
    "printf '\\377' > $LEGIVELLUM_WORK_DIR/output": {"metadata": {"reason": "AUTHORITY_INSUFFICIENT"}},
    "ln -s /etc/hostname $LEGIVELLUM_WORK_DIR/output": {"metadata": {"reason": "OUTPUT_INVALID"}},
}


def test_the_exit_code_is_the_end(worker: WorkerProcess, gate: WorkersGate) -> None:
    """0 completes with what was written, 75 gives back, anything else is a failure: one task after the other."""
    cases = " ".join(f"{number}) {script};;" for number, script in enumerate(ENDS))
    number = 'sed "s/.*documents.//; s/\\".*//" $LEGIVELLUM_WORK_DIR/task.json'
    with worker.running(f'case "$({number})" in {cases} 75) exit 75;; esac'):
        gate.put("75")
        for number, expected in enumerate(ENDS.values()):
            gate.put(str(number))
            body = gate.wait_for_end(str(number), 30)
            assert {name: body[name] for name in expected} == expected
        gate.wait_for_end("released 75")
    assert gate.ended["released 75"]["again_after_seconds"] == 0
    assert list(worker.folder.glob("legivellum-*")) == []


def test_task_and_lease_are_files(worker: WorkerProcess, gate: WorkersGate) -> None:
    """And the environment names the directory, the lease for the header, and the capability."""
    with worker.running(
        'cd $LEGIVELLUM_WORK_DIR; cat task.json lease.json > output; echo "$LEGIVELLUM_LEASE $LEGIVELLUM_CAPABILITY" >> output'
    ):
        gate.put("t1")
        text = gate.wait_for_end("t1", 30)["outcome_text"]
    decoder = json.JSONDecoder()
    task, end = decoder.raw_decode(text)
    lease, length = decoder.raw_decode(text[end:])
    assert (task["payload_pointer"], lease["number"]) == ("s3://documents/t1", 1)
    assert "task" not in lease
    assert text[end + length :] == f"{lease['lease_id']} {gate.box('index')}\n"


def wait_for_file(path: Path, seconds: float = 40) -> None:
    until = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < until, path
        time.sleep(0.01)


def is_running(pid: int) -> bool:
    """A zombie is not: the machine's process 1 reaps it when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_lost_lease_ends_the_program_and_all_that_it_started(worker: WorkerProcess, gate: WorkersGate) -> None:
    """Also what ignores SIGTERM: nobody works on for a lease that another worker has."""
    gate.ttl = 5
    script = f"trap '' TERM; (trap '' TERM; exec sleep 61.25) & echo $! > {worker.folder}/pid.new; mv {worker.folder}/pid.new {worker.folder}/pid; sleep 61.25"
    with worker.running(script):
        gate.put("t1")
        wait_for_file(worker.folder / "pid")
        assert gate.ask("principal", f"/tasks/{gate.box('t1')}/revoke", {"what": "task"})[0] == 200
        gate.wait_for("/lease/renew", seconds=30)
        gate.wait_until(lambda: gate.paths()[-1] == "/lease", 30)  # the place is free again
        pid = int((worker.folder / "pid").read_text())
        until = time.monotonic() + 10
        while is_running(pid):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert set(gate.paths()) == {"/lease", "/lease/renew"}


def test_a_stopped_process_sends_nothing_after_its_lease(worker: WorkerProcess, gate: WorkersGate) -> None:
    """SIGSTOP past the end of the lease, then SIGCONT: the program is ended and its result dropped. The task is leased
    again, and ends once.
    """
    gate.ttl = 5
    script = f"touch {worker.folder}/started; sleep 0.5; echo $LEGIVELLUM_LEASE > $LEGIVELLUM_WORK_DIR/output"
    with worker.running(script) as process:
        gate.put("t1")
        wait_for_file(worker.folder / "started")
        process.send_signal(signal.SIGSTOP)
        gate.wait_until(lambda: gate.leased)
        [lease_id] = gate.leased
        before = len(gate.requests)
        time.sleep(gate.ttl + 0.5)  # the lease ends by itself, and nothing tells
        process.send_signal(signal.SIGCONT)
        output = gate.wait_for_end("t1")["outcome_text"]
    assert output.strip() not in {"", lease_id}
    assert [path for path, body, _ in gate.requests[before:] if body.get("lease_id") == lease_id] == []
    phases = gate.phases("t1")
    assert [phases.count(name) for name in ("lease_issued", "expired", "complete")] == [2, 1, 1]


def test_sigterm_waits_for_the_program(worker: WorkerProcess, gate: WorkersGate) -> None:
    """It is not passed on: the program may end its work, and the worker exits with 0."""
    with worker.running(f"touch {worker.folder}/started; sleep 1; echo done > $LEGIVELLUM_WORK_DIR/output") as process:
        gate.put("t1")
        wait_for_file(worker.folder / "started")
        process.send_signal(signal.SIGTERM)
        assert gate.wait_for_end("t1", 30)["outcome_text"] == "done\n"
        assert process.wait(30) == 0


def test_sigterm_twice_gives_back_at_once(worker: WorkerProcess, gate: WorkersGate) -> None:
    with worker.running(f"touch {worker.folder}/started; sleep 63.5") as process:
        gate.put("t1")
        wait_for_file(worker.folder / "started")
        process.send_signal(signal.SIGTERM)
        time.sleep(0.3)  # two signals of the same number at the same time are one
        process.send_signal(signal.SIGTERM)
        assert gate.wait_for_end("released t1", 30)["reason"] == "the handler gives the task back"


@pytest.mark.parametrize(
    ("answer", "code", "words"),
    [
        (problem(403, "ROLE_REQUIRED"), 1, "asyncgate refused (403 ROLE_REQUIRED)"),
        (problem(401, "CREDENTIAL_INVALID"), 1, "asyncgate refused (401 CREDENTIAL_INVALID)"),
    ],
)
def test_a_refusal_is_the_exit_code(worker: WorkerProcess, gate: WorkersGate, answer, code: int, words: str) -> None:
    gate.answers["/lease"] = [answer]
    with worker.running("true") as process:
        assert process.wait(30) == code
        assert process.stdout is not None
        assert words in process.stdout.read()


@pytest.mark.slow
@pytest.mark.parametrize("when", [KILLED_BEFORE, KILLED_AFTER], ids=["before", "after"])
@pytest.mark.parametrize("path", ["/lease", "/complete", "/lease/release"])
def test_the_gate_is_killed_at_a_call(worker: WorkerProcess, gate: WorkersGate, path: str, when: str) -> None:
    """And comes again: one end, whether the call had been done or not."""
    (worker.folder / "first").touch()
    gate.put("t1")
    gate.answers[path] = [when]
    code = 75 if path == "/lease/release" else 0
    first = f"rm {worker.folder}/first 2>/dev/null && exit {code}"
    with worker.running(f"echo done > $LEGIVELLUM_WORK_DIR/output; {first}; exit 0"):
        assert gate.wait_for_end("t1", 60)["outcome_text"] == "done\n"
    phases = gate.phases("t1")
    assert phases.count("complete") == 1
    assert phases.count("queued") == (2 if code else 1)
