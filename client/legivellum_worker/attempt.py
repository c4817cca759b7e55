"""One lease from its start to its one end: the handler runs, a thread renews, the end is sent.

The end is claimed once, under a lock: by the handler's result, or by the worker that gives the task back at its stop.
A lease that is lost by the gate's word or by the local clock ends nothing: from then on nothing is sent.
"""

from __future__ import annotations

import logging
import threading

from legivellum_worker.dependencies import RETRY_SECONDS
from legivellum_worker.gate_client import CALL_SECONDS, GateError, GateUnavailableError
from legivellum_worker.leased_work import LeaseLostError, boot_clock
from legivellum_worker.outputs import store_output
from legivellum_worker.results import OUTPUT_REFUSED, Escalate, Failed, Output, Release
from legivellum_worker.work import Work
from metagate_client.errors import ClientError
from metagate_client.retries import pause_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from legivellum_worker.gate_client import AsyncGateClient
    from legivellum_worker.leased_work import WorkerLease
    from legivellum_worker.plan_step import PlanCache
    from legivellum_worker.settings import WorkerSettings

    Run = Callable[[Work, "Attempt"], object]

log = logging.getLogger("legivellum_worker")

_RENEWAL_PAUSE = 1.0
"""Seconds until a renewal is tried again that got no answer."""
_LEASE_LOST = "LEASE_LOST"
_EXHAUSTED = "LEASE_EXHAUSTED"
_STOPPING = "the worker stops"


class LeaseEnd:
    """The call that ends a lease. `failure`: what it becomes where an escalation by a rule is refused."""

    __slots__ = ("failure", "fields", "path")

    def __init__(self, path: str, fields: Mapping[str, Any], failure: Failed | None = None) -> None:
        self.path, self.fields, self.failure = path, fields, failure


class Attempt:
    """`run` and `release` may be called from two threads; one of them sends the end."""

    def __init__(
        self,
        client: AsyncGateClient,
        lease: WorkerLease,
        handler: Run,
        *,
        ttl_seconds: int | None,
        gates: WorkerSettings,
        plans: PlanCache,
    ) -> None:
        self._client, self._lease, self._handler = client, lease, handler
        self._ttl_seconds, self._plans = ttl_seconds, plans
        self.work = Work(lease, gates)
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
            end = self._handled()
            self.handled.set()
            if self._claim_end():
                self._send(end)
        finally:
            self.handled.set()
            self._over.set()
            renewing.join(CALL_SECONDS)

    def release(self, reason: str, *, seconds: float) -> None:
        """Cancel the handler, wait up to `seconds` for it, and give the task back if it did not end by then."""
        self._cancel()
        self.handled.wait(seconds)
        if self._claim_end():
            self._send(_release(reason), CALL_SECONDS)
            self._over.set()

    def _handled(self) -> LeaseEnd:
        """What ends the lease. The output is stored here, while the lease is renewed."""
        try:
            self.work.read_step(self._plans)
            output = store_output(self.work, _output(self._handler(self.work, self)))
            return LeaseEnd("/complete", output.claim())
        except Release as release:
            return _release(release.reason, release.after)
        except Escalate as escalation:
            return _escalation(escalation)
        except Failed as failure:
            return self._failure(failure)
        except LeaseLostError:
            return _release(_STOPPING)  # of a lease that has ended it is never sent
        except GateUnavailableError as error:
            # It passes by itself, and says nothing about the task.
            return _release(f"{error.gate} did not answer", RETRY_SECONDS)
        except BaseException as error:
            if isinstance(error, GateError) and error.code == _LEASE_LOST:
                self._lose("lost")
                return _release(_STOPPING)
            if self.work.cancelled.is_set():
                # What a cancelled handler raises says nothing about the task.
                return _release(_STOPPING)
            # The type only: the text of an exception may hold what nobody wants in a ledger.
            level = logging.DEBUG if log.isEnabledFor(logging.DEBUG) else logging.ERROR
            name = type(error).__name__
            log.log(level, "handler_failed task_id=%s error=%s", self.work.task_id, name, exc_info=level < logging.INFO)
            return self._failure(Failed(name))

    def _failure(self, failure: Failed) -> LeaseEnd:
        """Escalated where a rule of the step names somebody for it, else the end of the task."""
        rule = self.work.rule_for(failure.cause)
        if rule is None:
            return LeaseEnd("/complete", failure.claim())
        to = {} if rule.to is None else {"escalation_to": rule.to}
        fields = {"escalation_class": rule.escalation_class, "escalation_reason": failure.reason, **to}
        return LeaseEnd("/escalate", fields, failure)

    # ── the end ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _claim_end(self) -> bool:
        with self._claiming:
            if self._end_is_claimed:
                return False
            self._end_is_claimed = True
            return True

    def _send(self, end: LeaseEnd, seconds: float | None = None) -> None:
        """Repeat the end until it is answered or the lease has ended: the same again is a replay."""
        path, fields = end.path, end.fields
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
                self._on_refused(end, error)
                return
            except ClientError as error:  # the credential cannot be read at the moment
                log.warning("end_delayed task_id=%s path=%s reason=%s", self.work.task_id, path, error)
                self._lease.lost.wait(min(pause_seconds(number), max(0.05, left)))
            else:
                log.info("lease_ended task_id=%s number=%s path=%s", self.work.task_id, self.work.number, path)
                return

    def _on_refused(self, end: LeaseEnd, error: GateError) -> None:
        if error.code == _LEASE_LOST:
            self._lose("lost")
            return
        log.error("end_refused task_id=%s path=%s code=%s", self.work.task_id, end.path, error.code)
        if end.path != "/lease/release" and end.fields.get("status") != "failure":
            # An escalation that the task does not permit, or an outcome that no receipt can hold, is a failure of the
            # worker. Without an end the task would be leased again and fail in the same way.
            reason = error.code if error.code and end.path == "/escalate" else OUTPUT_REFUSED
            self._send(LeaseEnd("/complete", (end.failure or Failed(reason)).claim()))

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


def _release(reason: str | None, after: int = 0) -> LeaseEnd:
    return LeaseEnd("/lease/release", {"again_after_seconds": after, "reason": reason})


def _escalation(escalation: Escalate) -> LeaseEnd:
    to = {} if escalation.to is None else {"escalation_to": escalation.to}
    return LeaseEnd(
        "/escalate",
        {"escalation_class": escalation.escalation_class, "escalation_reason": escalation.reason, **to},
    )


def _output(result: object) -> Output:
    if result is None:
        return Output()
    if isinstance(result, Output):
        return result
    if isinstance(result, str | bytes):
        return Output(result)
    raise TypeError(f"a handler returns an Output, a text, bytes or None, not {type(result).__name__}")
