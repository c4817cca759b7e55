# ruff: noqa: INP001, S603, T201 - a script of the Makefile, which starts the interpreters that it is told of
"""The virtual environment of a checkout: `python deploy/environment.py run|dev [--directory .venv]`.

`run` installs what one machine needs to run the product, `dev` all that tests, linters, benchmarks and images need.
Each is one lock file with hashes, and is installed when it is newer than what is there. pip works from outside the
environment where it can: an environment without a pip of its own is made in a moment and is 14 MB smaller.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
LOCKS = {"run": "requirements-run.lock", "dev": "requirements-dev.lock"}
# Files of the environment that say when which lock file was installed. What `dev` installs is enough to run, too.
STAMPS = {"run": (".running", ".installed"), "dev": (".installed",)}
PIP_WITH_PYTHON_OPTION = (22, 3)
# sys.executable is inside the environment when somebody has activated it; it must not be what the new one is made of.
BASE_PYTHON = str(getattr(sys, "_base_executable", None) or sys.executable)


class InstallError(Exception):
    """Ends the script with one line."""


def main() -> int:
    parser = argparse.ArgumentParser(description="Install what this checkout needs into a virtual environment.")
    parser.add_argument("purpose", choices=LOCKS)
    parser.add_argument("--directory", type=Path, default=Path(".venv"))
    parser.add_argument(
        "--rebuild-for-python", action="store_true", help="make it anew when it is of another Python than this one"
    )
    options = parser.parse_args()
    try:
        install(options.purpose, options.directory, same_python=options.rebuild_for_python)
    except InstallError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def install(purpose: str, directory: Path, *, same_python: bool) -> None:
    """Make the environment and install, or return at once when that was done and nothing changed since."""
    lock = ROOT / LOCKS[purpose]
    usable = _usable(directory, same_python=same_python)
    stamps = [directory / name for name in STAMPS[purpose]]
    if usable and any(_is_newer(stamp, (lock, ROOT / "pyproject.toml")) for stamp in stamps):
        return
    started = time.monotonic()
    pip = _pip(directory) if usable else _create(directory)
    _run(
        [*pip, "install", "--no-deps", "--no-compile", "--require-hashes", "-r", str(lock)],
        packages=len(re.findall(r"^[\w.-]+(?:\[[\w,-]+\])?==", lock.read_text(encoding="utf-8"), re.MULTILINE)),
        into=directory,
    )
    _run([*pip, "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT)], packages=0, into=directory)
    stamps[0].touch()
    print(f"installed into {directory} in {time.monotonic() - started:.0f} s", flush=True)


def _usable(directory: Path, *, same_python: bool) -> bool:
    """Whether there is an environment that works, of a Python that is new enough (and of this one)."""
    if not (directory / "pyvenv.cfg").exists():
        return False
    version = _version_of(directory / "bin" / "python")
    if version is None:
        print(f"rebuilding {directory}: its Python does not run", flush=True)
        return False
    if version < OLDEST or (same_python and version != sys.version_info[:2]):
        print(f"rebuilding {directory}: it was made by Python {'.'.join(map(str, version))}", flush=True)
        return False
    return True


def _version_of(python: Path) -> tuple[int, ...] | None:
    try:
        done = subprocess.run(
            [str(python), "-c", "import sys; print(*sys.version_info[:2])"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return tuple(map(int, done.stdout.split()))


def _is_newer(stamp: Path, sources: Sequence[Path]) -> bool:
    return stamp.exists() and all(stamp.stat().st_mtime >= source.stat().st_mtime for source in sources)


def _create(directory: Path) -> list[str]:
    """A new environment; how pip is called for it."""
    without_pip = ["--without-pip"] if _base_pip_works() else []
    done = subprocess.run(
        [BASE_PYTHON, "-m", "venv", "--clear", *without_pip, str(directory)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        advice = (
            "apt-get install python3-pip, or python3-venv" if Path("/etc/debian_version").exists() else "install pip"
        )
        raise InstallError(f"no virtual environment can be made without pip: {advice}\n{done.stdout.strip()}")
    return _pip(directory)


def _pip(directory: Path) -> list[str]:
    python = str(directory / "bin" / "python")
    if _base_pip_works():
        return [BASE_PYTHON, "-m", "pip", "--python", python]
    return [python, "-m", "pip"]


def _base_pip_works() -> bool:
    done = subprocess.run([BASE_PYTHON, "-m", "pip", "--version"], capture_output=True, text=True, check=False)
    version = re.match(r"pip (\d+)\.(\d+)", done.stdout)
    return version is not None and (int(version[1]), int(version[2])) >= PIP_WITH_PYTHON_OPTION


def _run(command: Sequence[str], *, packages: int, into: Path) -> None:
    """Run pip and show how far it is; of its own output only what it said before it failed."""
    lines: list[str] = []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_PROGRESS_BAR": "off", "PYTHONUNBUFFERED": "1"},  # noqa: TID251 - handed on
    ) as pip:
        assert pip.stdout is not None
        for text in _progress(_remembered(pip.stdout, lines), packages, into):
            print(text, end="", flush=True)
    if pip.returncode:
        raise InstallError("\n".join(["", *lines[-20:], f"pip could not install into {into}"]))


def _remembered(output: Iterator[str], lines: list[str]) -> Iterator[str]:
    for line in output:
        lines.append(line.rstrip("\n"))
        yield line


def _progress(output: Iterator[str], packages: int, into: Path) -> Iterator[str]:
    """What is printed for pip's output: on a terminal one line that counts, elsewhere a line for every 20 packages."""
    terminal = sys.stdout.isatty()
    rewind = "\r\x1b[K" if terminal else ""
    collected = 0
    for line in output:
        if not packages:
            continue
        if match := re.match(r"(?:Collecting|Requirement already satisfied:) ([\w.-]+)", line):
            collected += 1
            if terminal:
                yield f"{rewind}installing into {into} (once): {collected} of {packages} packages: {match[1]}"
            elif collected % 20 == 1:
                yield f"installing into {into} (once): {collected} of {packages} packages\n"
        elif line.startswith("Installing collected packages"):
            yield f"{rewind}unpacking {packages} packages into {into}\n"


if __name__ == "__main__":
    sys.exit(main())
