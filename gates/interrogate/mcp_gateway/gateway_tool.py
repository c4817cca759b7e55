"""What a tool of the gateway is to the server: a definition that is listed, and a function that answers calls."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mcp.server.context import ServerRequestContext
from mcp.shared.exceptions import MCPError
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS

from interrogate.admission_service import UNSTORED
from interrogate.mcp_gateway.caller import McpRequest
from interrogate.problem_codes import Code
from legivellum.http.problems import RequestRefused

Result = dict[str, Any]
"""A result as it stands on the wire: `CallToolResult`, or what an extension defines."""
TASKS_EXTENSION: Final = "io.modelcontextprotocol/tasks"
RECEIPT_META: Final = "legivellum.io/receipt"
IDEMPOTENCY_KEY_META: Final = ("legivellum.io/idempotency-key", "legivellum.io/idempotency_key")
"""As headers are written, and as members are: clients know both."""
CAUSALITY_META: Final = "legivellum.io/causality"


@dataclass(frozen=True, slots=True)
class ToolRequest:
    """One call of a tool: who calls, with what, and the channel back to the client."""

    request: McpRequest
    context: ServerRequestContext[Any, Any]
    arguments: Mapping[str, Any]

    @property
    def meta(self) -> Mapping[str, Any]:
        """`_meta` of the call as the client sent it."""
        meta = (self.context.params or {}).get("_meta")
        return meta if isinstance(meta, dict) else {}

    @property
    def client_name(self) -> str | None:
        """What the client calls itself, if it does; nobody may rely on it."""
        client = self.context.session.client_params
        return None if client is None else client.client_info.name

    @property
    def takes_tasks(self) -> bool:
        """Whether this request declares the Tasks extension: only then a task may be answered."""
        return declares_tasks(self.context)


@dataclass(frozen=True, slots=True)
class GatewayTool:
    definition: Mapping[str, Any]
    """The tool as `tools/list` shows it."""
    call: Callable[[ToolRequest], Awaitable[Result]]


def declares_tasks(context: ServerRequestContext[Any, Any]) -> bool:
    capabilities = context.session.client_capabilities
    return capabilities is not None and TASKS_EXTENSION in (capabilities.extensions or {})


def invalid_params(message: str) -> MCPError:
    return MCPError(INVALID_PARAMS, message)


def protocol_error(error: Exception) -> MCPError | None:
    """What a client is told of a request about which nothing was decided; None of an error that nobody foresaw."""
    if isinstance(error, RequestRefused):
        problem = error.problem
        code = INTERNAL_ERROR if problem.status >= 500 or problem.status == 429 else INVALID_PARAMS
        return MCPError(code, problem.detail, {"code": problem.code.name})
    if isinstance(error, UNSTORED):
        detail = "Nothing was decided: the database cannot be asked right now. Try again."
        return MCPError(INTERNAL_ERROR, detail, {"code": Code.UNAVAILABLE.name})
    return None
