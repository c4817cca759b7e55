"""One lease from its start to its one end: the handler runs, a thread renews, the end is sent.

The end is claimed once, under a lock: by the handler's result, or by the worker that gives the task back at its stop.
A lease that is lost by the gate's word or by the local clock ends nothing: from then on nothing is sent.
"""

from __future__ import annotations

import logging
import threading

from legivellum_worker.gate_client import CALL_SECONDS, GateError, GateUnavailableError
from legivellum_worker.results import Escalate, Failed, Output, Release
from legivellum_worker.work import LeaseLostError, Work, boot_clock
from metagate_client.errors import ClientError
from metagate_client.retries import pause_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from legivellum_worker.gate_client import AsyncGateClient
    from legivellum_worker.settings import GateAccess
    from legivellum_worker.work import WorkerLease

    Run = Callable[[Work, "Attempt"], object]

log = logging.getLogger("legivellum_worker")

_RENEWAL_PAUSE = 1.0
"""Seconds until a renewal is tried again that got no answer."""
_LEASE_LOST = "LEASE_LOST"
_EXHAUSTED = "LEASE_EXHAUSTED"


class Attempt:
    """`run` and `release` may be called from two threads; one of them sends the end."""

    def __init__(
        self,
        client: AsyncGateClient,
        lease: WorkerLease,
        handler: Run,
        *,
        ttl_seconds: int | None,
        depot: GateAccess | None = None,
    ) -> None:
        self._client, self._lease, self._handler = client, lease, handler
        self._ttl_seconds = ttl_seconds
        self.work = Work(lease, client.access, depot)
        self.on_cancel: Callable[[], object] | None = None
        """Set by what runs the handler: ends it from outside."""
        self.handled = threading.Event()
        """The handler has ended."""
        self._over = threading.Event()
        self._claiming = threading.Lock()
        self._end_is_claimed = False

    def run(self) -> None:
        """Run the handler under the lease and send what it says. Raises nothing."""
        renewing = threading.Thread(target=self._renew, name=f"renew-{self.work.number}", daemon=True)
        renewing.start()
        try:
            path, fields = self._handled()
            self.handled.set()
            if self._claim_end():
                self._send(path, fields)
        finally:
            self.handled.set()
            self._over.set()
            renewing.join(CALL_SECONDS)

    def release(self, reason: str, *, seconds: float) -> None:
        """Cancel the handler, wait up to `seconds` for it, and give the task back if it did not end by then."""
        self._cancel()
        self.handled.wait(seconds)
        if self._claim_end():
            self._send("/lease/release", {"reason": reason}, CALL_SECONDS)
            self._over.set()

    def _handled(self) -> tuple[str, Mapping[str, Any]]:
        """The verb and the fields that end the lease."""
        try:
            result = self._handler(self.work, self)
            return "/complete", _output(result).claim()
        except Release as release:
            return "/lease/release", {"again_after_seconds": release.after, "reason": release.reason}
        except Escalate as escalation:
            to = {} if escalation.to is None else {"escalation_to": escalation.to}
            return "/escalate", {
                "escalation_class": escalation.escalation_class,
                "escalation_reason": escalation.reason,
                **to,
            }
        except Failed as failure:
            return "/complete", failure.claim()
        except LeaseLostError:
            return "/lease/release", {"reason": "lost"}  # never sent: the lease has ended
        except BaseException as error:
            if self.work.cancelled.is_set():
                # What a cancelled handler raises says nothing about the task.
                return "/lease/release", {"reason": "the worker stops"}
            # The type only: the text of an exception may hold what nobody wants in a ledger.
            level = logging.DEBUG if log.isEnabledFor(logging.DEBUG) else logging.ERROR
            name = type(error).__name__
            log.log(level, "handler_failed task_id=%s error=%s", self.work.task_id, name, exc_info=level < logging.INFO)
            return "/complete", Failed(type(error).__name__).claim()

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _claim_end(self) -> bool:
        with self._claiming:
            if self._end_is_claimed:
                return False
            self._end_is_claimed = True
            return True

    def _send(self, path: str, fields: Mapping[str, Any], seconds: float | None = None) -> None:
        """Repeat the end until it is answered or the lease has ended: the same again is a replay."""
        until = None if seconds is None else boot_clock() + seconds
        for number in range(1_000_000):
            left = self._lease.seconds_left()
            if left == 0:
                self._lose("expired")
                return
            if until is not None and boot_clock() >= until:
                log.warning("end_abandoned task_id=%s path=%s", self.work.task_id, path)
                return
            try:
                self._client.post(path, self._lease.lease_id, fields, min(CALL_SECONDS, left))
            except GateUnavailableError as error:
                log.warning("end_delayed task_id=%s path=%s reason=%s", self.work.task_id, path, error)
                self._lease.lost.wait(min(pause_seconds(number, error.retry_after), max(0.05, left)))
            except GateError as error:
                self._on_refused(path, fields, error)
                return
            except ClientError as error:  # the credential cannot be read at the moment
                log.warning("end_delayed task_id=%s path=%s reason=%s", self.work.task_id, path, error)
                self._lease.lost.wait(min(pause_seconds(number), max(0.05, left)))
            else:
                log.info("lease_ended task_id=%s number=%s path=%s", self.work.task_id, self.work.number, path)
                return

    def _on_refused(self, path: str, fields: Mapping[str, Any], error: GateError) -> None:
        if error.code == _LEASE_LOST:
            self._lose("lost")
            return
        log.error("end_refused task_id=%s path=%s code=%s", self.work.task_id, path, error.code)
        if path != "/lease/release" and fields.get("status") != "failure":
            # An escalation that the task does not permit, or an outcome that no receipt can hold, is a failure of the
            # worker. Without an end the task would be leased again and fail in the same way.
            reason = error.code if error.code and path == "/escalate" else "OUTPUT_REFUSED"
            self._send("/complete", Failed(reason).claim())

    # ── the lease ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _renew(self) -> None:
        pause = self._lease.ttl_seconds / 3
        while not self._over.wait(min(pause, max(0.001, self._lease.seconds_left()))):
            left = self._lease.seconds_left()
            if left == 0:
                self._lose("expired")
                return
            pause = self._lease.ttl_seconds / 3
            if self._lease.renewals_left > 0 and not self._renewed(left):
                pause = _RENEWAL_PAUSE

    def _renewed(self, left: float) -> bool:
        requested_at = boot_clock()
        try:
            answer = self._client.renew(self._lease.lease_id, self._ttl_seconds, min(CALL_SECONDS, left))
        except GateError as error:
            if error.code == _LEASE_LOST:
                self._lose("lost")
            elif error.code == _EXHAUSTED:
                self._lease.renewals_left = 0
            else:
                log.warning("renewal_refused task_id=%s code=%s", self.work.task_id, error.code)
                return False
        except ClientError as error:
            log.warning("renewal_delayed task_id=%s reason=%s", self.work.task_id, error)
            return False
        else:
            self._lease.extend(answer, requested_at)
        return True

    def _lose(self, how: str) -> None:
        if self._lease.lost.is_set() or self._over.is_set():
            return
        self._lease.lost.set()
        log.warning("lease_lost task_id=%s number=%s how=%s", self.work.task_id, self.work.number, how)
        self._cancel()

    def _cancel(self) -> None:
        self.work.cancelled.set()
        cancel = self.on_cancel
        if cancel is not None:
            cancel()


def _output(result: object) -> Output:
    if result is None:
        return Output()
    if isinstance(result, Output):
        return result
    if isinstance(result, str):
        return Output(result)
    raise TypeError(f"a handler returns an Output, a text or None, not {type(result).__name__}")
