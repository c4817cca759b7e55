"""`metagate dev --with delegate`, and what people type there: `legivellum plan`, `done`, `abandon`."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from tests.integration.dev.running import DeclaredFolder, Dev, principal, resource
from tests.integration.memorygate.ledger_fixture import free_port

from legivellum.identity.api_keys import mint
from legivellum_worker.ulids import new_ulid

pytestmark = pytest.mark.timeout(180)
ROOT = Path(__file__).resolve().parents[3]
PROGRAM = [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()"]
GATES = ("memorygate", "asyncgate", "depotgate", "delegate")


class PlanDesk:
    """A machine with DeleGate, and people with keys: alice asks for plans, mara approves them."""

    def __init__(self, folder: Path, *more: str) -> None:
        """`more`: gates that are served beside those that plans need."""
        self.folder = folder
        declared = DeclaredFolder(folder / "resources")
        ports = {gate: free_port() for gate in (*GATES, *more)}
        self.urls = {gate: f"http://127.0.0.1:{port}" for gate, port in ports.items()}
        services = {gate: {"type": gate, "endpoint": url} for gate, url in self.urls.items()}
        declared.write("manifest.yaml", resource("Manifest", "world", {"deploymentKey": "d", "services": services}))
        for name, type_ in (("alice", "principal"), ("bob", "principal"), ("mara", "principal"), ("worker", "worker")):
            key = mint()
            declared.write(f"people/{name}.yaml", principal(name, key, type=type_))
            (folder / f"{name}.key").write_text(key.key)
        environment = {f"{gate.upper()}_PORT": str(port) for gate, port in ports.items()}
        self.dev = Dev(declared.folder, folder / "data", "--with", ",".join(("delegate", *more)), **environment)
        self.declared = declared

    def legivellum(
        self, person: str, *arguments: str, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """As a person, who knows where MetaGate is and finds the gates in its topology."""
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
        known = {"METAGATE_URL": self.dev.url, "METAGATE_API_KEY_FILE": str(self.folder / f"{person}.key")}
        return subprocess.run(
            [*PROGRAM, *arguments], env={**quiet, **known, **environment}, input=stdin, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip

    def answer(self, person: str, *arguments: str, stdin: str = "", code: int = 0) -> Any:
        done = self.legivellum(person, *arguments, "-o", "json", stdin=stdin)
        assert done.returncode == code, (done.stdout, done.stderr)
        return json.loads(done.stdout)

    def headers(self, person: str) -> dict[str, str]:
        return {"X-API-Key": (self.folder / f"{person}.key").read_text()}

    def receipts(self, task: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{self.urls['memorygate']}/receipts/task/{task}", headers=self.headers("alice"))
        return list(answer.json()["items"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PlanDesk]:
    made = PlanDesk(tmp_path_factory.mktemp("plans"))
    try:
        made.dev.ready()
        assert made.dev.bootstrap(made.declared.key).status_code == 200
        yield made
    finally:
        made.dev.stop()


def test_the_example_is_a_plan(desk: PlanDesk) -> None:
    """`plan check` finds DeleGate in the topology; the verdict names tasks, depth and digest, and nothing is written."""
    done = desk.legivellum("alice", "plan", "check", str(ROOT / "examples/plans/draft.yaml"))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("valid: 3 tasks, depth 0, digest sha256:")
    body = json.loads((ROOT / "examples/plans/draft.json").read_text())
    assert desk.answer("alice", "plan", "check", "-", stdin=json.dumps(body))["valid"] is True


def test_each_finding_is_shown_with_its_line(desk: PlanDesk) -> None:
    """Exit code 1; the line is that of the file."""
    text = (ROOT / "examples/plans/draft.yaml").read_text().replace("step: read", "step: raed")
    done = desk.legivellum("alice", "plan", "check", "-", stdin=text)
    line = next(number for number, row in enumerate(text.splitlines(), 1) if "raed" in row)
    assert done.returncode == 1
    row = next(row for row in done.stdout.splitlines() if "UnknownStep" in row)
    assert row.split()[:2] == [str(line), "draft.steps[1].job.inputs[0].step"]


def test_the_principal_of_delegate_is_declared_once(desk: PlanDesk) -> None:
    """As a file with the digest of a key that lies in the data directory, readable by its owner only."""
    [file] = (desk.folder / "resources").rglob("delegate.yaml")
    key = desk.folder / "data" / "delegate" / "default"
    assert "type: delegate" in file.read_text()
    assert key.read_text().strip() not in file.read_text()
    assert key.stat().st_mode & 0o777 == 0o600


def test_nobody_can_be_asked_where_there_is_no_terminal(desk: PlanDesk) -> None:
    """A task of nobody's inbox is named as that; the inbox of who has nothing says so."""
    done = desk.legivellum("mara", "done")
    assert (done.returncode, done.stdout) == (0, "nothing waits for you\n")
    done = desk.legivellum("mara", "done", "no-such-task")
    assert done.returncode == 1
    assert "is not in your inbox" in done.stderr


