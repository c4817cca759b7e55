"""A model behind an endpoint of the chat-completions protocol, over the wire of `metagate_client`: no redirect is
followed, and no reply is larger than 1 MiB (CG-12).
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from legivellum_worker.models import Ask, ModelAway, ModelGarbage, ModelRefused, ModelReply, RequestedTool, TokenCounts
from metagate_client.errors import MisconfiguredError
from metagate_client.http_request import BrokenAnswerError, HttpResponse, ServerAddress, UnreachableError, send_request
from metagate_client.retries import RETRY_STATUSES, retry_after_seconds
from metagate_client.settings import parse_url

LARGEST_REPLY: Final = 1 << 20
_UNAUTHORIZED: Final = frozenset({401, 403})
_FINISHES: Final = {"stop": "stop", "length": "length", "tool_calls": "tool_calls", "function_call": "tool_calls"}
_FILTERED: Final = "content_filter"
Structured = Literal["json_schema", "json_object", "none"]


class ChatCompletions:
    """`endpoint`: the base before `/chat/completions`. `key` is read anew for each question; None: none is sent."""

    deterministic = False

    def __init__(
        self,
        name: str,
        endpoint: str,
        *,
        key: Callable[[], str] | None = None,
        structured: Structured = "json_schema",
        ca_file: str | None = None,
    ) -> None:
        self.name = name
        tls, host, port, base = parse_url(endpoint, name="the model's endpoint", owner="the model", example="llm:8080")
        self._address, self._base = ServerAddress(host, port, tls=tls, ca_file=ca_file), base
        self._key, self._structured = key, structured

    def reply(self, ask: Ask, deadline: float) -> ModelReply:
        response = self._sent(json.dumps(self._body(ask), ensure_ascii=False).encode("utf-8", "replace"), ask, deadline)
        if response.status in _UNAUTHORIZED:
            raise ModelAway(f"the model's credential was refused ({response.status})", is_unauthorized=True)
        if response.status in RETRY_STATUSES:
            raise ModelAway(f"it answered {response.status}", retry_after=retry_after_seconds(response))
        if 400 <= response.status < 500:
            raise ModelRefused(f"it answered {response.status}")
        if response.status != 200:
            raise ModelGarbage(f"it answered {response.status}")
        return parse_reply(response.body)

    def _body(self, ask: Ask) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": ask.model, "messages": list(ask.messages), "max_tokens": ask.max_tokens, "temperature": 0,
            "seed": ask.seed, "stream": False,
        }  # fmt: skip
        if ask.tools:
            body["tools"] = [{"type": "function", "function": tool} for tool in ask.tools]
        elif ask.output_schema is not None and self._structured != "none":
            # Beside tools some servers take it for every turn, also for those that should call a tool.
            body["response_format"] = self._response_format(ask.output_schema)
        return body

    def _response_format(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        if self._structured == "json_object" or not schema:
            return {"type": "json_object"}
        return {"type": "json_schema", "json_schema": {"name": "output", "schema": schema}}

    def _sent(self, body: bytes, ask: Ask, deadline: float) -> HttpResponse:
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "cognigate"}
        try:
            if self._key is not None:
                headers["Authorization"] = f"Bearer {self._key()}"
        except MisconfiguredError as error:
            raise ModelAway(str(error), was_asked=False, is_unauthorized=True) from error
        connected: list[float] = []
        try:
            return send_request(
                self._address, f"{self._base}/chat/completions", headers=headers, body=body, deadline=deadline,
                on_connected=lambda _connection: connected.append(time.monotonic()), largest_body=LARGEST_REPLY,
                is_cancelled=ask.is_cancelled,
            )  # fmt: skip
        except BrokenAnswerError as error:
            raise ModelGarbage(str(error)) from error
        except UnreachableError as error:
            raise ModelAway(str(error), was_asked=bool(connected)) from error


def parse_reply(body: bytes) -> ModelReply:
    """Raises ModelGarbage, ModelRefused."""
    try:
        document = json.loads(body)
        choice = document["choices"][0]
        message, finish = choice["message"], choice["finish_reason"]
        if finish == _FILTERED or message.get("refusal"):
            raise ModelRefused("the model refused")
        calls = tuple(_requested(call) for call in message.get("tool_calls") or ())
        return ModelReply(
            text=_text(message.get("content") or ""),
            finish="tool_calls" if calls else _FINISHES[finish],
            usage=_counts(document.get("usage")),
            model=_text(document.get("model") or ""),
            raw_sha256=hashlib.sha256(body).hexdigest(),
            tool_calls=calls,
        )
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise ModelGarbage("what it answered is no chat completion") from error


def _requested(call: Any) -> RequestedTool:
    function = call["function"]
    return RequestedTool(_text(call["id"]), _text(function["name"]), _text(function.get("arguments") or "{}"))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    # JSON can spell half a character, which no file can hold.
    return value.encode("utf-8", "replace").decode()


def _counts(usage: Any) -> TokenCounts | None:
    if not isinstance(usage, dict):
        return None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else 0
    counts: list[Any] = [usage.get("prompt_tokens"), usage.get("completion_tokens"), cached or 0]
    if any(type(count) is not int or count < 0 for count in counts):
        return None
    prompt, completion, cached = counts
    return TokenCounts(prompt, completion, cached)
