"""POST /v1/startup/ready and /v1/startup/failed: one conditional update each (D-11, D-42, D-43)."""

from typing import Any, Final, Literal
from uuid import UUID

from legivellum.base.timestamps import rfc3339
from legivellum.base.uuids import parse_uuid
from legivellum.http import strict_json
from legivellum.http.batching import Batcher
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problems import RequestRefused, refuse
from metagate_api import metrics
from metagate_api.callers import Caller, CallerAuthenticator, credential_row, pod_row, principal_suspended
from metagate_api.problem_codes import Code
from metagate_api.rendering import rendered
from metagate_crds.rules.secret_detection import redact
from metagate_store.rows import ReportOutcome, ReportQuery, ReportResult

MAX_REPORT_BYTES: Final = 8_192
_ROUNDS: Final = 5
"""How often a report may lose the race for its row; each loss means that somebody else's was recorded."""

_REFUSALS: Final = {
    ReportOutcome.OTHER_STATE: (Code.INVALID_STATE, "The session already ended in the other state."),
    ReportOutcome.NOT_YOURS: (Code.NOT_YOURS, "The session belongs to another principal."),
    ReportOutcome.NOT_THIS_POD: (Code.NOT_THIS_POD, "The session was opened by another pod."),
    ReportOutcome.UNKNOWN: (Code.SESSION_NOT_FOUND, "There is no such session."),
    ReportOutcome.UNKNOWN_PRINCIPAL: (Code.PRINCIPAL_UNKNOWN, "No Principal answers to this credential any more."),
    ReportOutcome.SUSPENDED: (Code.PRINCIPAL_SUSPENDED, "This principal is suspended."),
    ReportOutcome.CREDENTIAL_REVOKED: (Code.CREDENTIAL_REVOKED, "What this credential rests on was withdrawn."),
}


class ReportHandler:
    """One of the two terminal states. `status` is which."""

    def __init__(
        self,
        status: Literal["READY", "FAILED"],
        *,
        caller_authenticator: CallerAuthenticator,
        batcher: Batcher[ReportQuery, ReportResult],
        mirror: bool,
    ) -> None:
        self._status = status
        self._caller_authenticator = caller_authenticator
        self._batcher = batcher
        self._mirror = mirror
        self._counters = {outcome: metrics.REPORTS.labels(status, outcome.value) for outcome in ReportOutcome}

    async def __call__(self, exchange: Exchange) -> Response:
        caller = await self._caller_authenticator.authenticate(exchange)
        exchange.require_json()
        body = strict_json.parse_object(await exchange.body())
        startup_id = _startup_id(body)
        payload = _ready(body) if self._status == "READY" else _failed(body)
        # Only now: what is wrong with the body is told before what is wrong with the caller's rights (D-42).
        if isinstance(caller, RequestRefused):
            raise caller
        if caller.suspended:
            raise principal_suspended()
        answer = await self._record(exchange, caller, startup_id, payload)
        self._counters[answer.outcome].inc()
        if answer.outcome in _REFUSALS:
            raise refuse(*_REFUSALS[answer.outcome])
        if answer.acknowledged_at is None:
            raise refuse(Code.UNAVAILABLE, "The session is being written by somebody else.")
        body = {
            "startup_id": str(startup_id),
            "status": answer.status,
            "acknowledged_at": rfc3339(answer.acknowledged_at),
            "late": bool(answer.late),
        }
        return json_response(200, rendered(body))

    async def _record(self, exchange: Exchange, caller: Caller, startup_id: UUID, payload: bytes) -> ReportResult:
        ask = ReportQuery(
            tenant=caller.tenant,
            principal_key=caller.principal_key,
            credential=credential_row(caller),
            startup_id=startup_id,
            status=self._status,
            payload=payload.decode(),
            pod=pod_row(caller),
            mirror=self._mirror,
        )
        answer = await self._batcher.submit(ask, exchange.deadline)
        for _ in range(_ROUNDS):
            # Lost a race for the row: the statement saw a version that is gone. Asked again it sees what won.
            if answer.outcome is not ReportOutcome.CONTENDED:
                break
            answer = await self._batcher.submit(ask, exchange.deadline)
        return answer


def _startup_id(body: dict[str, Any]) -> UUID:
    startup_id = parse_uuid(body.get("startup_id"))
    if startup_id is not None:
        return startup_id
    raise refuse(Code.INVALID_REQUEST, "startup_id: required, the UUID that the packet named.")


def _ready(body: dict[str, Any]) -> bytes:
    return _bounded({"build_version": _text(body, "build_version", 256), "health": _health(body)})


def _failed(body: dict[str, Any]) -> bytes:
    return _bounded({"error": _text(body, "error", MAX_REPORT_BYTES), "details": _object(body, "details")})


def _text(body: dict[str, Any], name: str, limit: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value.strip() or len(value) > limit:
        raise refuse(Code.INVALID_REQUEST, f"{name}: required, a string of 1 to {limit} characters.")
    return value


def _object(body: dict[str, Any], name: str) -> dict[str, Any] | None:
    value = body.get(name)
    if value is None or isinstance(value, dict):
        return value
    raise refuse(Code.INVALID_REQUEST, f"{name}: an object, or left out.")


def _health(body: dict[str, Any]) -> str | dict[str, Any] | None:
    """D-65: a word for a person, or an object for a program."""
    value = body.get("health")
    if value is None or isinstance(value, str | dict):
        return value
    raise refuse(Code.INVALID_REQUEST, "health: a string or an object, or left out.")


def _bounded(report: dict[str, Any]) -> bytes:
    """What is stored: bounded first, then without anything that looks like a secret (D-43)."""
    report = {name: value for name, value in report.items() if value is not None}
    # Before the redaction, which must not make a report fit that was too large.
    if len(rendered(report)) > MAX_REPORT_BYTES:
        raise refuse(Code.INVALID_REQUEST, f"The report is larger than {MAX_REPORT_BYTES} bytes.")
    return rendered(redact(report))
