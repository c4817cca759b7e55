"""Where a worker finds AsyncGate, and what it says where it cannot."""

import re
from pathlib import Path

import pytest

from legivellum_worker import Work, Worker, WorkerSettings
from legivellum_worker.leased_work import WorkerLease, boot_clock
from metagate_client.errors import MisconfiguredError
from metagate_client.packet import Packet

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


def test_headers_are_those_of_the_gate_that_is_called(tmp_path: Path) -> None:
    """A token is good for the gate of its audience: an MCP client gets InterroGate's, where it is known."""
    environ = {}
    for gate in ("asyncgate", "interrogate", "depotgate"):
        (tmp_path / gate).write_text(f"token-{gate}")
        environ[f"METAGATE_{gate.upper()}_URL"] = f"http://{gate}"
        environ[f"METAGATE_{gate.upper()}_TOKEN_FILE"] = str(tmp_path / gate)
    task = {"task_id": "t", "payload_pointer": "x"}
    lease = WorkerLease({"lease_id": "L-1", "number": 1, "expires_in_ms": 1, "task": task}, boot_clock())
    work = Work(lease, WorkerSettings(environ=environ))
    assert work.headers == {"Authorization": "Bearer token-interrogate", "Legivellum-Lease": "L-1"}
    assert work.headers_for("depotgate")["Authorization"] == "Bearer token-depotgate"
    with pytest.raises(MisconfiguredError, match="METAGATE_DELEGATE_URL"):
        work.headers_for("delegate")
    del environ["METAGATE_INTERROGATE_URL"]
    assert Work(lease, WorkerSettings(environ=environ)).headers["Authorization"] == "Bearer token-asyncgate"
