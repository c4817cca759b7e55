"""What `make` does before it does anything else: a Python that is new enough, and an environment that works."""

import os
import subprocess
from pathlib import Path

import pytest
from tests.checkouts import ROOT, copy_checkout

OLD_PYTHON = """#!/bin/sh
case "$*" in
    -V) echo "Python 3.10.12" ;;
    *"print(*sys.version_info"*) echo "3 10" ;;
    *"sys.exit(sys.version_info"*) exit 1 ;;
    *) touch "$0.used"; exit 1 ;;
esac
"""


def old_python(path: Path) -> Path:
    """A Python that says of itself that it is 3.10, and notes when it is asked to do more than that."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(OLD_PYTHON)
    path.chmod(0o755)
    return path


def make(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    environ = {name: value for name, value in os.environ.items() if name not in {"PYTHON", "MAKEFLAGS", "VENV"}}  # noqa: TID251
    return subprocess.run(
        ["make", *map(str, arguments)], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("target", ["run", "test", "lint"])
def test_an_old_python_is_refused_in_words(tmp_path: Path, target: str) -> None:
    """Named by the person or not, Python 3.10 is not used for anything: one line says what to type instead."""
    python = old_python(tmp_path / "python3.10")
    done = make(target, f"PYTHON={python}", f"VENV={tmp_path / 'environment'}")
    assert done.returncode != 0
    assert f"MetaGate needs Python 3.11 or newer, and {python} is Python 3.10.12." in done.stderr
    assert f"make {target} PYTHON=" in done.stderr
    assert not (tmp_path / "environment").exists()
    assert not python.with_name("python3.10.used").exists()


def test_a_python_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    """A mistyped PYTHON is named, and no environment is left behind."""
    done = make("run", "PYTHON=/nowhere/python3", f"VENV={tmp_path / 'environment'}")
    assert "there is no /nowhere/python3" in done.stderr
    assert not (tmp_path / "environment").exists()


@pytest.mark.slow
@pytest.mark.timeout(500)
def test_the_first_run_of_a_checkout(tmp_path: Path) -> None:
    """An environment that Python 3.10 left there is made anew; progress is shown; what running needs is below 250 MB and
    holds no linter; the quickstart runs; the second time nothing is installed.
    """
    folder = copy_checkout(tmp_path / "checkout")
    old_python(folder / ".venv/bin/python")
    (folder / ".venv/pyvenv.cfg").write_text("version = 3.10.12\n")
    (folder / ".venv/.running").touch()
    command = ["make", "run", "ONCE=1", "RUN_ARGS=--port 0"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "JWT_", "MAKE"))}  # noqa: TID251
    first = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=400, check=False)
    if "pip could not install" in first.stderr:
        pytest.skip(f"no package index can be asked here: {first.stderr.strip().splitlines()[-2]}")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "rebuilding .venv: it was made by Python 3.10" in first.stdout
    assert "installing into .venv (once): 21 of" in first.stdout
    assert "READY" in first.stdout
    size = sum(path.lstat().st_blocks * 512 for path in (folder / ".venv").rglob("*"))
    assert size < 250_000_000, size
    assert not list((folder / ".venv").glob("lib/*/site-packages/pytest"))
    assert not list((folder / ".venv/bin").glob("ruff"))
    again = subprocess.run(command, cwd=folder, env=environ, capture_output=True, text=True, timeout=100, check=False)
    assert (again.returncode, "install" in again.stdout) == (0, False), again.stdout + again.stderr