LETTERS = str(ROOT / "examples/plans/letters-mended.yaml")
DRAFT = str(ROOT / "examples/plans/draft.yaml")


def test_a_plan_is_sent_once_and_refused_by_its_approver(desk: PlanDesk) -> None:
    """Sent again under its id it is the same plan. Nobody decides without being asked; what is refused mints nothing."""
    sent = desk.answer("alice", "plan", "send", LETTERS)
    plan = sent["plan_id"]
    assert sent["phase"] == "held"
    assert desk.answer("alice", "plan", "send", LETTERS, "--id", plan) == sent
    inbox = desk.answer("mara", "done")
    assert [item["obligation_id"] for item in inbox] == [f"{plan}:approval"]
    asked = desk.legivellum("mara", "done", plan)
    assert asked.returncode == 2
    assert sent["plan_digest"] in asked.stdout
    assert "say --yes" in asked.stderr
    assert desk.answer("mara", "done") == inbox
    refused = desk.answer("mara", "done", plan, "--fail", "--text", "not like this", "--yes")
    assert refused["phase"] == "closed"
    receipts = desk.receipts(plan)
    [decision] = [receipt for receipt in receipts if receipt["emitter"] == "mara"]
    assert (decision["status"], decision["outcome_text"]) == ("failure", "not like this")
    assert decision["metadata"] == {"plan_digest": sent["plan_digest"]}
    assert [receipt["status"] for receipt in receipts if receipt["obligation_id"] == plan][-1] == "canceled"
    assert desk.receipts(f"{plan}.read") == []


@pytest.mark.invariant("INV-082")
def test_an_abandoned_plan_ends_once_and_its_tasks_are_revoked(desk: PlanDesk) -> None:
    """Repeated it is the same end; a plan that ended otherwise is over, exit code 1."""
    plan = desk.answer("alice", "plan", "send", DRAFT)
    assert plan["phase"] == "running"
    refused = desk.legivellum("bob", "abandon", plan["plan_id"], "--yes")
    assert (refused.returncode, "ROLE_REQUIRED" in refused.stderr) == (1, True)
    first = desk.answer("alice", "abandon", plan["plan_id"], "--reason", "the customer called", "--yes")
    assert first["end"]["status"] == "canceled"
    assert first["revoked"] == [step["task_id"] for step in plan["steps"]]
    again = desk.answer("alice", "abandon", plan["plan_id"], "--yes")
    assert (again["end"]["receipt_id"], again["revoked"]) == (first["end"]["receipt_id"], first["revoked"])
    held = desk.answer("alice", "plan", "send", LETTERS)["plan_id"]
    desk.answer("mara", "done", held, "--fail", "--yes")
    over = desk.legivellum("alice", "abandon", held, "--yes")
    assert (over.returncode, "was over already" in over.stdout) == (1, True)


def test_who_was_asked_to_approve_an_abandoned_plan_ends_the_question(desk: PlanDesk) -> None:
    """Only its custodian can; no approval is recorded of a plan that is over, and nobody is told that one was."""
    plan = desk.answer("alice", "plan", "send", LETTERS)["plan_id"]
    abandoned = desk.legivellum("alice", "abandon", plan, "--yes")
    assert abandoned.stdout.splitlines()[1:] == [
        "revoked: nothing, the plan had no tasks",
        f"{plan}:approval stays open until its approver ends it (`legivellum done`)",
    ]
    ended = desk.legivellum("mara", "done", plan, "--yes")
    assert (ended.returncode, ended.stdout.splitlines()[0]) == (0, f"plan {plan} is over: there is nothing to approve")
    assert "approved" not in ended.stdout + ended.stderr
    receipts = [receipt for receipt in desk.receipts(plan) if receipt["obligation_id"] == f"{plan}:approval"]
    assert [(receipt["emitter"], receipt["status"]) for receipt in receipts] == [
        ("delegate", "NA"),
        ("mara", "canceled"),
    ]
    assert "plan_digest" not in receipts[-1]["metadata"]
    assert plan not in desk.legivellum("mara", "done").stdout


