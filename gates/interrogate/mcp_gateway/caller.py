"""The HTTP request that a message of MCP came in, for whatever handles the message.

The SDK hands some of our functions nothing but a name (`get_tool_input_schema`), and two tenants may share that name:
the request is found in the context of the task, which every task that the SDK starts for it inherits.
"""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass

from legivellum.http.exchange import Exchange
from legivellum.identity.caller import Caller


@dataclass(frozen=True, slots=True)
class McpRequest:
    """One authenticated `POST /mcp`."""

    exchange: Exchange
    caller: Caller
    body: bytes
    """As it was sent: the payload of a request is cut out of it, byte for byte (INV-112)."""

    @property
    def shows_lease(self) -> bool:
        return any(name == b"legivellum-lease" for name, _ in self.exchange.headers)


_CURRENT: ContextVar[McpRequest] = ContextVar("mcp_request")


def set_current_request(request: McpRequest) -> None:
    """For the task that answers it, and for every task that is started below."""
    _CURRENT.set(request)


def current_request() -> McpRequest:
    """Raises LookupError outside of a request: nothing is answered without a caller."""
    return _CURRENT.get()
