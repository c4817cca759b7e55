"""What the tutorials say was typed, typed again: every command of a page's console blocks, and what it prints.

`python -m tests.docs.typed` writes what is printed into the pages; the test compares. Ids, times and digests differ from
run to run and count as equal.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.integration.api.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGES = tuple(
    ROOT / "docs" / f"{name}.md"
    for name in ("tutorial/one-machine", "howto/rotate-a-key", "howto/try-a-manifest", "howto/debug-a-refused-pod")
)
BLOCK = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MASKS = (
    (re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"), "<id>"),
    (re.compile(r"\d{4}-\d\d-\d\d(?:T[\d:.]+Z| \d\d:\d\d:\d\d)"), "<time>"),
    (re.compile(r"\b[0-9a-f]{64}\b"), "<digest>"),
    (re.compile(r"\b(?=[0-9a-f]*\d)[0-9a-f]{12}\b"), "<digest>"),
    (re.compile(r"127\.0\.0\.1:\d+"), "<address>"),
    (re.compile(r"[ \t]+"), " "),
)


@dataclass(frozen=True, slots=True)
class TypedCommand:
    """One command and what it printed; `code` is its exit code."""

    command: str
    printed: str
    code: int


def commands(block: str) -> list[str]:
    """What stands after each `$ `, with the lines that go on after `> `."""
    result: list[str] = []
    for line in block.splitlines():
        if line.startswith("$ "):
            result.append(line[2:])
        elif line.startswith("> ") and result:
            result[-1] += "\n" + line[2:]
    return result


def masked(text: str) -> list[str]:
    for pattern, word in _MASKS:
        text = pattern.sub(word, text)
    return [line.rstrip() for line in text.strip().splitlines()]


@contextmanager
def running(folder: Path) -> Iterator[int]:
    """`make run` in a folder of its own; the port it serves on."""
    port = free_port()
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
    log = (folder / "run.log").open("w")
    served = subprocess.Popen(
        [sys.executable, "-m", "metagate_cli.main", "quickstart", "--port", str(port)],
        cwd=folder, env=quiet, stdout=log, stderr=subprocess.STDOUT,
    )  # fmt: skip
    try:
        ends = time.monotonic() + 60
        while "Ctrl-C stops everything" not in (folder / "run.log").read_text():
            assert served.poll() is None, (folder / "run.log").read_text()
            assert time.monotonic() < ends, "it did not start"
            time.sleep(0.05)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5):
            yield port
    finally:
        served.terminate()
        served.wait(30)
        log.close()


def typed(text: str, folder: Path, port: int) -> list[list[TypedCommand]]:
    """Every block of the page, in one shell, beside what runs on `port`."""
    blocks = [commands(block) for block in BLOCK.findall(text)]
    script = [f"cd {folder}"]
    for block in blocks:
        for command in block:
            here = command.replace("127.0.0.1:8000", f"127.0.0.1:{port}")
            script += ["printf '\\036'", here, "printf '\\037%s' $?"]
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
    quiet["PATH"] = f"{Path(sys.executable).parent}:{quiet['PATH']}"
    done = subprocess.run(
        ["bash"], input="\n".join(script), env=quiet, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=150, check=False,
    )  # fmt: skip
    answer = [part.rpartition("\x1f") for part in done.stdout.split("\x1e")[1:]]
    answers = iter([(printed.replace(f":{port}", ":8000"), int(code)) for printed, _, code in answer])
    return [[TypedCommand(command, *next(answers)) for command in block] for block in blocks]


def shown(block: list[TypedCommand]) -> str:
    """A block as it stands on the page."""
    lines: list[str] = []
    for item in block:
        lines += ["$ " + item.command.replace("\n", "\n> "), *item.printed.rstrip("\n").splitlines()]
    return "```console\n" + "\n".join(line.rstrip() for line in lines if line or lines) + "\n```"


def retyped(page: Path) -> tuple[str, str]:
    """The page as it is, and as it would be with what is printed now."""
    folder = Path(tempfile.mkdtemp(prefix="metagate-typed-"))
    try:
        with running(folder) as port:
            text = page.read_text()
            answers = iter(typed(text, folder, port))
            return text, BLOCK.sub(lambda _: shown(next(answers)), text)
    finally:
        shutil.rmtree(folder)


if __name__ == "__main__":
    for written in PAGES:
        written.write_text(retyped(written)[1])