@pytest.mark.parametrize(("arguments", "status"), [((), "success"), (("--fail",), "failure")])
def test_what_waits_for_a_person_is_ended_by_its_custodian(
    desk: PlanDesk, arguments: tuple[str, ...], status: str
) -> None:
    """By its task; the text is in the receipt, which is caused by the one that gave custody."""
    task, receipt_id = f"ask-{status}", new_ulid()
    opening = {
        "receipt_id": receipt_id,
        "phase": "accepted",
        "task_id": task,
        "principal_ai": "alice",
        "recipient_ai": "mara",
    }
    posted = httpx.post(f"{desk.urls['memorygate']}/receipts", json=opening, headers=desk.headers("alice"))
    assert posted.status_code == 201, posted.text
    assert task in desk.legivellum("mara", "done").stdout
    ended = desk.legivellum("mara", "done", task, "--text", "refund 400 EUR", *arguments)
    assert ended.returncode == 0, ended.stderr
    receipt = desk.receipts(task)[-1]
    assert (receipt["emitter"], receipt["status"], receipt["outcome_text"]) == ("mara", status, "refund 400 EUR")
    assert receipt["caused_by_receipt_id"] == receipt_id
    assert task not in desk.legivellum("mara", "done").stdout


def test_a_file_that_is_no_plan_is_refused_with_its_findings(desk: PlanDesk) -> None:
    """`plan send` writes nothing, shows the lines as `plan check` does, and exits with 1."""
    refused = desk.legivellum("alice", "plan", "send", str(ROOT / "examples/plans/letters.yaml"))
    assert refused.returncode == 1
    assert "12    draft.steps[1].job.inputs[0].step  UnknownStep" in refused.stderr
    assert "4 findings (INVALID_PLAN)" in refused.stderr


def test_a_gate_that_is_away_is_named_and_the_plan_can_be_repeated(desk: PlanDesk) -> None:
    """Exit code 3, and the id under which the same plan is sent again."""
    environment = {"METAGATE_DELEGATE_URL": f"http://127.0.0.1:{free_port()}"}
    done = desk.legivellum("alice", "plan", "send", DRAFT, **environment)
    assert done.returncode == 3
    assert "does not answer" in done.stderr
    plan = done.stderr.partition("--id ")[2].split()[0]
    assert desk.answer("alice", "plan", "send", DRAFT, "--id", plan)["plan_id"] == plan


def test_where_admission_is_required_a_plan_goes_through_interrogate(tmp_path: Path) -> None:
    """By the policy that docs/delegate/operations.md shows: the plan is the admitted task; who is not admitted is told why."""
    desk = PlanDesk(tmp_path, "interrogate")
    page = (ROOT / "docs/delegate/operations.md").read_text()
    [policy] = [block for block in re.findall(r"```yaml\n(.*?)```", page, re.DOTALL) if "kind: PolicyProfile" in block]
    declared = yaml.safe_load(policy)
    declared["apiVersion"], declared["metadata"] = "metagate.legivellum.io/v1alpha1", {"name": "default"}
    public = next(surface for surface in declared["spec"]["surfaces"] if surface["surfaceId"] == "public")
    public["principals"] = ["alice"]
    public["targets"][0]["url"] = f"{desk.urls['delegate']}/intents/default"
    desk.declared.write("policy.yaml", yaml.safe_dump(declared))
    try:
        desk.dev.ready()
        assert desk.dev.bootstrap(desk.declared.key).status_code == 200
        desk.dev.until(lambda: httpx.get(f"{desk.urls['delegate']}/readyz").status_code == 200, 30)
        plan = desk.answer("alice", "plan", "send", DRAFT)
        assert plan["phase"] == "running"
        receipts = desk.receipts(plan["plan_id"])
        assert [receipts[0][name] for name in ("emitter", "kind", "phase")] == [
            "svc:interrogate",
            "admission",
            "accepted",
        ]
        assert desk.receipts(plan["steps"][0]["task_id"])[0]["kind"] == "admission"
        denied = desk.legivellum("bob", "plan", "send", DRAFT)
        assert denied.returncode == 1
        assert "InterroGate denied it: UNAUTHORIZED" in denied.stderr
    finally:
        desk.dev.stop()


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
