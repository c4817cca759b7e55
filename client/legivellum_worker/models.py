"""The port to models: what is asked, what is answered, and the three ways in which there is no answer (CG-10).

ModelError
├── ModelAway      no answer in time, or one that asks to come again
├── ModelRefused   the model, or who serves it, will not do this
└── ModelGarbage   an answer that is no answer of the protocol
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

Message = Mapping[str, Any]
"""As chat completions have it: `role`, `content`, and for tools `tool_calls` or `tool_call_id`."""


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `output_schema`: the answer must be JSON of this schema; an empty one: any JSON."""

    model: str
    messages: Sequence[Message]
    tools: Sequence[Mapping[str, Any]] = ()
    output_schema: Mapping[str, Any] | None = None
    max_tokens: int = 1_024
    seed: int = 0
    is_cancelled: Callable[[], bool] = _never
    """Asked at least once a second: the lease may be lost meanwhile."""


@dataclass(frozen=True, slots=True)
class RequestedTool:
    """A call that the model wants. `arguments` is the JSON text that it wrote."""

    call_id: str
    name: str
    arguments: str


@dataclass(frozen=True, slots=True)
class TokenCounts:
    prompt: int
    completion: int
    cached: int = 0


@dataclass(frozen=True, slots=True)
class ModelReply:
    """`usage` is what the provider claims; None where it claims nothing that can be."""

    text: str
    finish: str
    """`stop`, `length` or `tool_calls`."""
    usage: TokenCounts | None
    model: str
    raw_sha256: str
    tool_calls: Sequence[RequestedTool] = ()


class ModelError(Exception):
    """No reply."""


class ModelAway(ModelError):  # noqa: N818 - a state of the provider
    """`was_asked`: the question may have reached the model, so it counts as a call."""

    def __init__(
        self, reason: str, *, retry_after: float | None = None, was_asked: bool = True, is_unauthorized: bool = False
    ) -> None:
        super().__init__(reason)
        self.retry_after, self.was_asked, self.is_unauthorized = retry_after, was_asked, is_unauthorized


class ModelRefused(ModelError):  # noqa: N818 - a decision of the provider
    pass


class ModelGarbage(ModelError):  # noqa: N818 - what came instead of a reply
    pass


class ModelClient(Protocol):
    """`name` stands in receipts. `deterministic`: the same question has the same answer."""

    @property
    def name(self) -> str: ...
    @property
    def deterministic(self) -> bool: ...

    def reply(self, ask: Ask, deadline: float) -> ModelReply:
        """`deadline` in seconds of `time.monotonic`. Raises ModelAway, ModelRefused, ModelGarbage."""
        ...
