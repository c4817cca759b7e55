"""One job under a lease: limits, inputs, the model and its tools, the check of the output.

It stores nothing and sends no end: what it returns or raises, the worker library stores and sends (CG-03, CG-04).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from cognigate.model_catalog import ModelCatalog
from cognigate.output_check import DRAFT, draft_problems, output_problems
from cognigate.prompts import assistant_message, first_messages, repair_message, tool_message
from cognigate.spending import LIMIT_SECONDS, JobLimits, Spending
from legivellum_worker.dependencies import RETRY_SECONDS
from legivellum_worker.gate_client import GateError
from legivellum_worker.models import Ask, Message, ModelAway, ModelGarbage, ModelRefused, ModelReply, RequestedTool
from legivellum_worker.outputs import is_granted
from legivellum_worker.results import AUTHORITY_INSUFFICIENT, OUTPUT_TOO_LARGE, Failed, Output, Release
from legivellum_worker.settings import WorkerSettings
from legivellum_worker.work import Work
from metagate_client.retries import pause_seconds

_MOST_UNGRANTED: Final = 3
_LONGEST_RELEASE: Final = 3_600
_TEXT: Final = "text/plain"
_LEASE_LOST: Final = "LEASE_LOST"
_NO_SCHEMA: Final[Mapping[str, Any]] = {}

OnCall = Callable[[str], object]


class CognitionRunner:
    """What all jobs of one process share. `on_call` is told how each question to a model ended."""

    def __init__(
        self,
        models: ModelCatalog,
        gates: WorkerSettings,
        *,
        policy: Mapping[str, Any],
        ask_seconds: float,
        on_call: OnCall = lambda _outcome: None,
    ) -> None:
        self.models, self.gates, self.policy = models, gates, policy
        self.ask_seconds, self.on_call = ask_seconds, on_call

    def run(self, work: Work) -> Output:
        """Raises Failed, with the usage, and Release; GateError, GateUnavailableError and LeaseLostError of gates."""
        limits = JobLimits.of(work.authority, self.policy)
        if not is_granted(work):
            # Asked before anything is spent: DepotGate would refuse the output.
            raise Failed(AUTHORITY_INSUFFICIENT, "the authority grants no output to depotgate/output")
        job = _Job(self, work, limits)
        try:
            return job.run()
        except Failed as failure:
            raise Failed(failure.code, failure.text, usage=job.spending.usage()) from failure


class _Job:
    def __init__(self, cognition: CognitionRunner, work: Work, limits: JobLimits) -> None:
        self._cognition, self._work, self._tools = cognition, work, work.tools
        alias, self._client, self._model = cognition.models.choose(limits.models, work.job.settings.get("model"))
        self.spending = Spending(limits, self._client.name, alias=alias)
        self._ungranted, self._is_away = 0, False

    def run(self) -> Output:
        job = self._work.job
        messages = first_messages(job, self._work.inputs())
        tools = self._listed()
        is_repaired = False
        while True:
            reply = self._reply(messages, tools)
            if reply.tool_calls:
                messages.append(assistant_message(reply.text, reply.tool_calls))
                messages += [tool_message(call, self._tool_result(call)) for call in reply.tool_calls]
                continue
            if reply.finish == "length":
                raise Failed("OUTPUT_TRUNCATED")
            self._require_small(reply.text)
            problems = self._problems(reply.text)
            if not problems:
                return Output(reply.text.encode(), job.media_type or _TEXT, usage=self.spending.usage())
            messages += [assistant_message(reply.text), repair_message(problems)]
            if is_repaired or self.spending.refusal(_size(messages)) is not None:
                raise Failed("OUTPUT_INVALID")
            is_repaired = True

    # ── the model ────────────────────────────────────────────────────────────────────────────────────────────────────

    def _reply(self, messages: list[Message], tools: list[dict[str, Any]]) -> ModelReply:
        """A reply, asked for until there is one or a limit is reached."""
        size = _size(messages) + _size(tools)
        for attempt in range(1_000_000):
            self._work.check()
            self._require_allowed(size)
            try:
                reply = self._asked(messages, tools, size)
            except ModelAway as error:
                self._wait(error, attempt)
            except ModelGarbage as error:
                self._cognition.on_call("garbage")
                if self.spending.calls_left <= 0:
                    raise Failed("MODEL_GARBAGE") from error
            except ModelRefused as error:
                self._cognition.on_call("refused")
                raise Failed("MODEL_REFUSED", str(error)) from error
            else:
                self._cognition.on_call("answered")
                self.spending.on_reply(reply, size)
                return reply
        raise AssertionError

    def _asked(self, messages: list[Message], tools: list[dict[str, Any]], size: int) -> ModelReply:
        # Counted before it is sent: what is cut off may have been paid for.
        self.spending.calls += 1
        self._is_away = False
        seconds = min(self.spending.seconds_left, self._cognition.ask_seconds)
        ask = Ask(
            self._model,
            messages,
            tools,
            self._schema(),
            max_tokens=self.spending.max_tokens(size),
            seed=int.from_bytes(hashlib.sha256(self._work.task_id.encode()).digest()[:4], "big") >> 1,
            is_cancelled=self._work.cancelled.is_set,
        )
        return self._client.reply(ask, time.monotonic() + seconds)

    def _schema(self) -> Mapping[str, Any] | None:
        job = self._work.job
        is_json = job.media_type == "application/json" or self._work.capability == DRAFT
        return job.output_schema if job.output_schema is not None else (_NO_SCHEMA if is_json else None)

    def _require_allowed(self, size: int) -> None:
        refusal = self.spending.refusal(size)
        if refusal is None:
            return
        if self._is_away:
            raise Release(RETRY_SECONDS, "the model is away")
        raise Failed(refusal)

    def _wait(self, error: ModelAway, attempt: int) -> None:
        """Until it is worth to ask again. Raises Release where that is too late for the job."""
        self._is_away = True
        self._cognition.on_call("unauthorized" if error.is_unauthorized else "away")
        if not error.was_asked:
            self.spending.calls -= 1
        if self.spending.seconds_left <= 0 and self.spending.has_replies:
            # It answers, and needs more time than was granted: another lease would not change that.
            raise Failed(LIMIT_SECONDS)
        pause = pause_seconds(attempt, error.retry_after)
        if error.is_unauthorized or pause >= self.spending.seconds_left or self.spending.calls_left <= 0:
            raise Release(min(_LONGEST_RELEASE, max(RETRY_SECONDS, int(error.retry_after or 0))), "the model is away")
        self._work.cancelled.wait(pause)

    # ── tools ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def _listed(self) -> list[dict[str, Any]]:
        try:
            return self._tools.definitions()
        except GateError as error:
            if error.code == _LEASE_LOST:
                raise
            raise Release(RETRY_SECONDS, "InterroGate does not list tools") from error

    def _tool_result(self, call: RequestedTool) -> str:
        """What the model is told. A tool that was not listed is not called; the third such call ends the job."""
        name = self._tools.name_of(call)
        if name is None:
            self._ungranted += 1
            if self._ungranted >= _MOST_UNGRANTED:
                raise Failed("TOOL_NOT_GRANTED")
            return "TOOL_NOT_GRANTED: there is no such tool."
        self._work.check()
        if self.spending.seconds_left <= 0:
            raise Failed(LIMIT_SECONDS)
        self.spending.tools[name] += 1
        return self._tools.result(name, call, self.spending.seconds_left)

    # ── the output ───────────────────────────────────────────────────────────────────────────────────────────────────

    def _require_small(self, text: str) -> None:
        most = self._work.job.max_output_bytes
        if most is not None and len(text.encode()) > most:
            raise Failed(OUTPUT_TOO_LARGE)

    def _problems(self, text: str) -> list[str]:
        problems = output_problems(self._work.job, text)
        if problems or self._work.capability != DRAFT:
            return problems
        delegate = self._cognition.gates.delegate
        if delegate is None:
            raise Release(RETRY_SECONDS, "the worker knows no DeleGate, and cannot have a draft judged")
        return list(draft_problems(delegate, text))


def _size(messages: list[Any]) -> int:
    return len(json.dumps(messages, ensure_ascii=False).encode("utf-8", "replace"))
