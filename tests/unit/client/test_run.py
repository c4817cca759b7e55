"""The commands as a container runs them: real processes, real signals, a package directory with nothing else in it."""

import json
import os
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.unit.client.double import PACKET, STARTUP, Double, double, problem, recorded, reply

ROOT = Path(__file__).parents[3]
ALONE = "import sys; sys.path[:0] = [{path!r}]; from metagate_client.main import main; sys.exit(main())"


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    shutil.copytree(
        ROOT / "client/metagate_client", folder / "metagate_client", ignore=shutil.ignore_patterns("__pycache__")
    )
    return folder


@pytest.fixture
def gate() -> Iterator[Double]:
    with double() as made:
        yield made


def _default_signals() -> None:
    """A shell starts background jobs with SIGINT and SIGQUIT ignored, and children inherit that: the tests' must not."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_DFL)


class ClientShell:
    """Runs the client without site-packages: what it cannot import it does not have."""

    def __init__(self, alone: Path, folder: Path, gate: Double) -> None:
        (folder / "token").write_text("a.b.c")
        self.folder, self.gate = folder, gate
        self.command = [sys.executable, "-I", "-S", "-c", ALONE.format(path=str(alone))]
        self.environ = {
            "PATH": os.environ["PATH"],  # noqa: TID251
            "METAGATE_URL": gate.url,
            "METAGATE_TOKEN_FILE": str(folder / "token"),
            "METAGATE_COMPONENT_KEY": "indexer_main",
            "DB_PASSWORD": "x",
        }

    def start(self, *arguments: str, **options: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.command, *arguments],
            env=self.environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.folder,
            preexec_fn=_default_signals,  # noqa: PLW1509 - it takes no lock, so threads cannot harm it
            **options,  # type: ignore[call-overload]
        )

    def __call__(self, *arguments: str, stdin: str = "") -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(stdin, timeout=30)
        return process.returncode, out, err


@pytest.fixture
def shell(alone: Path, tmp_path: Path, gate: Double) -> ClientShell:
    return ClientShell(alone, tmp_path, gate)


def python(code: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", code]


def test_bootstrap_prints_the_packet(shell: ClientShell) -> None:
    """Standard output is the packet and nothing else; the client needs nothing but itself."""
    code, out, err = shell("bootstrap")
    assert (code, json.loads(out), err) == (0, PACKET, "")


def test_the_packet_file_is_private_and_whole(shell: ClientShell) -> None:
    """The file has mode 0600 whatever the umask, replaces an older one in one step, and leaves nothing beside it."""
    path = shell.folder / "packet.json"
    path.write_text("old")
    path.chmod(0o644)
    before = path.stat().st_ino
    code, out, _ = shell("bootstrap", "--packet-file", str(path))
    assert (code, out) == (0, "")
    assert json.loads(path.read_text()) == PACKET
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != before
    assert sorted(path.name for path in shell.folder.iterdir()) == ["packet.json", "token"]
    assert shell("bootstrap", "--packet-file", str(path), "--packet-mode", "0640")[0] == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert shell("bootstrap", "--packet-file", str(path), "--packet-mode", "0644")[0] == 2


def test_a_packet_file_that_cannot_be_written_is_told(shell: ClientShell) -> None:
    """One line names the file and the reason."""
    code, _, err = shell("bootstrap", "--packet-file", "/nowhere/packet.json")
    assert code == 2
    assert err == "metagate: cannot write the packet file /nowhere/packet.json: No such file or directory\n"


def test_a_link_in_the_way_is_replaced_not_followed(shell: ClientShell) -> None:
    """A symbolic link where the packet belongs is replaced; what it points to stays as it is."""
    (shell.folder / "target").write_text("mine")
    (shell.folder / "packet.json").symlink_to(shell.folder / "target")
    assert shell("bootstrap", "--packet-file", "packet.json")[0] == 0
    assert (shell.folder / "target").read_text() == "mine"
    assert not (shell.folder / "packet.json").is_symlink()


def test_ready_and_failed_find_their_startup(shell: ClientShell) -> None:
    """By option, by packet file, or by the environment that `run` gives its command."""
    (shell.folder / "packet.json").write_text(json.dumps(PACKET))
    code, out, _ = shell("ready", "--startup-id", "given", "--build-version", "7", "--health", '{"a":1}')
    assert (code, json.loads(out)["status"]) == (0, "READY")
    assert shell("ready", "--packet-file", "packet.json")[0] == 0
    shell.environ["METAGATE_STARTUP_ID"] = "from-env"
    assert shell("failed", "--error", "no disk", "--details", "[1]")[0] == 0
    assert [(item.path, item.body) for item in shell.gate.requests] == [
        ("/v1/startup/ready", {"startup_id": "given", "build_version": "7", "health": {"a": 1}}),
        ("/v1/startup/ready", {"startup_id": STARTUP, "build_version": "unknown"}),
        ("/v1/startup/failed", {"startup_id": "from-env", "error": "no disk", "details": [1]}),
    ]
    del shell.environ["METAGATE_STARTUP_ID"]
    code, _, err = shell("ready")
    assert code == 2
    assert "--startup-id" in err


@pytest.mark.parametrize(
    ("script", "code", "line"),
    [
        ([problem(403, "NO_BINDING", "None.")], 1, "metagate: refused (403 NO_BINDING): None. Declare an active"),
        ([problem(503, "UNAVAILABLE", Retry_After="60")], 3, "metagate: MetaGate at http://127.0.0.1"),
    ],
)
def test_what_goes_wrong_is_one_line_and_a_code(shell: ClientShell, script: list[bytes], code: int, line: str) -> None:
    """Refused is 1, unavailable 3; one line each, no stack."""
    shell.gate.script = list(script)
    code, out, err = shell("bootstrap")
    assert (code, out, err.count("\n")) == (code, "", 1)
    assert err.startswith(line)


@pytest.mark.invariant("EXT-31")
def test_a_command_is_witnessed(shell: ClientShell) -> None:
    """`run` boots, runs the command with its packet, passes its output and exit code on, and reports READY."""
    code, out, err = shell(
        "run", "--packet-file", "packet.json", "--build-version", "1.2",
        "--env", "MEMORY=services.memorygate.endpoint", "--env", "REPLICAS=environment.replicas",
        "--env", "ALL=environment", "--env", "NONE=services.none?", "--",
        *python("import os, sys, json; print(json.dumps(dict(os.environ))); sys.stderr.write('mine'); sys.exit(0)"),
    )  # fmt: skip
    environ = json.loads(out)
    assert (code, err) == (0, "mine")
    assert environ["MEMORY"] == "http://memorygate:8001"
    assert environ["REPLICAS"] == "3"
    assert json.loads(environ["ALL"]) == PACKET["environment"]
    assert "NONE" not in environ
    assert environ["METAGATE_STARTUP_ID"] == STARTUP
    assert environ["METAGATE_PACKET_STATE"] == "fresh"
    assert json.loads(Path(environ["METAGATE_PACKET_FILE"]).read_text()) == PACKET
    assert shell.gate.paths() == ["bootstrap", "startup/ready"]
    assert shell.gate.requests[1].body == {"startup_id": STARTUP, "build_version": "1.2"}


@pytest.mark.invariant("EXT-31")
@pytest.mark.parametrize(
    ("program", "code", "error"),
    [
        (["sh", "-c", "exit 7"], 7, "sh exited with code 7 before it was ready"),
        (["sh", "-c", "kill -9 $$"], 137, "sh was ended by SIGKILL before it was ready"),
        (["sh", "-c", "kill -TERM $$"], 143, "sh was ended by SIGTERM before it was ready"),
        (["/no/such/program", "--password=hunter2"], 127, "program could not be started"),
        (["/etc/hostname"], 126, "hostname could not be started"),
    ],
)
def test_a_command_that_dies_before_ready_is_failed(
    shell: ClientShell, program: list[str], code: int, error: str
) -> None:
    """The exit code is the command's, FAILED says how it ended, and its arguments are nobody's business."""
    ended_with, _, _ = shell("run", "--", *program)
    assert ended_with == code
    assert shell.gate.paths() == ["bootstrap", "startup/failed"]
    assert shell.gate.requests[1].body["error"] == error
    assert shell.gate.requests[1].body["details"]["exit_code"] == code
    assert "hunter2" not in json.dumps(shell.gate.requests[1].body)


@pytest.mark.parametrize("sign", ["--ready-file", "--ready-port"])
def test_a_job_that_never_gave_its_sign_is_failed(shell: ClientShell, sign: str) -> None:
    """With a sign agreed on, ending well without it is not having been ready; without one it is."""
    assert shell("run", sign, "1" if sign == "--ready-port" else "sign", "--", "true")[0] == 0
    assert shell.gate.requests[1].body["error"] == "true exited with code 0 before it was ready"
    assert shell("run", "--", "true")[0] == 0
    assert shell.gate.paths()[2:] == ["bootstrap", "startup/ready"]


def test_ready_when_the_file_is_written(shell: ClientShell) -> None:
    """READY comes when the file is written; one left over from an earlier start says nothing."""
    (shell.folder / "sign").write_text("old")
    process = shell.start("run", "--ready-file", "sign", "--", "sh", "-c", "echo up; read x; echo ready > sign; read y")
    assert process.stdout is not None
    assert process.stdin is not None
    assert process.stdout.readline() == "up\n"
    time.sleep(0.3)
    assert shell.gate.paths() == ["bootstrap"]
    process.stdin.write("go\n")
    process.stdin.flush()
    shell.gate.wait_for(2)
    assert shell.gate.paths() == ["bootstrap", "startup/ready"]
    process.communicate("end\n", timeout=10)
    assert process.returncode == 0


def test_ready_when_the_port_accepts(shell: ClientShell) -> None:
    """READY comes when something listens on the port, not before."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = (
        f"import socket,sys; sys.stdin.readline(); s=socket.create_server(('127.0.0.1',{port})); sys.stdin.readline()"
    )
    process = shell.start("run", "--ready-port", str(port), "--", *python(code))
    assert process.stdin is not None
    shell.gate.wait_for(1)
    time.sleep(0.3)
    assert shell.gate.paths() == ["bootstrap"]
    process.stdin.write("listen\n")
    process.stdin.flush()
    shell.gate.wait_for(2)
    assert shell.gate.paths() == ["bootstrap", "startup/ready"]
    process.communicate("end\n", timeout=10)
    assert process.returncode == 0


