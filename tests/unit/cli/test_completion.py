"""Completion in the real shells, typed at a terminal as a person types it."""

import os
import pty
import re
import select
import shutil
import sys
import time
from pathlib import Path

import pytest

SHELLS = {
    "bash": (["bash", "--norc", "--noprofile", "-i"], "source <(metagate completion bash)"),
    "zsh": (["zsh", "-f", "-i"], "autoload -Uz compinit && compinit -u && source <(metagate completion zsh)"),
    "fish": (["fish", "--no-config", "-i"], "metagate completion fish | source"),
}
ESCAPES = re.compile(r"\x1b(?:\[[0-9;?]*[A-Za-z]|\][^\x07]*\x07|[()][A-Z0-9]|[=>])|[\r\x00]")


class Typed:
    """A shell at the other end of a terminal."""

    def __init__(self, arguments: list[str], home: Path) -> None:
        pid, self._terminal = pty.fork()
        if pid == 0:
            surroundings = {
                "HOME": str(home), "TERM": "xterm", "PS1": "> ", "LC_ALL": "C.UTF-8",
                "PATH": f"{Path(sys.executable).parent}:{os.defpath}:/usr/local/bin:/usr/bin:/bin",
            }  # fmt: skip
            os.execvpe(arguments[0], arguments, surroundings)
        self._pid = pid
        self.seen = ""

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def expect(self, text: str, *, within: float = 30.0) -> None:
        """Read until `text` was shown since the last expectation."""
        ends = time.monotonic() + within
        raw = b""
        while time.monotonic() < ends:
            if select.select([self._terminal], [], [], 0.2)[0]:
                raw += os.read(self._terminal, 65_536)
            shown = ESCAPES.sub("", raw.decode(errors="replace"))
            if text in shown:
                return
        raise AssertionError(f"{text!r} was not shown, but {shown!r}")

    def close(self) -> None:
        os.close(self._terminal)
        os.kill(self._pid, 9)
        os.waitpid(self._pid, 0)


@pytest.mark.parametrize("shell", SHELLS)
def test_a_real_shell_completes(shell: str, tmp_path: Path) -> None:
    """A command, an option and the option's values, after the script was sourced as its help says."""
    arguments, source = SHELLS[shell]
    if shutil.which(arguments[0]) is None:
        pytest.skip(f"there is no {shell} here")
    typed = Typed(arguments, tmp_path)
    try:
        typed.type(f"{source}\n")
        # the sum, because what is typed is echoed
        typed.type("echo sourced (math 40 + 2)\n" if shell == "fish" else "echo sourced $((40 + 2))\n")
        typed.expect("sourced 42")
        typed.type("metagate rollb\t")
        typed.expect("rollback")
        typed.type("\x15metagate plan --agai\t")
        typed.expect("--against")
        typed.type("\x15metagate plan -o markd\t")
        typed.expect("markdown")
        typed.type("\x15metagate run --ready-by\t")  # an option of the client, which has a parser of its own
        typed.expect("--ready-by-command")
        typed.type("\x15metagate run --if-unavailable cont\t")
        typed.expect("continue")
    finally:
        typed.close()
