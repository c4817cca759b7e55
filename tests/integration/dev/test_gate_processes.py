"""`metagate dev --with`: a process for each gate; what ends is started again, and nothing is left behind."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from tests.integration.dev.running import DeclaredFolder, Dev
from tests.integration.memorygate.ledger_fixture import free_port

pytestmark = pytest.mark.timeout(180)
GATES = ("memorygate", "asyncgate")


class SupervisedMachine:
    """A machine with two gates."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {gate: free_port() for gate in GATES}
        self.declared = DeclaredFolder(folder / "resources")
        self.dev = self.start()

    def start(self) -> Dev:
        environment = {f"{gate.upper()}_PORT": str(port) for gate, port in self.ports.items()}
        return Dev(self.declared.folder, self.folder / "data", "--with", "asyncgate", **environment)

    def is_ready(self, gate: str) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.ports[gate]}/readyz").status_code == 200
        except httpx.HTTPError:
            return False


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SupervisedMachine]:
    made = SupervisedMachine(tmp_path_factory.mktemp("supervised"))
    try:
        made.dev.ready()
        yield made
    finally:
        made.dev.stop()


def test_every_gate_is_ready_in_a_process_of_its_own_when_it_says_that_it_serves(machine: SupervisedMachine) -> None:
    assert all(machine.is_ready(gate) for gate in GATES)
    assert len({machine.dev.process.pid, *(machine.dev.child(gate).pid for gate in GATES)}) == 3
    assert [event["gate"] for event in machine.dev.events("serving_gate")] == list(GATES)


def test_no_password_stands_in_arguments_or_variables(machine: SupervisedMachine) -> None:
    """Settings with secrets go through a pipe."""
    for gate in GATES:
        process = machine.dev.child(gate)
        assert "postgresql://" not in " ".join([*process.cmdline(), *process.environ().values()])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_gate_that_ends_is_started_again(machine: SupervisedMachine, number: int) -> None:
    """One line says so, with a pause that is longer each time; the others go on, and so does MetaGate."""
    before, other = machine.dev.child("asyncgate"), machine.dev.child("memorygate").pid
    lines = len(machine.dev.events("gate_ended"))
    before.send_signal(number)
    machine.dev.until(lambda: len(machine.dev.events("gate_ended")) > lines, 30)
    machine.dev.until(lambda: machine.is_ready("asyncgate"), 60)
    [event] = machine.dev.events("gate_ended")[lines:]
    assert (event["gate"], event["code"]) == ("asyncgate", -number if number == signal.SIGKILL else 0)
    assert 0.5 * 2**lines <= event["again_after_seconds"] <= 2**lines
    assert machine.dev.child("asyncgate").pid != before.pid
    assert machine.dev.child("memorygate").pid == other
    assert machine.dev.bootstrap(machine.declared.key).status_code == 200


def test_ctrl_c_stops_all_in_order(machine: SupervisedMachine) -> None:
    """Gates first, PostgreSQL behind them; nothing is started again meanwhile."""
    children = psutil.Process(machine.dev.process.pid).children(recursive=True)
    lines = len(machine.dev.events("gate_ended"))
    assert machine.dev.stop(signal.SIGINT) == 0
    assert [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []
    assert len(machine.dev.events("gate_ended")) == lines
    log = (machine.folder / "data" / "postgres.log").read_text()
    assert "terminating connection due to administrator command" not in log


def test_nobody_is_left_when_the_parent_is_killed(machine: SupervisedMachine) -> None:
    """The last of this module: neither gates nor the database outlive kill -9, and the same data starts again."""
    if machine.dev.process.poll() is None:
        machine.dev.stop()
    machine.dev = machine.start().ready()
    children = psutil.Process(machine.dev.process.pid).children(recursive=True)
    assert len(children) > len(GATES)
    os.kill(machine.dev.process.pid, signal.SIGKILL)
    machine.dev.process.wait(20)
    _, alive = psutil.wait_procs(children, timeout=40)
    assert [child.cmdline() for child in alive if child.status() != psutil.STATUS_ZOMBIE] == []
    machine.dev = machine.start().ready()
    assert all(machine.is_ready(gate) for gate in GATES)


def test_a_port_that_is_taken_is_named(tmp_path: Path) -> None:
    """Before a database is made."""
    declared = DeclaredFolder(tmp_path / "resources")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        dev = Dev(declared.folder, tmp_path / "data", "--with", "memorygate", MEMORYGATE_PORT=str(port))
        assert dev.ended(60) == 3
    assert not (tmp_path / "data" / "pgdata").exists()
    assert dev.lines[-1] == (
        f"metagate: memorygate cannot listen on port {port} of 127.0.0.1 (Address already in use): choose another with "
        "MEMORYGATE_PORT"
    )


def test_a_gate_that_cannot_start_ends_the_machine(tmp_path: Path) -> None:
    """Its own line says why; nothing goes round and round."""
    declared = DeclaredFolder(tmp_path / "resources")
    dev = Dev(
        declared.folder, tmp_path / "data", "--with", "memorygate",
        MEMORYGATE_PORT=str(free_port()), MEMORYGATE_TLS_CERT="/nowhere.pem", MEMORYGATE_TLS_KEY="/nowhere.key",
    )  # fmt: skip
    assert dev.ended(90) == 3
    assert dev.lines[-1] == "metagate: memorygate ended with code 1 before it served; its last line says why"
    assert any("/nowhere.pem" in line for line in dev.lines)
    assert len(dev.events("gate_ended")) == 1
