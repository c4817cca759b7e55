"""A command as our only child: what process 1 of a container owes it.

Signals that we get are passed on, the exit code is handed back, and orphans that the kernel gives us are reaped. The
command gets a process group of its own, so that a Ctrl-C of the terminal reaches it once, and standard input and output
as they are.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal

from metagate_client.errors import ClientError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

FORWARDED_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGCONT", "SIGALRM")
# Python ignores these in itself; a command expects them as they are everywhere else.
_RESTORED = tuple(getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ", "SIGTTOU") if hasattr(signal, name))


class StoppedError(ClientError):
    """Told to stop before there was a command to tell."""

    def __init__(self, number: int) -> None:
        super().__init__(f"stopped by {signal.Signals(number).name} before the command was started")
        self.exit_code = 128 + number


class NotStartedError(ClientError):
    """The command cannot be executed."""

    def __init__(self, command: str, error: OSError) -> None:
        super().__init__(f"cannot start {command}: {(error.strerror or str(error)).lower()}")
        self.exit_code = 127 if isinstance(error, FileNotFoundError) else 126


class SignalQueue:
    """From now on no signal is lost: before there is a child it stops us, afterwards it waits to be passed on.

    Process 1 gets no default actions from the kernel: without this a container could not be stopped while it boots.
    """

    def __init__(self) -> None:
        self._reading, writing = os.pipe()
        for end in (self._reading, writing):
            os.set_blocking(end, False)
        self._child = False
        for name in FORWARDED_SIGNALS:
            number = getattr(signal, name)
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup means the command too
                signal.signal(number, self._on_signal)
        signal.signal(signal.SIGCHLD, self._on_signal)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def child_starts(self) -> None:
        """From here on signals are kept for `receive` instead of stopping us."""
        self._child = True

    def receive(self, seconds: float | None) -> list[int]:
        """The signals that came, in order; waits for the first one up to so many seconds."""
        readable, _, _ = select.select([self._reading], [], [], seconds)
        return list(os.read(self._reading, 4096)) if readable else []

    def _on_signal(self, number: int, _: FrameType | None) -> None:
        if not self._child and number not in {signal.SIGCHLD, signal.SIGWINCH, signal.SIGCONT}:
            raise StoppedError(number)


class ChildProcess:
    """A running command. `wait` calls its argument again and again: see there."""

    def __init__(self, command: Sequence[str], environ: Mapping[str, str], signals: SignalQueue) -> None:
        self._signals = signals
        signals.child_starts()
        try:
            self.pid = os.posix_spawnp(command[0], list(command), environ, setpgroup=0, setsigdef=_RESTORED)
        except OSError as error:
            raise NotStartedError(command[0], error) from error
        self._set_foreground(self.pid)

    def wait(self, check: Callable[[], float | None]) -> int:
        """Wait until the command ends, and pass signals on. `check` is called first and after every signal or pause; it
        returns the seconds until it wants to be called again, or None: only after the next signal.

        Returns the wait status of the command.
        """
        while True:
            status = self._reap()
            if status is not None:
                self._set_foreground(os.getpgrp())
                return status
            for number in self._signals.receive(check()):
                if number != signal.SIGCHLD:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.pid, number)

    def _reap(self) -> int | None:
        ours = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return ours
            if pid == 0:
                return ours
            if pid == self.pid:
                ours = status

    @staticmethod
    def _set_foreground(group: int) -> None:
        """Make this process group the one that the terminal, if there is one, talks to."""
        with contextlib.suppress(OSError):
            if os.isatty(0):
                before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
                try:
                    os.tcsetpgrp(0, group)
                finally:
                    signal.signal(signal.SIGTTOU, before)


def exit_code(status: int) -> int:
    """A wait status as the exit code that a shell would give: 128 and the number for a signal."""
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def describe_end(status: int) -> str:
    """How a command ended, in words."""
    code = os.waitstatus_to_exitcode(status)
    return f"exited with code {code}" if code >= 0 else f"was ended by {signal.Signals(-code).name}"
