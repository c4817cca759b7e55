"""How many transfers run at once, and how slow one may be (DP-09)."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import Gauge

from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse

BYTES_PER_SECOND: Final = 16_384
"""The least that a client sends or takes, over `WINDOW_SECONDS`."""
WINDOW_SECONDS: Final = 10.0


class TransferSlots:
    """The transfers of one kind in this process; `gauge` shows them."""

    def __init__(self, most: int, name: str, gauge: Gauge) -> None:
        self._most = most
        self._name = name
        self._gauge = gauge
        self._taken = 0

    def take(self) -> TransferSlot:
        """Raises OVERLOADED (503)."""
        if self._taken >= self._most:
            raise refuse(Code.OVERLOADED, f"{self._most} {self._name} run here already.")
        self._change(1)
        return TransferSlot(self)

    @contextmanager
    def taken(self) -> Iterator[None]:
        """As `take`, for as long as the block runs."""
        slot = self.take()
        try:
            yield
        finally:
            slot.give_back()

    def _change(self, number: int) -> None:
        self._taken += number
        self._gauge.inc(number)


class TransferSlot:
    """Given back once, at the latest when nothing refers to it: a client that leaves before its answer begins never
    starts the body that would give it back.
    """

    def __init__(self, slots: TransferSlots) -> None:
        self._slots: TransferSlots | None = slots

    def give_back(self) -> None:
        slots, self._slots = self._slots, None
        if slots is not None:
            slots._change(-1)  # noqa: SLF001 - its own slot

    def __del__(self) -> None:
        self.give_back()


class ClientPace:
    """Whether a client keeps up, judged by the time that is spent waiting for it and nothing else."""

    def __init__(self) -> None:
        self._waited = 0.0
        self._moved = 0

    @property
    def patience(self) -> float:
        """Seconds for which the client may be waited for now."""
        return max(0.0, WINDOW_SECONDS - self._waited) + self._moved / BYTES_PER_SECOND

    def note(self, seconds: float, size: int) -> None:
        """So long the client was waited for, and so many bytes moved. A window that was kept begins anew."""
        self._waited += seconds
        self._moved += size
        if self._waited >= WINDOW_SECONDS and self._moved >= self._waited * BYTES_PER_SECOND:
            self._waited, self._moved = 0.0, 0


def now() -> float:
    return asyncio.get_running_loop().time()
