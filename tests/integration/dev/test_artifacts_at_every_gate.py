"""All gates of `metagate dev --with all`, and an artifact that travels through them as a pointer: its bytes stay at DepotGate."""

import asyncio
import base64
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
from tests.canaries import canary, spellings
from tests.integration.dev.running import DeclaredFolder, Dev, principal
from tests.integration.memorygate.conftest import new_id
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint
from metagate_cli.gates import GATES

pytestmark = pytest.mark.timeout(120)

EVERY_GATE = ("metagate", *GATES)
OF_EACH = pytest.mark.parametrize("gate", EVERY_GATE)
CANARY = canary()
CONTENT = f"{CANARY} ".encode()
CEILINGS = [{"namespaces": ["*"], "authority": {"writeBeyondReceipts": True, "sinks": ["depotgate/output"]}}]
VIEWS = {"asyncgate": ("/queue/depth",), "memorygate": ("/v1/summary",), "metagate": ("/v1/summary",)}
"""What else is looked at beside `/health` and `/v1/interview`."""


@dataclass(frozen=True)
class EveryGate:
    """The gates by their names, who asks them, and what was done: an input, a task with its pointer, an output under its lease."""

    dev: Dev
    folder: DeclaredFolder
    data: Path
    urls: dict[str, str]
    keys: dict[str, str]

    def ask(self, who: str, method: str, gate: str, path: str, **more: Any) -> httpx.Response:
        headers = {"X-API-Key": self.keys[who], **more.pop("headers", {})}
        return httpx.request(method, self.urls[gate] + path, headers=headers, timeout=10, **more)

    def tables(self) -> dict[str, str]:
        """Every row of every table, as text, by schema and name."""

        async def read() -> dict[str, str]:
            password = json.loads((self.data / "passwords.json").read_text())["postgres"]
            port = int((self.data / "pgdata/postmaster.pid").read_text().splitlines()[3])
            connection = await asyncpg.connect(
                host="127.0.0.1", port=port, user="postgres", password=password, database="metagate"
            )
            try:
                names = await connection.fetch(
                    "SELECT schemaname, tablename FROM pg_tables WHERE schemaname NOT IN ('pg_catalog', 'information_schema')"
                )
                result = {}
                for row in names:
                    name = f"{row['schemaname']}.{row['tablename']}"
                    result[name] = await connection.fetchval(
                        f"SELECT coalesce(string_agg(t::text, E'\\n' ORDER BY t::text), '') FROM {name} AS t"
                    )
                return result
            finally:
                await connection.close()

        return asyncio.run(read())


@pytest.fixture(scope="module")
def gates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EveryGate]:
    root = tmp_path_factory.mktemp("every-gate")
    folder = DeclaredFolder(root / "resources")
    keys = {"admin": folder.admin}
    for name, kind in (("alice", "principal"), ("carl", "worker")):
        keys[name] = mint()
        folder.write(f"people/{name}.yaml", principal(name, keys[name], type=kind))
    (root / "ceilings.yaml").write_text(json.dumps(CEILINGS))
    ports = {name: free_port() for name in GATES}
    environment = {f"{name.upper()}_PORT": str(port) for name, port in ports.items()}
    environment["ASYNCGATE_CEILINGS_FILE"] = str(root / "ceilings.yaml")
    dev = Dev(folder.folder, root / "data", "--with", "all", **environment)
    try:
        dev.ready()
        urls = {"metagate": dev.url, **{name: f"http://127.0.0.1:{port}" for name, port in ports.items()}}
        for url in urls.values():
            dev.until(lambda url=url: httpx.get(f"{url}/readyz").status_code == 200, 30)  # type: ignore[misc]
        made = EveryGate(dev, folder, root / "data", urls, {name: key.key for name, key in keys.items()})
        assert dev.bootstrap(folder.key).status_code == 200
        yield made
    finally:
        assert dev.stop() == 0


@pytest.fixture(scope="module")
def pointers(gates: EveryGate) -> dict[str, str]:
    """An input with the canary, a task about it, an output with the canary under the task's lease, the task's end."""
    content = {"content": CONTENT * 64, "headers": {"Content-Type": "text/plain"}}
    answer = gates.ask("alice", "POST", "depotgate", "/artifacts?role=input&name=canary.txt", **content)
    assert answer.status_code == 201, answer.text
    given = answer.json()["pointer"]
    task = new_id()
    receipt = {
        "receipt_id": new_id(),
        "phase": "accepted",
        "task_id": task,
        "principal_ai": "alice",
        "recipient_ai": "svc:asyncgate",
    }
    assert gates.ask("alice", "POST", "memorygate", "/receipts", json=receipt).status_code == 201
    parked = {"task_id": task, "principal_ai": "alice", "payload_pointer": given, "authority": CEILINGS[0]["authority"]}
    answer = gates.ask("alice", "POST", "asyncgate", "/tasks", json=parked)
    assert answer.status_code == 201, answer.text
    leases = gates.ask("carl", "POST", "asyncgate", "/lease", json={"capabilities": ["default"]}).json()["leases"]
    lease = leases[0]["lease_id"]
    content = {"content": CONTENT * 32, "headers": {"Content-Type": "text/plain", "Legivellum-Lease": lease}}
    answer = gates.ask("carl", "POST", "depotgate", "/artifacts?role=output", **content)
    assert answer.status_code == 201, answer.text
    made = answer.json()["pointer"]
    claim = {
        "lease_id": lease, "status": "success", "outcome_kind": "artifact_pointer", "artifact_pointer": made,
        "artifact_location": answer.json()["location"], "artifact_mime": "text/plain",
    }  # fmt: skip
    answer = gates.ask("carl", "POST", "asyncgate", "/complete", json=claim)
    assert answer.status_code == 200, answer.text
    assert gates.ask("alice", "GET", "depotgate", f"/artifacts/{made}").content == CONTENT * 32
    return {"input": given, "output": made, "task": task}


