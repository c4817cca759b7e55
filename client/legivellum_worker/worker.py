"""The worker: asks for leases where it has a free place, gives each a thread, and stops without leaving work behind."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from queue import SimpleQueue

from legivellum_worker.attempt import Attempt
from legivellum_worker.closing import close_plan
from legivellum_worker.dependencies import NEEDS
from legivellum_worker.event_loop import HandlerLoop
from legivellum_worker.gate_client import AsyncGateClient, GateUnavailableError
from legivellum_worker.leased_work import WorkerLease, boot_clock
from legivellum_worker.plan_step import CLOSE, PlanCache
from legivellum_worker.settings import WorkerSettings
from legivellum_worker.work import AsyncWork
from metagate_client.errors import ClientError, MisconfiguredError
from metagate_client.retries import pause_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Callable
    from types import FrameType
    from typing import Any, TypeVar

    from legivellum_worker.work import Work
    from metagate_client.packet import Packet

    Handler = Callable[[Work], object]
    AnyHandler = TypeVar("AnyHandler", bound=Callable[[Work], Any] | Callable[[AsyncWork], Any])

log = logging.getLogger("legivellum_worker")

STOP_SECONDS = 20.0
"""How long handlers may go on after SIGTERM, before their tasks are given back."""
_CANCEL_SECONDS = 2.0
_END_SECONDS = 6.0
_MOST = 32
_MOST_CAPABILITIES = 16
_WAIT_SECONDS = 20
_LONGEST_PAUSE = 10.0
_COROUTINE = 0x80
"""inspect.CO_COROUTINE."""


class Worker:
    """Handlers by capability. `run` takes leases until it is stopped, by a signal or by `stop`."""

    def __init__(
        self,
        settings: WorkerSettings | None = None,
        *,
        ttl_seconds: int | None = None,
        wait_seconds: int = _WAIT_SECONDS,
        stop_seconds: float = STOP_SECONDS,
        closes: bool = True,
        **explicit: Any,
    ) -> None:
        """`explicit`: the arguments of WorkerSettings. `ttl_seconds` of a lease: the task's, unless it is shorter.

        `closes`: it also leases the steps that end plans, where it knows DeleGate.
        """
        self.settings = settings or WorkerSettings(**explicit)
        self._client = AsyncGateClient(self.settings.asyncgate)
        self._handlers: dict[str, Handler] = {}
        self._closes = closes and self.settings.delegate is not None
        self._plans = PlanCache()
        self._ttl_seconds, self._wait_seconds, self._stop_seconds = ttl_seconds, wait_seconds, stop_seconds
        # A SimpleQueue, because `stop` is called in signal handlers: no lock of another kind may be taken there.
        self._commands: SimpleQueue[ClientError | int | None] = SimpleQueue()
        self._stopping = threading.Event()
        self._places = threading.Condition()
        self._attempts: dict[Attempt, threading.Thread] = {}
        self._parallel = 1
        self._polling: socket.socket | None = None
        self._moment = 0.0
        self._loop = HandlerLoop()

    @classmethod
    def from_packet(cls, packet: Packet | None = None, **options: Any) -> Worker:
        """A worker for the AsyncGate that the packet names: this one, or that of `metagate run --packet-file`."""
        return cls(WorkerSettings(packet=packet), **options)

    def on(self, capability: str, *, needs: str = "success") -> Callable[[AnyHandler], AnyHandler]:
        """Register a handler, async or not. `needs="any"`: it also gets tasks whose needs did not end as a success.

        An `async def` gets an AsyncWork, any other handler a Work.
        """
        if needs not in NEEDS:
            raise MisconfiguredError(f"needs is one of {', '.join(NEEDS)}")
        # AsyncGate takes so many names; one of them is the worker's own where it closes plans.
        most = _MOST_CAPABILITIES - (self._closes and CLOSE not in {capability, *self._handlers})
        if capability in self._handlers or len(self._handlers) >= most:
            raise MisconfiguredError(f"{capability} has a handler, or there are {most}")

        def register(handler: AnyHandler) -> AnyHandler:
            call: Callable[[Any], object] = handler
            is_async = _is_async(handler)

            def run(work: Work) -> object:
                if needs == "success":
                    work.require_needs()
                return call(AsyncWork(work) if is_async else work)

            self._handlers[capability] = run
            return handler

        return register

    def stop(self) -> None:
        """Take no more leases; handlers may go on for `stop_seconds`. Called again: give everything back now."""
        self._commands.put(signal.SIGTERM)

    def run(self, parallel: int = 1) -> None:
        """Work until SIGTERM, SIGINT or `stop`. Raises GateError when AsyncGate refuses to give leases."""
        if not self._handlers:
            raise MisconfiguredError("a worker without a handler has nothing to do: register one with worker.on(…)")
        if parallel < 1:
            raise MisconfiguredError("parallel is 1 or more")
        self._parallel = parallel
        if self._closes and CLOSE not in self._handlers:
            self._handlers[CLOSE] = self._close_plan
        before = self._install_signals()
        polling = threading.Thread(target=self._poll, name="lease", daemon=True)
        polling.start()
        try:
            refusal = self._commands.get()
            self._drain(polling)
        finally:
            self._loop.close()
            for number, handler in before:
                signal.signal(number, handler)
        if isinstance(refusal, ClientError):
            raise refusal

    async def run_async(self, parallel: int = 1) -> None:
        """`run` in a thread of the running event loop, which runs `async def` handlers. Cancelled: it stops."""
        import asyncio

        self._loop.use(asyncio.get_running_loop())
        running = asyncio.ensure_future(asyncio.to_thread(self.run, parallel))
        try:
            await asyncio.shield(running)
        except asyncio.CancelledError:
            self.stop()
            await running
            raise

    # ── signals and the stop ─────────────────────────────────────────────────────────────────────────────────────────

    def _install_signals(self) -> list[tuple[int, Any]]:
        if threading.current_thread() is not threading.main_thread():
            return []
        return [(number, signal.signal(number, self._on_signal)) for number in (signal.SIGTERM, signal.SIGINT)]

    def _on_signal(self, _number: int, _frame: FrameType | None) -> None:
        self.stop()

    def _drain(self, polling: threading.Thread) -> None:
        """Let handlers end, then give back what is left."""
        log.info("worker_stopping running=%s", len(self._attempts))
        with self._places:
            self._stopping.set()
            self._end_poll()
            self._places.notify_all()
        until = boot_clock() + self._stop_seconds
        while (left := until - boot_clock()) > 0 and self._commands.empty():
            with self._places:
                if not self._attempts and not polling.is_alive():
                    break
                # Short waits, because a signal handler may not notify a condition.
                self._places.wait(min(left, 0.1))
        with self._places:
            running = list(self._attempts.items())
        releasing = [threading.Thread(target=self._release, args=(attempt,)) for attempt, _ in running]
        for thread in releasing:
            thread.start()
        for thread in releasing:
            thread.join(_CANCEL_SECONDS + _END_SECONDS)

    def _release(self, attempt: Attempt) -> None:
        attempt.release("the worker stops", seconds=_CANCEL_SECONDS)
        thread = self._attempts.get(attempt)
        if thread is not None and attempt.handled.is_set():
            thread.join(_END_SECONDS)

    def _end_poll(self) -> None:
        """Tell AsyncGate that nobody waits any more; an answer that is on its way is still read."""
        import socket

        if self._polling is not None:
            with contextlib.suppress(OSError):
                self._polling.shutdown(socket.SHUT_WR)

    # ── leases ───────────────────────────────────────────────────────────────────────────────────────────────────────

    def _poll(self) -> None:
        try:
            while self._wait_for_place():
                self._take()
        except ClientError as error:
            self._commands.put(error)

    def _wait_for_place(self) -> bool:
        with self._places:
            self._places.wait_for(lambda: self._stopping.is_set() or len(self._attempts) < self._parallel)
            return not self._stopping.is_set()

    def _take(self) -> None:
        """One long poll, repeated with the same key until it is answered."""
        key = os.urandom(16).hex()
        attempt = 0
        while not self._stopping.is_set():
            self._note_moment()
            try:
                leases = self._client.lease(
                    sorted(self._handlers),
                    most=min(_MOST, self._parallel - len(self._attempts)),
                    wait_seconds=self._wait_seconds,
                    ttl_seconds=self._ttl_seconds,
                    idempotency_key=key,
                    on_connected=self._on_polling,
                    on_waiting=self._note_moment,
                )
            except GateUnavailableError as error:
                if self._stopping.is_set():
                    return
                log.log(logging.WARNING if attempt == 0 else logging.DEBUG, "lease_delayed reason=%s", error)
                self._stopping.wait(min(_LONGEST_PAUSE, pause_seconds(attempt, error.retry_after) * (1 + attempt / 4)))
                attempt += 1
            else:
                self._start(leases, self._moment)
                return
            finally:
                with self._places:
                    self._polling = None

    def _note_moment(self) -> None:
        # A long poll waits for work. Counted from its start a lease would seem too short by the wait, counted from the
        # answer too long by a pause of this process: so from the last second in which there was no answer.
        self._moment = boot_clock()

    def _on_polling(self, connection: socket.socket) -> None:
        with self._places:
            self._polling = connection
            if self._stopping.is_set():
                self._end_poll()

    def _start(self, leases: list[dict[str, Any]], counted_from: float) -> None:
        for content in leases:
            lease = WorkerLease(content, counted_from)
            attempt = Attempt(
                self._client,
                lease,
                self._run_handler,
                ttl_seconds=self._ttl_seconds,
                gates=self.settings,
                plans=self._plans,
            )
            thread = threading.Thread(target=self._work, args=(attempt,), name=f"work-{lease.lease_id}", daemon=True)
            with self._places:
                self._attempts[attempt] = thread
            thread.start()

    def _work(self, attempt: Attempt) -> None:
        try:
            if self._stopping.is_set():
                attempt.release("the worker stops", seconds=0)
            else:
                attempt.run()
        finally:
            with self._places:
                del self._attempts[attempt]
                self._places.notify_all()

    def _run_handler(self, work: Work, attempt: Attempt) -> object:
        result = self._handlers[work.capability](work)
        return self._loop.result(result, attempt) if hasattr(result, "__await__") else result

    def _close_plan(self, work: Work) -> None:
        assert self.settings.delegate is not None
        close_plan(work, self.settings.delegate)


def _is_async(handler: object) -> bool:
    """Whether it is an `async def`, or an object whose `__call__` is one. `inspect` would cost a worker its start."""
    for function in (handler, type(handler).__dict__.get("__call__")):
        code = getattr(function, "__code__", None)
        if code is not None:
            return bool(code.co_flags & _COROUTINE)
    return False
