"""What the command line says: results on standard output, everything else on standard error, colour only on
a terminal.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, TypeVar

T = TypeVar("T")

FAILURE: Final = 1
"""Something is wrong with what was asked about."""
USAGE: Final = 2
"""The command line's own."""
UNABLE: Final = 3
"""It could not be done here and now; the message says what to do next."""
INTERRUPTED: Final = 130
EXIT_CODES: Final[Mapping[int, str]] = {
    0: "done",
    FAILURE: "something is wrong with what was asked about",
    USAGE: "the command was not understood",
    UNABLE: "it could not be done here and now",
    INTERRUPTED: "interrupted",
}
PROGRESS_AFTER: Final = 1.0
"""Seconds after which somebody at a terminal wants to know that work goes on."""
_STYLES: Final = {"bold": "1", "red": "31", "green": "32", "yellow": "33"}


class Stop(Exception):  # noqa: N818 - it ends a command, and need not be an error
    """Ends a command with one line on standard error."""

    def __init__(self, message: str, *, code: int = UNABLE) -> None:
        super().__init__(message)
        self.code = code


def uses_color(stream: Any = None) -> bool:
    """Whether to decorate: a terminal, and nobody asked for plain text (NO_COLOR, TERM=dumb)."""
    stream = stream or sys.stdout
    no_color = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"  # noqa: TID251 - a terminal's convention, not a setting
    return not no_color and stream.isatty()


def print_note(text: str = "") -> None:
    """A line for a person, on standard error: what a pipe carries stays clean."""
    print(text, file=sys.stderr, flush=True)


def colored(text: str, style: str) -> str:
    """`text` for standard output in bold, red, green or yellow, or as it is ("", or where nobody sees colours)."""
    return f"\x1b[{_STYLES[style]}m{text}\x1b[0m" if text and style and uses_color() else text


@contextmanager
def progress(text: str) -> Iterator[None]:
    """Say on a terminal what goes on when it takes longer than a second; nothing in a pipe, and nothing stays."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":  # noqa: TID251 - a terminal's convention
        yield
        return
    from rich.console import Console

    status = Console(file=sys.stderr).status(f"{text} …")
    waiting = threading.Timer(PROGRESS_AFTER, status.start)
    waiting.daemon = True
    waiting.start()
    try:
        yield
    finally:
        waiting.cancel()
        waiting.join()  # it may be starting just now
        status.stop()


def start_in_thread(work: Callable[[], T]) -> Callable[[], T]:
    """Run `work` in a thread. The returned function waits for its end, and returns or raises what it did.

    The thread ends with the process: whoever stops before does not wait.
    """
    outcome: list[T | BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again where somebody waits
            outcome.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def wait() -> T:
        thread.join()
        [result] = outcome
        if isinstance(result, BaseException):
            raise result
        return result

    return wait


def styled(text: str, style: str = "bold") -> str:
    """`text` in a style of rich, on a terminal."""
    if not uses_color(sys.stderr):
        return text
    from rich.console import Console

    console = Console(file=sys.stderr, force_terminal=True, highlight=False)
    with console.capture() as capture:
        console.print(text, style=style, end="", markup=False, soft_wrap=True)
    return capture.get()


def pretty(value: Any) -> str:
    """JSON for reading: indented, in colour on a terminal."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    if not uses_color():
        return text
    from rich.console import Console
    from rich.json import JSON

    console = Console(force_terminal=True, soft_wrap=True)
    with console.capture() as capture:
        console.print(JSON(text), soft_wrap=True)
    return capture.get().rstrip("\n")
