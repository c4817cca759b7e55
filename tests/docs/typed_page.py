"""A page whose lines are typed in one shell, beside processes that its test starts."""

import os
import re
import signal
import subprocess
from pathlib import Path

from tests.docs.typed import BLOCK, commands, masked


def blocks(text: str) -> list[tuple[list[str], str]]:
    """Of each console block the commands, and what the page says that they print."""
    result = []
    for block in BLOCK.findall(text):
        printed = [line for line in block.splitlines() if not line.startswith(("$ ", "> "))]
        result.append((commands(block), "\n".join(printed)))
    return result


def steady(text: str) -> list[str]:
    """Without what differs from run to run: ids, times, ages, how long a call took."""
    text = re.sub(r"\b01[0-9A-HJKMNP-TV-Z]{24}\b", "<ulid>", text)
    text = re.sub(r"\b\d+[smhd] ago\b", "<age>", text)
    text = re.sub(r"\b(success|denied)( +)(\d+|-)", r"\1 <us>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|\+\d\d:\d\d)", "<time>", text)
    return masked(re.sub(r'(day_of_week\\": \\")\w+', r"\1<day>", text))


class TypedPage:
    """A shell in which the page's lines are typed, on ports of this test."""

    def __init__(self, folder: Path, ports: dict[str, str]) -> None:
        self.folder, self.ports = folder, ports
        # A process group of its own: what a line leaves in the background ends with it.
        self.shell = subprocess.Popen(
            ["bash"], cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            start_new_session=True, env={**os.environ, "no_proxy": "*", "NO_COLOR": "1"},  # noqa: TID251
        )  # fmt: skip

    def here(self, text: str) -> str:
        for shown, port in self.ports.items():
            text = re.sub(rf"(?<=[ :]){shown}\b", port, text)
        return text

    def shown(self, printed: str) -> str:
        """What was printed here, as the page shows it."""
        for shown, port in self.ports.items():
            printed = re.sub(rf"(?<=[ :]){port}\b", shown, printed)
        return printed

    def type(self, command: str) -> str:
        """What it prints."""
        assert self.shell.stdin is not None
        assert self.shell.stdout is not None
        self.shell.stdin.write(f"{self.here(command)}\nprintf '\\036\\n'\n")
        self.shell.stdin.flush()
        lines = iter(self.shell.stdout.readline, "\x1e\n")
        return "".join(lines)

    def close(self) -> None:
        os.killpg(self.shell.pid, signal.SIGTERM)
        self.shell.communicate(timeout=20)
