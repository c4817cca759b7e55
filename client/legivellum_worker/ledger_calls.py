"""The ledger's verbs, each written once for callers that block and for callers that await.

A verb is a generator. It yields what has to be done outside, one attempt of a call or a pause in seconds, and gets the
answer back; `Ledger` does both in the caller's thread, `AsyncLedger` neither on the event loop.
"""

from __future__ import annotations

import logging
import time

from legivellum_worker import receipts
from legivellum_worker.gate_client import CALL_SECONDS, GateError, GateUnavailableError, call
from legivellum_worker.ulids import new_ulid
from metagate_client.errors import ClientError
from metagate_client.retries import pause_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping
    from typing import Any, TypeAlias, TypeVar

    from legivellum_worker.receipts import AcceptedFields, ObligationName
    from legivellum_worker.settings import GateAccess

    Result = TypeVar("Result")
    Steps: TypeAlias = Generator["LedgerCall | float", Any, Result]

log = logging.getLogger("legivellum_worker")

_PAGE = 500
_ASKED_BEFORE = frozenset({"DEDUPE_CONFLICT", "NOT_CUSTODIAN", "OBLIGATION_ALREADY_TERMINATED"})
"""How the ledger refuses to open an obligation that is there already, in somebody's custody or closed."""
_TAKEN = "DEDUPE_CONFLICT"


class NotRecorded(ClientError):  # noqa: N818 - named in the contract
    """The ledger did not answer until the deadline. `receipt` may be recorded or not: `Ledger.send` repeats it.

    `result` is what a function under `@receipted` returned, when only its completion could not be recorded.
    """

    exit_code = 3

    def __init__(self, receipt: Mapping[str, Any], reason: str) -> None:
        super().__init__(f"the receipt {receipt.get('receipt_id')} is not recorded: {reason}")
        self.receipt = dict(receipt)
        self.result: object = None


class Refused(ClientError):  # noqa: N818 - named in the contract
    """The ledger said no. `status` and `code` are those of its answer; the same again would be refused again."""

    exit_code = 1

    def __init__(self, code: str, status: int, detail: str) -> None:
        super().__init__(detail)
        self.code, self.status = code, status


class LedgerCall:
    """One attempt of one call."""

    __slots__ = ("_access", "_body", "_method", "_path", "_seconds")

    def __init__(
        self, access: GateAccess, method: str, path: str, body: Mapping[str, Any] | None, seconds: float
    ) -> None:
        self._access, self._method, self._path, self._body = access, method, path, body
        self._seconds = seconds

    def perform(self) -> dict[str, Any]:
        """The answer. Raises ClientError."""
        return call(self._access, self._method, self._path, self._body, seconds=self._seconds)


