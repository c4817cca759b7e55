"""One plain vocabulary: retired words do not come back, and a class name has one meaning.

docs/glossary.md says which words are used instead, and for what.
"""

import ast
import re
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.syntax_trees import parse_module

ROOT = Path(__file__).resolve().parents[2]
LISTED = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
FILES = tuple(Path(line) for line in LISTED.splitlines() if (ROOT / line).is_file())

METAPHORS = frozenset(
    [
        "bell",
        "brake",
        "citizen",
        "citizens",
        "custody_of",
        "door",
        "doors",
        "ear",
        "glass",
        "hush",
        "keeper",
        "neighbours",
        "penance",
        "restless",
        "shelf",
        "sight",
        "sights",
        "sighting",
        "sightings",
        "stampede",
        "theatre",
        "thrift",
        "town",
    ]
)
"""In no module, class or function name, also as a part of one (`door_of`, `LedgerDoor`)."""

FRAGMENTS = frozenset(
    [
        "asking",
        "beliefs",
        "complaints",
        "each",
        "elsewhere",
        "everybody",
        "found",
        "gone",
        "happening",
        "held",
        "joining",
        "known",
        "keeping",
        "past",
        "rely",
        "said",
        "seen",
        "sent",
        "spoken",
        "standing",
        "tell",
        "telling",
        "told",
        "turns",
        "visit",
        "who",
        "wish",
        "witnessing",
        "would",
    ]
)
"""Pronouns, participles and adverbs: they name nothing when they stand alone."""

EMPTY = frozenset({"common", "data", "helpers", "manager", "misc", "util", "utils"})
"""Modules of this name gather whatever has no home."""

SHARED = {
    "Application": "the ASGI application of each gate, in a module called app",
    "Code": "the error codes of each gate, in a module called problem_codes",
    "Options": "what one command was called with",
    "Settings": "what a process can be configured with: every gate and the client has one",
}
"""Class names that may live in several modules, and why."""


def words(name: str) -> list[str]:
    """`LedgerDoor`, `ledger_door` → ledger, door."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower().strip("_").split("_")


def names(path: Path) -> Iterator[tuple[int, str, str]]:
    """Line, kind and name of each class, public function and method; of tests, what is not a test itself."""
    scopes: list[ast.Module | ast.ClassDef] = [parse_module(ROOT / path)]
    for scope in scopes:
        for node in scope.body:
            if isinstance(node, ast.ClassDef):
                yield node.lineno, "class", node.name
                scopes.append(node)
            elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith(("_", "test_")):
                yield node.lineno, "function", node.name


def retired(kind: str, name: str) -> bool:
    if METAPHORS & set(words(name)):
        return True
    if kind == "module" and name in EMPTY:
        return True
    return "_".join(words(name)) in FRAGMENTS


def test_no_module_class_or_function_has_a_retired_name() -> None:
    bad = [f"{path}: module {path.stem}" for path in FILES if retired("module", path.stem.removeprefix("test_"))]
    bad += [
        f"{path}:{line}: {kind} {name}" for path in FILES for line, kind, name in names(path) if retired(kind, name)
    ]
    assert bad == []


def test_a_class_name_lives_in_one_module() -> None:
    """Two of the same name are two meanings of it: qualify them (`LedgerClient`, `PublishDiff`)."""
    homes: defaultdict[str, set[str]] = defaultdict(set)
    for path in FILES:
        for _, kind, name in names(path):
            if kind == "class" and not name.startswith("_"):
                homes[name].add(str(path))
    assert {name: sorted(where) for name, where in homes.items() if len(where) > 1 and name not in SHARED} == {}


@pytest.mark.parametrize(
    ("kind", "name"),
    [("class", "LedgerDoor"), ("module", "town"), ("function", "spoken"), ("class", "Held"), ("module", "utils")],
)
def test_a_retired_name_is_seen(kind: str, name: str) -> None:
    assert retired(kind, name)


@pytest.mark.parametrize(
    ("kind", "name"), [("function", "is_known"), ("class", "EventRecorder"), ("module", "database")]
)
def test_a_plain_name_is_let_through(kind: str, name: str) -> None:
    assert not retired(kind, name)
