"""What a job may spend on models, and what it has spent: the least of its authority and of the packet's policy.

What a provider says of tokens is believed where it can be. No usage, or one that is too small for the text, counts as
all that was left: then there is no further call (CG-12).
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from legivellum_worker.models import ModelReply
from legivellum_worker.results import AUTHORITY_INSUFFICIENT, Failed

LIMIT_CALLS: Final = "LIMIT_CALLS"
LIMIT_TOKENS: Final = "LIMIT_TOKENS"
LIMIT_SECONDS: Final = "LIMIT_SECONDS"
_NUMBERS: Final = ("calls", "tokens", "seconds")
_BYTES_PER_TOKEN: Final = 4
"""How large a question is guessed to be, before its provider says."""
_MOST_BYTES_PER_TOKEN: Final = 16
"""No text of some length has tokens that are longer than this on average."""
_MOST_LISTED: Final = 100
"""Names and digests in a receipt, which has no room for a thousand."""


@dataclass(frozen=True, slots=True)
class JobLimits:
    models: tuple[str, ...]
    calls: int
    tokens: int
    seconds: int

    @classmethod
    def of(cls, authority: Mapping[str, Any], policy: Mapping[str, Any]) -> JobLimits:
        """What is absent from the authority is denied; the policy can only take away. Raises Failed."""
        granted: Mapping[str, Any] = authority.get("cognition") or {}
        missing = [name for name in ("models", *_NUMBERS) if not granted.get(name)]
        if not authority.get("invokeCognigate") or missing:
            name = f"cognition.{missing[0]}" if missing else "invokeCognigate"
            raise Failed(AUTHORITY_INSUFFICIENT, f"the authority has no {name}")
        permitted = policy.get("models")
        models = tuple(name for name in granted["models"] if permitted is None or name in permitted)
        if not models:
            raise Failed(AUTHORITY_INSUFFICIENT, "the policy of the worker permits none of the models")
        return cls(models, *(min(granted[name], policy.get(name, granted[name])) for name in _NUMBERS))


class Spending:
    """Of one job under one lease. `clock`: seconds that only go on. `alias`: by which the model was granted."""

    def __init__(
        self, limits: JobLimits, model: str, clock: Callable[[], float] = time.monotonic, *, alias: str | None = None
    ) -> None:
        self.limits, self._model, self._clock, self._alias = limits, model, clock, alias
        self._started = clock()
        self.deadline = self._started + limits.seconds
        self.calls = 0
        self.tools: Counter[str] = Counter()
        self._left = limits.tokens
        self._prompt = self._completion = self._cached = 0
        self._replies: list[str] = []

    @property
    def calls_left(self) -> int:
        return self.limits.calls - self.calls

    @property
    def has_replies(self) -> bool:
        return bool(self._replies)

    @property
    def seconds_left(self) -> float:
        return self.deadline - self._clock()

    def refusal(self, prompt_bytes: int) -> str | None:
        """Why a question of this size cannot be asked any more."""
        if self.seconds_left <= 0:
            return LIMIT_SECONDS
        if self.calls_left <= 0:
            return LIMIT_CALLS
        return None if self.max_tokens(prompt_bytes) > 0 else LIMIT_TOKENS

    def max_tokens(self, prompt_bytes: int) -> int:
        """What is left for the answer."""
        return self._left - -(-prompt_bytes // _BYTES_PER_TOKEN)

    def on_reply(self, reply: ModelReply, prompt_bytes: int) -> None:
        """Count a reply. Raises Failed where more was used than was left."""
        self._replies.append(reply.raw_sha256)
        answer_bytes = len(reply.text.encode()) + sum(len(call.arguments.encode()) for call in reply.tool_calls)
        usage = reply.usage
        if usage is None or _is_too_small(usage.prompt, prompt_bytes) or _is_too_small(usage.completion, answer_bytes):
            prompt = min(self._left, -(-prompt_bytes // _BYTES_PER_TOKEN))
            self._count(prompt, self._left - prompt, 0)
            return
        total, left = usage.prompt + usage.completion, self._left
        prompt = min(usage.prompt, left)
        self._count(prompt, min(usage.completion, left - prompt), min(usage.cached, prompt))
        if total > left:
            raise Failed(LIMIT_TOKENS, "the model used more tokens than were left")

    def _count(self, prompt: int, completion: int, cached: int) -> None:
        self._prompt, self._completion = self._prompt + prompt, self._completion + completion
        self._cached += cached
        self._left -= prompt + completion

    def usage(self) -> dict[str, Any]:
        """For `metadata.usage` of the receipt (CG-13)."""
        return {
            "model": self._model,
            "alias": self._alias,
            "calls": self.calls,
            "prompt_tokens": self._prompt,
            "cached_tokens": self._cached,
            "completion_tokens": self._completion,
            "seconds": round(self._clock() - self._started, 3),
            "tools": dict(self.tools.most_common(_MOST_LISTED)),
            "replies": self._replies[-_MOST_LISTED:],
        }


def _is_too_small(tokens: int, text_bytes: int) -> bool:
    return tokens < text_bytes // _MOST_BYTES_PER_TOKEN