@pytest.mark.invariant("INV-093")
@OF_EACH
def test_the_bytes_of_an_artifact_are_at_depotgate_alone(gates: EveryGate, pointers: dict[str, str], gate: str) -> None:
    """In no table and no metric of the gate, and in no line that anybody logged; the pointer is in the ledger."""
    kept = {name: text for name, text in gates.tables().items() if name.startswith(f"{gate}.")}
    # DeleGate and CogniGate have no tables: what they know is in the others'.
    assert bool(kept) == (gate not in {"delegate", "cognigate"})
    metrics = gates.ask("admin", "GET", gate, "/metrics").text
    for text in (*kept.values(), metrics, "\n".join(gates.dev.lines)):
        assert [spelling for spelling in spellings(CANARY) if spelling in text] == []
    if gate == "memorygate":
        receipts = "\n".join(kept.values())
        assert pointers["input"] in receipts
        assert pointers["output"] in receipts
    blobs = [
        path for path in (gates.data / "depot").rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()
    ]
    assert len(blobs) == 2


@pytest.mark.invariant("INV-093")
def test_other_gates_take_pointers_and_no_content(gates: EveryGate, pointers: dict[str, str]) -> None:
    """A task's payload cannot be the bytes themselves, and nobody but DepotGate emits receipts of artifacts."""
    inline = "data:text/plain;base64," + base64.b64encode(CONTENT).decode()
    task = {"task_id": new_id(), "principal_ai": "alice", "payload_pointer": inline}
    assert gates.ask("alice", "POST", "asyncgate", "/tasks", json=task).status_code == 422
    receipt = {
        "receipt_id": new_id(), "kind": "artifact", "phase": "stored", "task_id": pointers["task"], "principal_ai": "alice",
        "artifact_pointer": pointers["input"],
    }  # fmt: skip
    assert gates.ask("alice", "POST", "memorygate", "/receipts", json=receipt).status_code in {403, 422}


@pytest.mark.invariant("INV-094")
@OF_EACH
def test_no_gate_changes_an_artifact(gates: EveryGate, pointers: dict[str, str], gate: str) -> None:
    """Nothing replaces, amends or removes it, at DepotGate or elsewhere; its bytes are what they were."""
    pointer = pointers["input"]
    for method in ("PUT", "PATCH", "DELETE", "POST"):
        answer = gates.ask("admin", method, gate, f"/artifacts/{pointer}", content=b"other bytes")
        assert answer.status_code == (405 if gate == "depotgate" else 404), (method, answer.text)
    artifact_id = pointer.split(":")[1]
    again = gates.ask(
        "alice", "POST", "depotgate", f"/artifacts?role=input&artifact_id={artifact_id}", content=b"other bytes"
    )
    assert again.status_code == 409
    assert gates.ask("alice", "GET", "depotgate", f"/artifacts/{pointer}").content == CONTENT * 64


@pytest.mark.invariant("INV-095")
@OF_EACH
def test_looking_writes_nothing_at_any_gate(gates: EveryGate, pointers: dict[str, str], gate: str) -> None:
    """`/health`, `/v1/interview` and the gate's other views: no row of any table differs; other methods are refused."""
    assert pointers
    before = _settled(gates)
    for path in ("/health", "/v1/interview", *VIEWS.get(gate, ())):
        answer = gates.ask("admin", "GET", gate, path)
        assert answer.status_code == 200, answer.text
        for method in ("POST", "PUT", "DELETE"):
            assert gates.ask("admin", method, gate, path).status_code == 405, (method, path)
    interview = gates.ask("alice", "GET", gate, "/v1/interview").json()
    # CogniGate's has numbers alone, and asks for no credential.
    of_tenant = set() if gate == "cognigate" else {"tenant_id", "oldest", "notes"}
    assert {"gate", "version", "as_of", "counts"} | of_tenant <= interview.keys()
    assert interview["gate"] == gate
    assert _settled(gates) == before


def _settled(gates: EveryGate) -> dict[str, str]:
    """All tables once nothing moves any more; what the processes write about themselves by the clock left out."""
    reading: list[dict[str, str]] = []

    def is_still() -> bool:
        reading.append({name: text for name, text in gates.tables().items() if not OWN_CLOCK.search(name)})
        return len(reading) > 1 and reading[-1] == reading[-2]

    gates.dev.until(is_still, 15)
    return reading[-1]


OWN_CLOCK = re.compile(r"replica|heartbeat|lease_of_operator")
