"""`metagate dev --with delegate`, and what people type there: `legivellum plan`, `done`, `abandon`."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.dev.running import DeclaredFolder, Dev, principal, resource
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).resolve().parents[3]
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]
GATES = ("memorygate", "asyncgate", "depotgate", "delegate")


class Desk:
    """A machine with DeleGate, and people with keys: alice asks for plans, mara approves them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        declared = DeclaredFolder(folder / "resources")
        ports = {gate: free_port() for gate in GATES}
        self.urls = {gate: f"http://127.0.0.1:{port}" for gate, port in ports.items()}
        services = {gate: {"type": gate, "endpoint": url} for gate, url in self.urls.items()}
        declared.write("manifest.yaml", resource("Manifest", "world", {"deploymentKey": "d", "services": services}))
        for name, type_ in (("alice", "principal"), ("mara", "principal"), ("worker", "worker")):
            key = mint()
            declared.write(f"people/{name}.yaml", principal(name, key, type=type_))
            (folder / f"{name}.key").write_text(key.key)
        environment = {f"{gate.upper()}_PORT": str(port) for gate, port in ports.items()}
        self.dev = Dev(declared.folder, folder / "data", "--with", "delegate", **environment)
        self.declared = declared

    def legivellum(self, person: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """As a person, who knows where MetaGate is and finds the gates in its topology."""
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
        known = {"METAGATE_URL": self.dev.url, "METAGATE_API_KEY_FILE": str(self.folder / f"{person}.key")}
        return subprocess.run(
            [*PROGRAM, *arguments], env={**quiet, **known}, input=stdin, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def answer(self, person: str, *arguments: str, stdin: str = "", code: int = 0) -> object:
        done = self.legivellum(person, *arguments, "-o", "json", stdin=stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    made = Desk(tmp_path_factory.mktemp("plans"))
    try:
        made.dev.ready()
        assert made.dev.bootstrap(made.declared.key).status_code == 200
        yield made
    finally:
        made.dev.stop()


def test_the_example_is_a_plan(desk: Desk) -> None:
    """`plan check` finds DeleGate in the topology; the verdict names tasks, depth and digest, and nothing is written."""
    done = desk.legivellum("alice", "plan", "check", str(ROOT / "examples/plans/draft.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("valid: 3 tasks, depth 0, digest sha256:")
    body = json.loads((ROOT / "examples/plans/draft.json").read_text())
    assert desk.answer("alice", "plan", "check", "-", stdin=json.dumps(body))["valid"] is True  # type: ignore[index]


def test_each_finding_is_shown_with_its_line(desk: Desk) -> None:
    """Exit code 1; the line is that of the file."""
    text = (ROOT / "examples/plans/draft.yaml").read_text().replace("step: read", "step: raed")
    done = desk.legivellum("alice", "plan", "check", "-", stdin=text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "raed" in row)
    assert done.returncode == 1
    row = next(row for row in done.stdout.splitlines() if "UnknownStep" in row)
    assert row.split()[:2] == [str(line), "draft.steps[1].job.inputs[0].step"]


def test_the_principal_of_delegate_is_declared_once(desk: Desk) -> None:
    """As a file with the digest of a key that lies in the data directory, readable by its owner only."""
    [file] = (desk.folder / "resources").rglob("delegate.yaml")
    key = desk.folder / "data" / "delegate" / "default"
    assert "type: delegate" in file.read_text()
    assert key.read_text().strip() not in file.read_text()
    assert key.stat().st_mode & 0o777 == 0o600


def test_nobody_can_be_asked_where_there_is_no_terminal(desk: Desk) -> None:
    """A task of nobody's inbox is named as that; the inbox of who has nothing says so."""
    done = desk.legivellum("mara", "done")
    assert (done.returncode, done.stdout) == (0, "nothing waits for you\n")
    done = desk.legivellum("mara", "done", "no-such-task")
    assert done.returncode == 1
    assert "is not in your inbox" in done.stderr


def test_a_principal_of_another_type_is_left_as_it_is(tmp_path: Path) -> None:
    """`metagate dev` does not start, and says what DeleGate needs; the person's file is not touched."""
    declared = DeclaredFolder(tmp_path / "resources")
    file = declared.write("people/delegate.yaml", principal("delegate", mint(), type="worker"))
    before = file.read_text()
    environment = {f"{gate.upper()}_PORT": str(free_port()) for gate in GATES}
    dev = Dev(declared.folder, tmp_path / "data", "--with", "delegate", **environment)
    assert dev.ended(60) == 3
    assert "is declared with another type" in "\n".join(dev.lines)
    assert file.read_text() == before
