"""`make demo`: every gate on one machine, one story from an MCP call to an artifact, and exactly its receipts."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.docs.typed_page import TypedPage, blocks, steady
from tests.integration.console.visiting import Visitor
from tests.integration.memorygate.ledger_fixture import free_port

from metagate_cli.demo_receipts import EXPECTED, differences

pytestmark = [pytest.mark.timeout(180), pytest.mark.slow]
ROOT = Path(__file__).resolve().parents[3]
DEMO = (sys.executable, "-m", "metagate_cli.main", "demo")
PAGE = ROOT / "docs" / "tutorial" / "mcp-to-artifact.md"
GATES = ("metagate", "memorygate", "asyncgate", "depotgate", "delegate", "interrogate", "cognigate")
"""In the order of their default ports, from 8000 on."""
WRITES = os.environ.get("DEMO_PAGE") == "write"  # noqa: TID251 - a developer's, who wants the page written anew


class DemoRun:
    """What `make demo` runs, until it says what to do next; `output` is all that it has printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "demo"
        self.ports = {gate: free_port() for gate in GATES}
        quiet = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "LLM_"))}  # noqa: TID251
        self.environment = {**quiet, **{f"{gate.upper()}_PORT": str(port) for gate, port in self.ports.items()}}
        self.process = subprocess.Popen(
            [*DEMO, "--directory", str(self.folder)], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True,
        )  # fmt: skip
        self.output = ""

    def until(self, beginning: str) -> "DemoRun":
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line
            if line.startswith(beginning):
                return self
        raise AssertionError(self.output)

    def url(self, gate: str) -> str:
        return f"http://127.0.0.1:{self.ports[gate]}"

    def get(self, gate: str, path: str, principal: str = "ida") -> httpx.Response:
        key = (self.folder / "data" / "keys" / f"{principal}.key").read_text().strip()
        return httpx.get(f"{self.url(gate)}{path}", headers={"X-API-Key": key}, timeout=20)

    def legivellum(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """As its last lines tell a person to type it."""
        quiet = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
        return subprocess.run(
            [sys.executable, "-c", "from metagate_cli.main import legivellum; legivellum()", *arguments,
             "--url", self.url("metagate"), "--key-file", str(self.folder / "data" / "keys" / "ida.key")],
            env=quiet, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip

    @property
    def is_stopped(self) -> bool:
        return self.process.stdout is None or self.process.stdout.closed

    def stop(self) -> int:
        """As Ctrl-C does: the signal goes to all that was started in this session."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)
        assert self.process.stdout is not None
        with self.process.stdout as stdout:
            self.output += stdout.read()
        return self.process.wait(60)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoRun]:
    run = DemoRun(tmp_path_factory.mktemp("demo"))
    try:
        yield run.until("MCP ")
    finally:
        if not run.is_stopped:
            run.stop()


def receipts_of(demo: DemoRun, task_id: str) -> list[dict[str, Any]]:
    return list(demo.get("memorygate", f"/receipts/root/{task_id}?limit=500", "observer").json()["items"])


@pytest.mark.parametrize(("arguments", "command"), [([], "metagate demo"), (["ONCE=1"], "metagate demo --once")])
def test_make_runs_it(arguments: list[str], command: str) -> None:
    # The suite is itself run by make, whose variables would have this one print the directories that it enters.
    outside = {name: value for name, value in os.environ.items() if not name.startswith(("MAKE", "MFLAGS"))}  # noqa: TID251
    done = subprocess.run(
        ["make", "-n", "demo", *arguments], cwd=ROOT, env=outside, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1].split() == [".venv/bin/metagate", *command.split()[1:]]


def test_it_says_first_that_no_model_is_asked(demo: DemoRun) -> None:
    """And starts within the 20 seconds that are promised; this machine may be busy, so the number is only printed."""
    lines = demo.output.splitlines()
    assert "which is not a language model" in lines[1]
    assert re.search(r"^Every gate answers after \d+\.\d s\.$", demo.output, re.MULTILINE)


def test_the_ledger_holds_exactly_the_table(demo: DemoRun) -> None:
    """33 receipts of the plan, one of each input: emitter, kind, phase, task, obligation, cause."""
    [plan_id] = re.findall(r"^asked .*task (\S+)$", demo.output, re.MULTILINE)
    pointers = re.findall(r"^deposited .*: depot:(\S+):", demo.output, re.MULTILINE)
    artifacts = demo.get("depotgate", "/artifacts?role=input").json()["items"]
    inputs = [artifact["receipt_id"] for artifact in artifacts if artifact["pointer"].split(":")[1] in pointers]
    roots = [demo.get("memorygate", f"/receipts/{receipt}").json()["task_id"] for receipt in inputs]
    input_receipts = [receipt for root in roots for receipt in receipts_of(demo, root)]
    receipts = receipts_of(demo, plan_id)
    assert (len(receipts), len(input_receipts)) == (33, 2)
    assert differences(receipts, input_receipts, plan_id) == []
    assert "receipts   33 of the plan and 2 inputs, as they must be" in demo.output


def test_the_report_is_the_artifact_of_the_end(demo: DemoRun) -> None:
    [pointer] = re.findall(r"^fetched .*: (depot:\S+)$", demo.output, re.MULTILINE)
    report = demo.get("depotgate", f"/artifacts/{pointer}").text
    assert "Extracted by builtin/extract-1, which is not a language model." in report
    assert report.strip() in demo.output
    assert "chart" in report


async def test_the_story_has_a_page(demo: DemoRun) -> None:
    """At the ledger, which runs beside it: the observer signs in and reads of all 33."""
    [address] = re.findall(r"^story +(\S+)$", demo.output, re.MULTILINE)
    assert address.startswith(f"{demo.url('memorygate')}/console/tasks/")
    key = (demo.folder / "data" / "keys" / "observer.key").read_text().strip()
    async with Visitor(demo.url("memorygate")) as visitor:
        await visitor.inside(key)
        page = await visitor.page(address.removeprefix(demo.url("memorygate")))
    assert "Receipts 33" in page
    assert "nothing is open" in page


def test_it_can_be_told_again(demo: DemoRun) -> None:
    """Only addresses and a credential are needed; the topology names the gates."""
    done = demo.legivellum("demo", "-o", "json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert (document["receipts"], document["differences"], document["models"]) == (35, [], ["builtin/extract-1"])
    assert document["compliance"]["findings"] == []
    assert document["plan_id"] not in demo.output
    receipts = receipts_of(demo, document["plan_id"])
    assert len(receipts) == len(EXPECTED)


def test_what_cannot_be_reviewed_is_named(demo: DemoRun) -> None:
    """A third document is no demo; a file that is not there is named."""
    documents = demo.folder / "resources" / "documents"
    one = str(documents / "harbour.txt")
    assert demo.legivellum("demo", one, one, one).returncode == 2
    missing = demo.legivellum("demo", one, str(documents / "gone.txt"))
    assert (missing.returncode, missing.stderr) == (1, f"legivellum: {documents}/gone.txt: No such file or directory\n")


def test_the_people_of_the_demo_have_keys_of_their_own(demo: DemoRun) -> None:
    for name in ("ida", "observer", "operator-on-call"):
        file = demo.folder / "data" / "keys" / f"{name}.key"
        assert file.stat().st_mode & 0o777 == 0o600
        assert demo.get("memorygate", "/inbox", name).status_code == 200


def steady_lines(text: str) -> list[str]:
    """As `steady`, and what runs at the same time in any order: two readings take their turns."""
    text = re.sub(r"^\d\d:\d\d:\d\d", "<clock>", text, flags=re.MULTILINE)
    text = re.sub(r"after \d+\.\d s", "after <seconds>", text)
    text = re.sub(r"descendants \d+", "descendants <number>", text)
    text = re.sub(r"(?<= )\d[\d,.]*(?=  |$)", "<number>", text, flags=re.MULTILINE)
    text = re.sub(r"needs (\S+), (\S+)", lambda needs: "needs " + ", ".join(sorted(needs.groups())), text)
    return sorted(steady(text))


def test_the_tutorial_is_typed(demo: DemoRun, tmp_path: Path) -> None:
    """docs/tutorial/mcp-to-artifact.md, line by line, beside what `make demo` printed; the task on the page is this one."""
    text = PAGE.read_text(encoding="utf-8")
    ports = {str(8_000 + number): str(demo.ports[gate]) for number, gate in enumerate(GATES)}
    page = TypedPage(tmp_path, ports)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / ".metagate").mkdir()
    (tmp_path / ".metagate" / "demo").symlink_to(demo.folder)
    (made, printed), *typed = blocks(text)
    assert made == ["make demo"]
    [task] = re.findall(r"^asked .*task (\S+)$", demo.output, re.MULTILINE)
    [shown_task] = set(re.findall(r"(?:explain|--root) (01[0-9A-Z]{24})", text))
    output = page.shown(demo.output).replace(str(demo.folder), ".metagate/demo")
    written = text.replace(f"$ make demo\n{printed and printed + chr(10)}```", f"$ make demo\n{output}```")
    try:
        for commands, shown in typed:
            answer = "".join(page.type(command.replace(shown_task, task)) for command in commands)
            if WRITES:
                lines = "".join(f"$ {command}\n" for command in commands)
                written = written.replace(f"{lines}{shown and shown + chr(10)}```", f"{lines}{page.shown(answer)}```")
            else:
                assert steady_lines(answer) == steady_lines(page.here(shown)), answer
        if WRITES:
            PAGE.write_text(written.replace(shown_task, task), encoding="utf-8")
        else:
            assert steady_lines(output) == steady_lines(printed), output
    finally:
        page.close()


def test_ctrl_c_stops_it_and_once_ends_by_itself(demo: DemoRun) -> None:
    """The last of this module. The same folder again: --once exits 0 when the story was told; no log is on the terminal."""
    assert demo.stop() == 0
    again = subprocess.run(
        [*DEMO, "--once", "--directory", str(demo.folder)], env=demo.environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip
    assert again.returncode == 0, again.stdout + again.stderr
    assert again.stdout.startswith("Using ")
    assert "as they must be" in again.stdout
    assert again.stderr == ""
