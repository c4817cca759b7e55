"""The language does no I/O and knows of the kit what is as pure as itself."""

import ast
import subprocess
import sys
from pathlib import Path

from tests.syntax_trees import parse_module

import metagate_crds

ROOT = Path(metagate_crds.__file__).parent
PURE = {"legivellum.base.canonical_json", "legivellum.base.public_jwk"}


def imported(path: Path) -> set[str]:
    """The modules that a file imports; `from a import b` is both a and a.b."""
    names: set[str] = set()
    for node in ast.walk(parse_module(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return names


def test_of_the_kit_only_pure_modules_are_used():
    """Everything else of it reads clocks, settings or sockets."""
    of_the_kit = {name for path in ROOT.rglob("*.py") for name in imported(path) if name.startswith("legivellum")}
    modules = {name for name in of_the_kit if not any(name.startswith(f"{pure}.") for pure in PURE)}
    assert modules <= PURE | {"legivellum.base"}


def test_what_is_used_of_the_kit_is_pure():
    """Imported alone it brings no event loop, no socket and no driver."""
    present = [name for name in sorted(PURE) if (ROOT.parents[1] / "kit" / f"{name.replace('.', '/')}.py").is_file()]
    assert "legivellum.base.public_jwk" in present
    program = (
        f"import sys, {', '.join(present)}; print({{'asyncio', 'socket', 'asyncpg', 'structlog'}} & sys.modules.keys())"
    )
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "set()"
