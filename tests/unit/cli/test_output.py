"""The same four forms at every command, colour where somebody sees it, progress where somebody waits."""

import json
import os
import pty
import sys
from pathlib import Path

import pytest
import yaml
from tests.unit.cli.running import metagate

from metagate_cli.output import table

QUICKSTART = "examples/quickstart"
PACKET = ("compile", QUICKSTART, "--principal", "indexer", "--component", "indexer_1")


@pytest.fixture(scope="module")
def draft(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The quickstart with another region."""
    file = tmp_path_factory.mktemp("draft") / "manifest.yaml"
    file.write_text((Path(QUICKSTART) / "manifest.yaml").read_text().replace("eu-central", "eu-north"))
    return file


def test_yaml_is_the_json(draft: Path) -> None:
    """Of each command that prints data, the two forms hold the same."""
    for command in (("validate", QUICKSTART), ("plan", str(draft), "--against", QUICKSTART, "--no-prune")):
        answer = [metagate(*command, "-o", form).stdout for form in ("json", "yaml")]
        assert json.loads(answer[0]) == yaml.safe_load(answer[1])
    packets = [metagate(*PACKET, "-o", form).stdout for form in ("json", "yaml")]
    assert json.loads(packets[0])["services"] == yaml.safe_load(packets[1])["services"]


def test_wide_leaves_nothing_out(tmp_path: Path) -> None:
    """A long value is cut in the table, with its length, and whole in the wide one."""
    long = "x" * 3_000
    manifest = (Path(QUICKSTART) / "manifest.yaml").read_text().replace("eu-central", long)
    (tmp_path / "manifest.yaml").write_text(manifest)
    plan = ("plan", str(tmp_path), "--against", QUICKSTART, "--no-prune", "-o")
    assert long not in (table := metagate(*plan, "table").stdout)
    assert "… (3002 characters)" in table
    assert long in metagate(*plan, "wide").stdout


def at_a_terminal(*arguments: str, **environment: str) -> str:
    """What a person sees of a command."""
    return _at_a_terminal([sys.executable, "-m", "metagate_cli.main", *arguments], **environment)


def _at_a_terminal(command: list[str], **environment: str) -> str:
    pid, terminal = pty.fork()
    if pid == 0:
        surroundings = {**os.environ, "TERM": "xterm", **environment}  # noqa: TID251
        if not environment.get("NO_COLOR"):
            surroundings.pop("NO_COLOR", None)
        os.execve(command[0], command, surroundings)
    observations = b""
    while True:
        try:
            read = os.read(terminal, 65_536)
        except OSError:  # how a terminal says that nobody is at its other end
            break
        if not read:
            break
        observations += read
    os.close(terminal)
    os.waitpid(pid, 0)
    return observations.decode()


def test_colour_is_for_terminals(draft: Path) -> None:
    """On one, additions are green and removals red; NO_COLOR and TERM=dumb are plain, and so is a pipe."""
    plan = ("plan", str(draft), "--against", QUICKSTART, "--no-prune")
    observations = at_a_terminal(*plan)
    assert '\x1b[32m  + /environment/region: "eu-north"\x1b[0m' in observations
    assert '\x1b[31m  - /environment/region: "eu-central"\x1b[0m' in observations
    assert "\x1b[3" not in at_a_terminal(*plan, NO_COLOR="1")
    assert "\x1b" not in at_a_terminal(*plan, TERM="dumb")
    assert "\x1b" not in metagate(*plan).stdout


def test_somebody_who_waits_is_told() -> None:
    """On a terminal, what takes longer than the patience says what goes on; in a pipe nothing is said."""
    code = (
        "import time; from metagate_cli import terminal; terminal.PROGRESS_AFTER = 0.05\n"
        "with terminal.progress('reading the files'): time.sleep(0.5)\n"
        "print('done')"
    )
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(sys.executable, [sys.executable, "-c", code], {**os.environ, "TERM": "xterm"})  # noqa: TID251
    observations = b""
    while b"done" not in observations:
        observations += os.read(terminal, 65_536)
    os.close(terminal)
    os.waitpid(pid, 0)
    assert b"reading the files" in observations
    assert metagate("validate", QUICKSTART).stderr == "9 objects: valid\n"


WORDS = (
    "PrincipalBinding",
    "default/concierge",
    "2026-11-21",
    "15:08:57",
    "kubectl-client-side-apply",
    "APPLIED",
    "BY",
)


@pytest.mark.parametrize("width", [30, 60, 80, 100, 200])
def test_a_table_breaks_no_word(width: int) -> None:
    """At any width each line fits and each word is whole; where not even the words fit side by side, rows become blocks."""
    headings = ["REVISION", "CHANGED", "HOW", "OBJECT", "APPLIED BY"]
    rows = [
        ["2", "2026-11-21 15:08:57", "changed", "PrincipalBinding default/concierge", "kubectl-client-side-apply"]
    ] * 2
    lines = table(headings, rows, width).splitlines()
    assert [line for line in lines if len(line) > width and len(line.split()) > 1 and width > 60] == []
    words = [word for line in lines for word in line.split()]
    assert {*WORDS} <= {*words}
    assert (len(lines) == 3) == (width >= 110)
    assert (lines[0].split() == ["REVISION", "2"]) == (width < 80)


def test_a_table_at_a_terminal_fits_it() -> None:
    """The width is the terminal's; what goes into a pipe, and `wide`, is never folded."""
    headings, rows = ["NAME", "SAYS"], [["x" * 20, "several words that are longer than what there is"]]
    code = f"from metagate_cli.output import NO_LIMIT, table; print(table({headings}, {rows})); print(table({headings}, {rows}, NO_LIMIT))"
    observations, _, wide = (
        _at_a_terminal([sys.executable, "-c", code], COLUMNS="40").partition("NAME  ")[2].partition("NAME  ")
    )
    assert max(map(len, observations.splitlines())) <= 40
    assert "several words that are longer than what there is" in wide
    assert "several words that are longer than what there is" in table(headings, rows)