def test_ready_after_a_while(shell: ClientShell) -> None:
    """READY comes after the delay; dying later than that is the command's own affair."""
    assert shell("run", "--ready-after", "0.1", "--", "sh", "-c", "sleep 0.5; exit 3")[0] == 3
    assert shell.gate.paths() == ["bootstrap", "startup/ready"]


def test_the_command_may_report_itself(shell: ClientShell) -> None:
    """With --ready-by-command nobody else says READY; dying is FAILED, unless READY was said before."""
    assert shell("run", "--ready-by-command", "--ready-after", "1", "--", "true")[0] == 2
    assert shell("run", "--ready-by-command", "--", "sh", "-c", "sleep 0.2; exit 4")[0] == 4
    assert shell.gate.paths() == ["bootstrap", "startup/failed"]
    shell.gate.script = [reply(), problem(409, "INVALID_STATE")]
    code, _, err = shell("run", "--ready-by-command", "--", "sh", "-c", "exit 4")
    assert (code, err) == (4, "")


def test_signals_are_passed_on(shell: ClientShell) -> None:
    """Every signal of the list reaches the command, which decides what it means; the exit code is what it makes of it."""
    code = """
import signal, sys, time
got = []
for name in ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"):
    signal.signal(getattr(signal, name), lambda n, f: got.append(signal.Signals(n).name))
print("up", flush=True)
while len(got) < 6:
    time.sleep(0.05)  # not pause(): the last one may come just before it
print(" ".join(sorted(got)), flush=True)
sys.exit(5)
"""
    process = shell.start("run", "--ready-after", "60", "--", *python(code))
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2):
        process.send_signal(number)
        time.sleep(0.02)
    out, _ = process.communicate(timeout=10)
    assert out == "SIGHUP SIGINT SIGQUIT SIGTERM SIGUSR1 SIGUSR2\n"
    assert process.returncode == 5


