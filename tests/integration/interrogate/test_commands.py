"""The commands of InterroGate beside `serve`, as a person types them: explain, replay, verify on a real ledger."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.gate_fixture import OPEN_POLICY, PublishedWorld, serving_interrogate
from tests.integration.memorygate.conftest import new_id

COMMAND = "from interrogate.main import main; main()"


async def interrogate(*arguments: str, database: str | None = None) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    environment = {name: value for name, value in os.environ.items() if "DATABASE_URL" not in name}  # noqa: TID251
    environment["COLUMNS"] = "80"
    if database is not None:
        environment["INTERROGATE_DATABASE_URL"] = database
    done = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-c", COMMAND, *arguments], env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


async def decided(database: AdmissionDatabase) -> dict[str, Any]:
    """An admitted root, and a child that was denied."""
    world = PublishedWorld(database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": OPEN_POLICY})
    async with serving_interrogate(world) as gate:
        alice = await gate.awaited(gate.requesting(principal))
        root = (await alice.evaluate()).json()
        denied = (await alice.evaluate(alice.child(root, causality={"capability_id": "mail.send"}))).json()
    return {"root": root, "denied": denied}


async def test_a_decision_is_explained_replayed_and_verified(
    admission_database: AdmissionDatabase, tmp_path: Path
) -> None:
    """As the auditor, who reads and writes nothing; another policy says what would have been."""
    decisions = await decided(admission_database)
    auditor = admission_database.ledger.auditor
    code, out, _ = await interrogate("explain", decisions["denied"]["receipt_id"], database=auditor)
    assert code == 0
    assert "DENY CAPABILITY_DENIED" in out
    assert "11 CAPABILITY_DENIED      FAILED" in out
    code, out, error = await interrogate("replay", "--root", decisions["root"]["root_task_id"], database=auditor)
    assert (code, "0 not the same" in out) == (0, True), out + error
    stricter = {**OPEN_POLICY, "surfaces": []}
    policy = tmp_path / "policy.yaml"
    policy.write_text(yaml.safe_dump({"metadata": {"name": "strict"}, "spec": stricter}))
    code, out, _ = await interrogate("replay", "--policy", str(policy), database=auditor)
    assert code == 0
    assert "ALLOW -> DENY SURFACE_NOT_FOUND" in out
    code, out, error = await interrogate("verify", database=auditor)
    assert (code, error) == (0, "")
    assert "decisions" in out


async def test_what_is_not_there_or_not_understood_is_one_line(
    admission_database: AdmissionDatabase, tmp_path: Path
) -> None:
    auditor = admission_database.ledger.auditor
    code, _, error = await interrogate("explain", new_id(), database=auditor)
    assert (code, error.count("\n")) == (1, 1)
    code, _, error = await interrogate("explain", "nothing")
    assert code == 2
    assert "'nothing' is no file here; for a receipt of the ledger name --database-url" in " ".join(error.split())
    code, _, error = await interrogate("test", str(tmp_path / "absent.yaml"))
    assert (code, error) == (3, f"interrogate: {tmp_path / 'absent.yaml'}: No such file or directory\n")
    prose = tmp_path / "prose.yaml"
    prose.write_text("# cases\n\n**not YAML**\n")
    code, _, error = await interrogate("test", str(prose))
    assert (code, error.count("\n")) == (1, 1)
    assert error.startswith(f"interrogate: {prose}: is not YAML: line 3, column 2: ")
    broken = tmp_path / "cases.yaml"
    broken.write_text("policy: {limits: {}}\ncases: []\n")
    code, _, error = await interrogate("test", str(broken))
    assert (code, error.count("\n")) == (1, 1)
    code, _, error = await interrogate("replay", database="postgresql://nobody@127.0.0.1:1/nowhere")
    assert (code, error.count("\n")) == (3, 1)


async def test_the_help_of_every_command_fits_a_terminal() -> None:
    """In 80 columns no line is wider, and what a command does is not cut off in the list of them."""
    _, listed, _ = await interrogate("--help")
    commands = [line.split()[0] for line in listed.partition("Commands:\n")[2].splitlines()]
    assert commands == ["serve", "migrate", "test", "explain", "replay", "verify", "calls", "tools"]
    assert "..." not in listed.partition("Commands:\n")[2]
    _, listed, _ = await interrogate("tools", "--help")
    assert "..." not in listed.partition("Commands:\n")[2]
    for command in (*([name] for name in commands), ["tools", "pin"], ["tools", "diff"]):
        code, shown, _ = await interrogate(*command, "--help")
        assert (code, max(map(len, shown.splitlines())) <= 80) == (0, True), shown


async def test_cases_are_decided_and_written_for_ci(tmp_path: Path) -> None:
    """Exit code 1 where one is not as expected; JUnit's file has it too."""
    root = {
        "tenant_id": "t",
        "surface_id": "public",
        "policy_profile_id": "strict",
        "payload_kind": "task",
        "payload": 1,
    }
    causality = {"root_task_id": "r", "parent_task_id": None, "caused_by_receipt_id": None, "spawn_depth": 0}
    case = {
        "name": "mail is denied",
        "envelope": {**root, "causality": {**causality, "capability_id": "mail.send"}},
        "caller": {"principal_key": "alice", "type": "principal"},
        "expect": {"outcome": "ALLOW"},
    }
    file, results = tmp_path / "cases.yaml", tmp_path / "results.xml"
    file.write_text(json.dumps({"policy": OPEN_POLICY, "cases": [case]}))
    code, out, _ = await interrogate("test", str(file), "--junit", str(results))
    assert code == 1
    assert "mail is denied" in out
    assert "CAPABILITY_DENIED" in results.read_text()
    code, out, _ = await interrogate("explain", str(file))
    assert code == 0
    assert "mail is denied: DENY CAPABILITY_DENIED" in out
