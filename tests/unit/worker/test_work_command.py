"""`legivellum work` as a container runs it: real processes, real signals, a directory with the two packages only."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.unit.worker.queue_double import QueueDouble, problem, queue_double

ROOT = Path(__file__).parents[3]
ALONE = "import sys; sys.path[:0] = [{path!r}]; from legivellum_worker.main import main; sys.exit(main())"
IMPORTED = """
import sys, time
sys.path[:0] = [{path!r}]
began = time.process_time()
import legivellum_worker
print(time.process_time() - began)
print([name for name in ("asyncio", "subprocess", "argparse", "http.client", "dataclasses") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client, the worker library and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("metagate_client", "legivellum_worker"):
        shutil.copytree(ROOT / "client" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def gate() -> Iterator[QueueDouble]:
    with queue_double() as made:
        yield made


class WorkerProcess:
    """Starts `legivellum work` without site-packages: what it cannot import it does not have."""

    def __init__(self, alone: Path, folder: Path, gate: QueueDouble) -> None:
        self.alone, self.folder, self.gate = alone, folder, gate
        (folder / "key").write_text("mgk_worker")

    @contextmanager
    def running(self, script: str, *options: str) -> Iterator[subprocess.Popen[str]]:
        """A shell script as the handler, on the capability `index`."""
        handler = self.folder / "handler.sh"
        handler.write_text(f"#!/bin/sh\n{script}\n")
        handler.chmod(0o755)
        process = subprocess.Popen(
            [
                *(sys.executable, "-I", "-S", "-c", ALONE.format(path=str(self.alone))),
                *("--capability", "index", *options, "--", str(handler)),
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
            self.gate.close()
            process.wait(40)
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture
def worker(alone: Path, tmp_path: Path, gate: QueueDouble) -> WorkerProcess:
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
    "printf '\\377' > $LEGIVELLUM_WORK_DIR/output": {"metadata": {"reason": "OUTPUT_INVALID"}},
    "ln -s /etc/hostname $LEGIVELLUM_WORK_DIR/output": {"metadata": {"reason": "OUTPUT_INVALID"}},
}


def test_the_exit_code_is_the_end(worker: WorkerProcess, gate: QueueDouble) -> None:
    """0 completes with what was written, 75 gives back, anything else is a failure: one task after the other."""
    cases = " ".join(f"{number}) {script};;" for number, script in enumerate(ENDS))
    number = 'sed "s/.*documents.//; s/\\".*//" $LEGIVELLUM_WORK_DIR/task.json'
    with worker.running(f'case "$({number})" in {cases} 75) exit 75;; esac'):
        gate.put("75")
        for number, expected in enumerate(ENDS.values()):
            gate.put(str(number))
            body = gate.wait_for_end(str(number), 30)
            assert {name: body[name] for name in expected} == expected
    assert gate.ended["released 75"]["again_after_seconds"] == 0
    assert list(worker.folder.glob("legivellum-*")) == []


def test_task_and_lease_are_files(worker: WorkerProcess, gate: QueueDouble) -> None:
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
    assert text[end + length :] == "t1#1 index\n"


def is_running(pid: int) -> bool:
    """A zombie is not: the machine's process 1 reaps it when it likes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_lost_lease_ends_the_program_and_all_that_it_started(worker: WorkerProcess, gate: QueueDouble) -> None:
    """Also what ignores SIGTERM: nobody works on for a lease that another worker has."""
    gate.ttl = 0.9
    gate.answers["/lease/renew"] = [problem(409, "LEASE_LOST")]
    script = f"trap '' TERM; (trap '' TERM; exec sleep 61.25) & echo $! > {worker.folder}/pid; sleep 61.25"
    with worker.running(script):
        gate.put("t1")
        gate.wait_for("/lease/renew", seconds=30)
        gate.wait_for("/lease", 2, seconds=30)  # the place is free again
        pid = int((worker.folder / "pid").read_text())
        until = time.monotonic() + 10
        while is_running(pid):
            assert time.monotonic() < until
            time.sleep(0.05)
    assert set(gate.paths()) == {"/lease", "/lease/renew"}


def test_a_stopped_process_sends_nothing_after_its_lease(worker: WorkerProcess, gate: QueueDouble) -> None:
    """SIGSTOP past the end of the lease, then SIGCONT: the program is ended, its result dropped."""
    gate.ttl = 2.0
    with worker.running(
        f"touch {worker.folder}/started; sleep 0.5; echo done > $LEGIVELLUM_WORK_DIR/output"
    ) as process:
        gate.put("t1")
        while not (worker.folder / "started").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGSTOP)
        before = len(gate.requests)
        time.sleep(gate.ttl + 0.5)  # the lease ends by itself, and nothing tells
        process.send_signal(signal.SIGCONT)
        gate.wait_until(lambda: len(gate.requests) > before, 30)
    assert set(gate.paths()[before:]) == {"/lease"}


def test_sigterm_waits_for_the_program(worker: WorkerProcess, gate: QueueDouble) -> None:
    """It is not passed on: the program may end its work, and the worker exits with 0."""
    with worker.running(f"touch {worker.folder}/started; sleep 1; echo done > $LEGIVELLUM_WORK_DIR/output") as process:
        gate.put("t1")
        while not (worker.folder / "started").exists():
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        assert gate.wait_for_end("t1", 30)["outcome_text"] == "done\n"
        gate.close()
        assert process.wait(30) == 0


def test_sigterm_twice_gives_back_at_once(worker: WorkerProcess, gate: QueueDouble) -> None:
    with worker.running(f"touch {worker.folder}/started; sleep 63.5") as process:
        gate.put("t1")
        while not (worker.folder / "started").exists():
            time.sleep(0.01)
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
def test_a_refusal_is_the_exit_code(worker: WorkerProcess, gate: QueueDouble, answer, code: int, words: str) -> None:
    gate.answers["/lease"] = [answer]
    with worker.running("true") as process:
        assert process.wait(30) == code
        assert process.stdout is not None
        assert words in process.stdout.read()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--capability", "index"], "which program?"),
        (["--capability", "index", "--", "/no/such/program"], "there is no program /no/such/program"),
    ],
)
def test_what_cannot_work_is_not_started(alone: Path, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "key").write_text("mgk_worker")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE.format(path=str(alone)), *words],
        env={"METAGATE_ASYNCGATE_URL": "http://127.0.0.1:9", "METAGATE_API_KEY_FILE": str(tmp_path / "key")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_is_cheap(alone: Path) -> None:
    """Below 50 ms of processor time, the best of five; nothing that only some workers need."""
    command = [sys.executable, "-I", "-S", "-c", IMPORTED.format(path=str(alone))]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines() for _ in range(5)]
    assert {names for _, names in runs} == {"[]"}
    assert min(float(seconds) for seconds, _ in runs) < 0.05


def test_the_command_line_hands_over() -> None:
    """`legivellum work --help` comes from the worker library, without typer."""
    code = "import sys; sys.argv = {}; from metagate_cli.main import legivellum; legivellum()"
    for words, start in ((["work"], "usage: legivellum work "), ([], "Usage: legivellum ")):
        command = [sys.executable, "-c", code.format(["legivellum", *words, "--help"])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip().startswith(start)
    assert "Take tasks, and run a program for each." in done.stdout