def test_the_command_gets_its_signals_as_they_are_everywhere(shell: ClientShell) -> None:
    """What Python ignores in itself (SIGPIPE) is not ignored in the command."""
    # The command is not Python, which would ignore SIGPIPE for itself again.
    code, out, _ = shell("run", "--", "sh", "-c", "grep SigIgn /proc/self/status")
    assert code == 0
    assert int(out.split()[1], 16) & (1 << (signal.SIGPIPE - 1)) == 0, out


@pytest.mark.skipif(shutil.which("unshare") is None or os.geteuid() != 0, reason="needs root and unshare")
def test_as_process_one_it_reaps_and_stops(shell: ClientShell) -> None:
    """As process 1 of a PID namespace: orphans are reaped, SIGTERM reaches the command, the code is passed through."""
    code = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(9))
assert os.getppid() == 1
for _ in range(5):
    subprocess.run(["sh", "-c", "sleep 0.05 & exit 0"])     # the sleeps become orphans: process 1 inherits them
time.sleep(0.5)
zombies = subprocess.run(["sh", "-c", "cat /proc/[0-9]*/stat"], capture_output=True, text=True).stdout.count(" Z ")
print("zombies", zombies, flush=True)
signal.pause()
"""
    shell.command = ["unshare", "--fork", "--pid", "--mount-proc", "--kill-child", *shell.command]
    process = shell.start("run", "--", *python(code))
    assert process.stdout is not None
    assert process.stdout.readline() == "zombies 0\n"
    inner = int(subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True, check=True).stdout)
    os.kill(inner, signal.SIGTERM)
    process.communicate(timeout=10)
    assert process.returncode == 9


def test_stopped_while_booting(shell: ClientShell) -> None:
    """SIGTERM while MetaGate does not answer ends at once with 143, and nothing was started."""

    def silent(connection: socket.socket) -> None:
        connection.recv(1)

    shell.gate.script = [silent]
    process = shell.start("run", "--", "touch", "started")
    shell.gate.wait_for(1)
    process.send_signal(signal.SIGTERM)
    began = time.monotonic()
    _, err = process.communicate(timeout=10)
    assert time.monotonic() - began < 1
    assert process.returncode == 143
    assert err == "metagate: stopped by SIGTERM before the command was started\n"
    assert not (shell.folder / "started").exists()


@pytest.mark.invariant("EXT-31")
def test_without_metagate_the_default_fails_loudly(shell: ClientShell) -> None:
    """By default a MetaGate that is away means no start, within the bound."""
    shell.environ["METAGATE_URL"] = "http://127.0.0.1:9"
    began = time.monotonic()
    code, _, err = shell("run", "--timeout", "0.5", "--", "touch", "started")
    assert (code, err.count("\n")) == (3, 1)
    assert "--if-unavailable" in err
    assert time.monotonic() - began < 3
    assert not (shell.folder / "started").exists()


@pytest.mark.invariant("EXT-31")
def test_continue_starts_without_a_packet(shell: ClientShell) -> None:
    """By choice the command starts without a packet: no old one is left to be taken for it, and nothing is reported."""
    shell.environ |= {"METAGATE_URL": "http://127.0.0.1:9", "METAGATE_STARTUP_ID": "from-outside"}
    (shell.folder / "packet.json").write_text(json.dumps(PACKET))
    code, out, err = shell(
        "run", "--if-unavailable", "continue", "--timeout", "0.3", "--packet-file", "packet.json",
        "--env", "MEMORY=services.memorygate.endpoint", "--", "sh", "-c",
        'echo "$METAGATE_PACKET_STATE [$METAGATE_STARTUP_ID] [$MEMORY]"; ls; exit 6',
    )  # fmt: skip
    assert (code, out) == (6, "absent [] []\ntoken\n")
    assert "WITHOUT A PACKET" in err


@pytest.mark.invariant("EXT-31")
def test_cached_starts_with_the_last_packet_and_says_so(shell: ClientShell) -> None:
    """By choice the last packet is used, marked stale in the log, the environment and beside the file, never reported."""
    arguments = ("run", "--if-unavailable", "cached", "--timeout", "0.3", "--packet-file", "packet.json", "--")
    show = ("sh", "-c", 'echo "$METAGATE_PACKET_STATE [$METAGATE_STARTUP_ID]"; ls; exit 1')
    up = shell.environ["METAGATE_URL"]
    shell.environ["METAGATE_URL"] = "http://127.0.0.1:9"
    code, _, err = shell(*arguments, *show)
    assert code == 2
    assert "no packet from an earlier start" in err
    shell.environ["METAGATE_URL"] = up
    assert shell(*arguments, "true")[0] == 0
    requests = len(shell.gate.requests)
    shell.environ["METAGATE_URL"] = "http://127.0.0.1:9"
    code, out, err = shell(*arguments, *show)
    assert (code, out) == (1, "stale []\npacket.json\npacket.json.stale\ntoken\n")
    assert "STALE packet, issued at 2026-05-04T12:00:00Z" in err
    assert len(shell.gate.requests) == requests
    code, _, err = shell("ready", "--packet-file", "packet.json")
    assert code == 2
    assert "stale" in err
    shell.environ["METAGATE_URL"] = up
    assert shell(*arguments, "true")[0] == 0
    assert not (shell.folder / "packet.json.stale").exists()


@pytest.mark.parametrize("choice", ["continue", "cached"])
def test_a_refusal_is_never_continued_from(shell: ClientShell, choice: str) -> None:
    """MetaGate that says no is not away: whatever was chosen, a revoked component does not start."""
    (shell.folder / "packet.json").write_text(json.dumps(PACKET))
    shell.gate.script = [problem(403, "PRINCIPAL_SUSPENDED")]
    code, _, err = shell("run", "--if-unavailable", choice, "--packet-file", "packet.json", "--", "touch", "started")
    assert code == 1
    assert "PRINCIPAL_SUSPENDED" in err
    assert not (shell.folder / "started").exists()


def test_a_ready_that_cannot_be_told_yet_is_told_later(shell: ClientShell) -> None:
    """When MetaGate is away for a moment at READY time the command runs on, and READY is told when it is back."""
    shell.gate.script = [reply(), problem(503, "UNAVAILABLE"), problem(503, "UNAVAILABLE"), recorded("READY")]
    code, out, _ = shell("run", "--ready-after", "0", "--", "sh", "-c", "sleep 1; echo done")
    assert (code, out) == (0, "done\n")
    assert shell.gate.paths() == ["bootstrap", *["startup/ready"] * 3]


def test_missing_secrets_are_said_before_the_start(shell: ClientShell) -> None:
    """A required secret that is not there is a warning, and on demand a reason not to start, reported as FAILED."""
    del shell.environ["DB_PASSWORD"]
    code, _, err = shell("run", "--", "true")
    assert code == 0
    assert "Env DB_PASSWORD" in err
    code, _, err = shell("run", "--require-secrets", "--", "touch", "started")
    assert code == 2
    assert shell.gate.paths()[2:] == ["bootstrap", "startup/failed"]
    assert not (shell.folder / "started").exists()
    assert shell.gate.requests[-1].body["error"] == "the component is misconfigured"
    code, _, err = shell("run", "--require-secrets", "--report-reason", "--", "true")
    assert code == 2
    assert "required secrets are missing: Env DB_PASSWORD" in shell.gate.requests[-1].body["error"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--"],
        ["run"],
        ["run", "--env", "NOPATH=nothing.there", "--", "true"],
        ["run", "--env", "1X=a", "--", "true"],
        ["run", "--if-unavailable", "cached", "--", "true"],
        ["run", "--ready-port", "0", "--", "true"],
        ["run", "--ready-file", "a", "--ready-port", "1", "--", "true"],
        ["ready", "--startup-id", "x", "--health", "{"],
        ["failed", "--startup-id", "x"],
        ["bootstrap", "--if-unavailable", "sometimes"],
        ["nonsense"],
        [],
    ],
    ids=" ".join,
)
def test_what_cannot_be_understood_is_2(shell: ClientShell, arguments: list[str]) -> None:
    """A command line that cannot work ends with 2 and says why, without a stack."""
    code, _, err = shell(*arguments)
    assert code == 2
    assert "Traceback" not in err
    assert err


def test_run_costs_little(shell: ClientShell, capsys: pytest.CaptureFixture[str]) -> None:
    """What `run -- true` adds to a start: less than 60 ms of CPU over starting Python itself (best of several)."""

    def cpu(command: list[str]) -> float:
        best = 9.0
        for _ in range(7):
            before = resource.getrusage(resource.RUSAGE_CHILDREN)
            subprocess.run(command, env=shell.environ, check=True, capture_output=True, cwd=shell.folder)
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            best = min(best, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        return best

    plain = cpu([sys.executable, "-I", "-S", "-c", "pass"])
    run = cpu([*shell.command, "run", "--packet-file", "packet.json", "--", "true"])
    with capsys.disabled():
        print(
            f"\nmetagate run -- true: {(run - plain) * 1000:.0f} ms of CPU over python -c pass ({plain * 1000:.0f} ms)"
        )
    assert run - plain < 0.060
