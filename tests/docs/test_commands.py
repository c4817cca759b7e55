"""Every command line that README and docs show can be typed: programs, subcommands, options, make targets and chart values exist.

The tutorials' lines are really typed (test_tutorials.py), README's cluster path too (tests/e2e/test_readme.py). The others need a
cluster, a pod or somebody's database, so what can be judged without one is judged here.
"""

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from tests.docs.test_links import PAGES, ROOT
from tests.docs.typed import commands
from typer.main import get_command

from asyncgate.main import app as asyncgate
from delegate.main import app as delegate
from depotgate.main import app as depotgate
from interrogate.main import app as interrogate
from legivellum_worker.artifact_commands import parser as artifacts_parser
from legivellum_worker.main import parser as work_parser
from memorygate.main import app as memorygate
from metagate_cli.main import CLIENT, WORKER, _across_gates, _app
from metagate_client.arguments import parser

FENCE = re.compile(r"^ *```(?:console|text)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^ *```console\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
# Programs of other people, whose options are theirs to judge.
OTHERS = frozenset(
    [
        "apt-get",
        "base64",
        "brew",
        "cat",
        "cd",
        "chmod",
        "cmp",
        "cp",
        "createdb",
        "curl",
        "cut",
        "date",
        "diff",
        "do",
        "done",
        "echo",
        "export",
        "git",
        "go",
        "grep",
        "head",
        "jq",
        "kill",
        "kind",
        "kubectl",
        "langgraph",
        "ls",
        "mcp-proxy",
        "mkdir",
        "mv",
        "node",
        "npm",
        "openssl",
        "pg_dump",
        "pg_restore",
        "pip",
        "printf",
        "psql",
        "python",
        "python3",
        "rm",
        "sed",
        "seq",
        "sleep",
        "sort",
        "source",
        "tail",
        "tee",
        "test",
        "touch",
        "true",
        "umask",
        "until",
        "uvicorn",
        "versitygw",
        "wait",
        "wc",
    ]
)
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
PROGRAMS: dict[str, Any] = {
    "metagate": get_command(_app()),
    "legivellum": get_command(_across_gates()),
    "memorygate": get_command(memorygate),
    "asyncgate": get_command(asyncgate),
    "depotgate": get_command(depotgate),
    "delegate": get_command(delegate),
    "interrogate": get_command(interrogate),
}
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def shown() -> Iterator[tuple[str, str]]:
    """Page and line of every command that is shown."""
    for page in PAGES:
        for block in FENCE.findall((ROOT / page).read_text()):
            yield from ((str(page), command) for command in commands("\n".join(map(str.strip, block.splitlines()))))


def programs(command: str) -> Iterator[list[str]]:
    """The programs of a line, with their words: split at pipes and `&&`; assignments and redirections left out."""
    text = re.sub(r"[$][A-Z_]+", "1", command.split(" <<", maxsplit=1)[0])  # a variable stands for whatever fits
    text = re.sub(r'"[$][(]cat [^)]+[.]url[)]"', "postgresql://role@host/database", text)
    lexer = shlex.shlex(text, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words: list[str] = []
    redirected = False
    for token in lexer:
        if token and set(token) <= set("|&;(){}"):
            if words:
                yield words
            words = []
        elif set(token) <= set("<>"):
            redirected = True
        elif redirected or (not words and ASSIGNMENT.match(token)):
            redirected = False
        else:
            words.append(token)
    if words:
        yield words


def chart_values(chart: str) -> Any:
    return yaml.safe_load((ROOT / chart / "values.yaml").read_text())


def judge(words: list[str]) -> None:
    """AssertionError, or what the command's own parser raises."""
    program, *rest = words
    program = program.rpartition("/")[2]
    if program == "make":
        named = {word for word in rest if "=" not in word and not word.startswith("-")}
        assert named <= TARGETS, named - TARGETS
    elif program == "helm":
        helm(rest)
    elif program == "metagate" and rest and rest[0] in CLIENT:
        parser().parse_args(rest)
    elif program == "legivellum" and rest and rest[0] in WORKER:
        (work_parser() if rest[0] == "work" else artifacts_parser()).parse_args(rest[1:])
    elif program in PROGRAMS:
        command = PROGRAMS[program]
        while rest and rest[0] in (getattr(command, "commands", None) or {}):
            command = command.commands[rest.pop(0)]
        assert not hasattr(command, "commands") or not rest or rest[0].startswith("-"), f"no command {rest[0]}"
        assert command.make_context(command.name, rest, resilient_parsing="--help" in rest).args == []
    else:
        assert program in OTHERS, program


def helm(words: list[str]) -> None:
    """Of `--set` each value exists in the chart that the line names."""
    chart = next((word for word in words if word.startswith("charts/")), None)
    for at, word in enumerate(words):
        if word == "--set":
            assert chart is not None, words
            for assignment in re.split(r",(?![^{]*\})", words[at + 1]):  # helm's lists are in braces
                value = chart_values(chart)
                for part in assignment.split("=")[0].split("."):
                    assert part in value or value == {}, assignment
                    value = value.get(part, {}) or {}
    assert "--reuse-values" not in words, "it keeps the old chart's defaults: --reset-then-reuse-values"


@pytest.mark.parametrize(("page", "command"), list(shown()))
def test_a_shown_command_can_be_typed(page: str, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The pages export it before the commands that ask a running gate.
    monkeypatch.setenv("INTERROGATE_URL", "http://127.0.0.1:8005")
    for words in programs(command):
        judge(words)


def test_a_prompt_stands_before_every_command() -> None:
    """So that people, the site's copy buttons and these tests tell what is typed from what is printed."""
    without = [
        f"{page}: {block[:60]!r}"
        for page in PAGES
        for block in CONSOLE.findall((ROOT / page).read_text())
        if not re.search(r"^ *\$ ", block, re.MULTILINE)
    ]
    assert without == []


@pytest.mark.parametrize(
    "wrong",
    [
        "make chart-readme",
        "metagate plan --no-such-option resources",
        "metagate frobnicate",
        "metagate bootstrap --component indexer --no-such-option",
        "helm upgrade metagate charts/metagate --set consol.enabled=true",
        "helm upgrade metagate charts/metagate --set 'api.audience={a,b},consol.enabled=true'",
        "helm upgrade metagate charts/metagate --reuse-values",
        "cat key | unheard-of",
    ],
)
def test_what_cannot_be_typed_is_noticed(wrong: str) -> None:
    [*_, last] = programs(wrong)
    with pytest.raises(BaseException):  # noqa: B017 - an assertion, a usage error or the parser's exit
        judge(last)