class RecordedReceipt:
    """A receipt and the ledger's answer; `answer` is empty for one that waits to be sent later."""

    __slots__ = ("answer", "receipt")

    def __init__(self, receipt: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
        self.receipt, self.answer = receipt, answer

    def __repr__(self) -> str:
        return f"<RecordedReceipt {self.receipt_id}, {self.receipt['phase']} of {self.obligation_id}>"

    @property
    def receipt_id(self) -> str:
        """The id under which the ledger has it: of the first receipt, where it holds the same under a dedupe_key."""
        return str(self.answer.get("receipt_id") or self.receipt["receipt_id"])

    @property
    def task_id(self) -> str:
        return str(self.receipt["task_id"])

    @property
    def obligation_id(self) -> str:
        return str(self.receipt["obligation_id"])

    @property
    def principal_ai(self) -> str:
        return str(self.receipt["principal_ai"])

    @property
    def stored_at(self) -> str | None:
        """By the ledger's clock; None until it is recorded."""
        return self.answer.get("stored_at")

    @property
    def replayed(self) -> bool:
        """The ledger had it before."""
        return bool(self.answer.get("replayed"))


class OpenObligation:
    """An item of an inbox. `content` is what the ledger says of it, `receipt` the one that gave custody of it."""

    __slots__ = ("content",)

    def __init__(self, content: Mapping[str, Any]) -> None:
        self.content = content

    def __repr__(self) -> str:
        return f"<OpenObligation {self.obligation_id}>"

    @property
    def receipt(self) -> Mapping[str, Any]:
        receipt: Mapping[str, Any] = self.content["receipt"]
        return receipt

    @property
    def receipt_id(self) -> str:
        return str(self.receipt["receipt_id"])

    @property
    def task_id(self) -> str:
        return str(self.content["task_id"])

    @property
    def obligation_id(self) -> str:
        return str(self.content["obligation_id"])

    @property
    def principal_ai(self) -> str:
        """Who owns it."""
        return str(self.content["principal_ai"])

    @property
    def summary(self) -> str:
        return str(self.receipt.get("task_summary") or "")


class Question:
    """An obligation in somebody's inbox that waits for an answer. Its id can be kept: `answer` takes it as well."""

    __slots__ = ("obligation_id", "principal_ai", "receipt_id", "task_id", "text", "to")

    def __init__(self, task_id: str, owner: str, to: str, text: str) -> None:
        self.task_id, self.principal_ai, self.to, self.text = task_id, owner, to, text
        self.obligation_id = receipts.question_id(task_id, to, text)
        self.receipt_id = ""

    def __repr__(self) -> str:
        return f"<Question {self.obligation_id} to {self.to}>"


class Answer(str):
    """What somebody wrote as they closed a question: a text, which may be empty.

    `status` is `success`, `failure` (they said no) or `canceled`; `by` says who, `receipt_id` where it stands.
    """

    __slots__ = ("by", "receipt_id", "status")

    by: str
    receipt_id: str
    status: str

    @classmethod
    def of(cls, receipt: Mapping[str, Any]) -> Answer:
        answer = cls(receipt.get("outcome_text") or "")
        answer.by, answer.status = str(receipt["emitter"]), str(receipt["status"])
        answer.receipt_id = str(receipt["receipt_id"])
        return answer

    @property
    def approved(self) -> bool:
        """Closed as a success. A question that somebody failed or canceled is not approved, whatever they wrote."""
        return self.status == "success"


class LedgerCalls:
    """The verbs as generators. `seconds` bounds each, repetitions included."""

    def __init__(
        self,
        access: GateAccess,
        principal: str,
        *,
        seconds: float,
        on_not_recorded: Callable[[dict[str, Any]], object] | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.access, self.principal = access, principal
        self._seconds, self._on_not_recorded, self._clock = seconds, on_not_recorded, clock

    def owned(self, fields: AcceptedFields) -> dict[str, Any]:
        """The fields of an obligation, which is the caller's own unless they say otherwise."""
        return {"owner": self.principal, **fields}

    # ── writing ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def send(self, receipt: Mapping[str, Any]) -> Steps[RecordedReceipt]:
        """One receipt, until it is answered. Raises NotRecorded and Refused."""
        try:
            answer = yield from self._answered("POST", "/receipts", receipt)
        except GateUnavailableError as error:
            raise NotRecorded(receipt, str(error)) from error
        return RecordedReceipt(receipt, answer)

    def record(self, receipt: Mapping[str, Any]) -> Steps[RecordedReceipt]:
        """As `send`, but what cannot be recorded now goes to the caller's `on_not_recorded`, where there is one."""
        try:
            return (yield from self.send(receipt))
        except NotRecorded as error:
            if self._on_not_recorded is None:
                raise
            log.warning("receipt_deferred receipt_id=%s phase=%s", receipt["receipt_id"], receipt["phase"])
            self._on_not_recorded(error.receipt)
            return RecordedReceipt(receipt, {})

    def claim_attempt(self, receipt: dict[str, Any]) -> Steps[RecordedReceipt]:
        """Open `task:n` with the lowest n that nobody opened. `receipt` is an `accepted` without its obligation.

        The dedupe_key decides between two that claim the same n: the ledger takes one, the other sees its receipt.
        """
        number = 1
        while True:
            claimed = receipt | {
                "receipt_id": new_ulid(),
                "obligation_id": f"{receipt['task_id']}:{number}",
                "attempt": number,
                "dedupe_key": f"{receipt['task_id']}:{number}",
            }
            try:
                recorded = yield from self.record(claimed)
                if recorded.receipt_id == claimed["receipt_id"]:
                    return recorded
            except Refused as error:
                if error.code != _TAKEN:
                    raise
            try:
                number = max(number, (yield from self._last_attempt(receipt["task_id"]))) + 1
            except GateUnavailableError as error:
                raise NotRecorded(receipt, str(error)) from error

    def _last_attempt(self, task_id: str) -> Steps[int]:
        return max((receipt["attempt"] for receipt in (yield from self.receipts(task_id))), default=0)

    def ask(self, question: Question, *, caused_by: str | None = None, **more: Any) -> Steps[Question]:
        """Put the question into an inbox; asked before, by this process or another, it is the same question."""
        receipt = receipts.accepted(
            question.task_id,
            owner=question.principal_ai,
            obligation_id=question.obligation_id,
            recipient=question.to,
            summary=_summary(question.text),
            body=question.text,
            caused_by=caused_by,
            dedupe_key=question.obligation_id,
            **{"task_type": "question", **more},
        )
        try:
            question.receipt_id = (yield from self.record(receipt)).receipt_id
        except Refused as error:
            if error.code not in _ASKED_BEFORE:
                raise
            [known] = yield from self._lookup([question.obligation_id])
            if known["principal_ai"] != question.principal_ai:
                raise
            question.receipt_id = known["opened_by"]
        return question

    # ── reading ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def answer(self, question: ObligationName | str) -> Steps[Answer | None]:
        """None while the question is open, or where nobody asked it."""
        obligation_id = question if isinstance(question, str) else question.obligation_id
        [known] = yield from self._lookup([obligation_id])
        if not known["closed_by"]:
            return None
        return Answer.of((yield from self._answered("GET", f"/receipts/{known['closed_by']}")))

    def inbox(self, **parameters: str) -> Steps[list[OpenObligation]]:
        return [OpenObligation(item) for item in (yield from self._pages("/inbox", parameters))]

    def receipts(self, task_id: str) -> Steps[list[dict[str, Any]]]:
        from urllib.parse import quote

        return (yield from self._pages(f"/receipts/task/{quote(task_id, safe='')}", {}))

    def _lookup(self, obligation_ids: list[str]) -> Steps[list[dict[str, Any]]]:
        answer = yield from self._answered("POST", "/v1/obligations/lookup", {"obligation_ids": obligation_ids})
        return list(answer["items"])

    def _pages(self, path: str, parameters: Mapping[str, str]) -> Steps[list[dict[str, Any]]]:
        from urllib.parse import urlencode

        items: list[dict[str, Any]] = []
        cursor: str | None = None
        while True:
            query = {**parameters, "limit": str(_PAGE), **({} if cursor is None else {"cursor": cursor})}
            answer = yield from self._answered("GET", f"{path}?{urlencode(query)}")
            items += answer["items"]
            cursor = answer["next_cursor"]
            if cursor is None:
                return items

    # ── the wire ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def _answered(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Steps[dict[str, Any]]:
        """The answer, however often it takes until the deadline. Raises Refused and GateUnavailableError."""
        deadline = self._clock() + self._seconds
        number = 0
        while True:
            left = max(0.05, deadline - self._clock())
            try:
                answer: dict[str, Any] = yield LedgerCall(self.access, method, path, body, min(CALL_SECONDS, left))
            except GateError as error:
                raise Refused(error.code, error.status, str(error)) from error
            except GateUnavailableError as error:
                pause = pause_seconds(number, error.retry_after)
                if self._clock() + pause >= deadline:
                    raise
            else:
                return answer
            number += 1
            yield pause


def perform_steps(steps: Steps[Result]) -> Result:
    """What the verb gives, in the caller's thread."""
    try:
        step = next(steps)
        while True:
            try:
                answer = perform_step(step)
            except ClientError as error:
                step = steps.throw(error)
            else:
                step = steps.send(answer)
    except StopIteration as end:
        result: Result = end.value
        return result


def perform_step(step: LedgerCall | float) -> object:
    if isinstance(step, LedgerCall):
        return step.perform()
    time.sleep(step)
    return None


def _summary(text: str) -> str:
    """One printable line for an inbox, which shows the whole text as the task's body."""
    line = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return line if len(line) <= 200 else f"{line[:199]}…"
