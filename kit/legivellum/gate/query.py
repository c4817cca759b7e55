"""What the gates' lists have in common: query parameters, pages. A refusal names the parameter, never its value."""

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qsl
from uuid import UUID

from legivellum.http import strict_json
from legivellum.http.endpoints import Schema, in_query
from legivellum.http.exchange import Exchange
from legivellum.http.openapi import schema_reference
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller
from legivellum.identity.tenancy import authorized_tenant

DEFAULT_LIMIT: Final = 100
LARGEST_LIMIT: Final = 500
_LONGEST_VALUE: Final = 2_048

TENANT_QUERY: Final = in_query(
    "tenant", {"type": "string", "format": "uuid"}, "Cluster-wide admins and observers only (D-51)."
)
LIMIT_QUERY: Final = in_query(
    "limit",
    {"type": "integer", "minimum": 1, "maximum": LARGEST_LIMIT, "default": DEFAULT_LIMIT},
    "Most items of one page.",
)
CURSOR_QUERY: Final = in_query(
    "cursor", {"type": "string", "minLength": 1, "maxLength": 1024}, "`next_cursor` of the page before."
)


def page_schema(item: str) -> Schema:
    """The JSON schema of a page whose items have the schema `item`."""
    return {
        "type": "object",
        "required": ["items", "next_cursor"],
        "properties": {
            "items": {"type": "array", "items": schema_reference(item)},
            "next_cursor": {"type": ["string", "null"]},
        },
    }


def page_body(items: list[bytes], next_cursor: str | None, **more: Any) -> bytes:
    """A page of items that are JSON already."""
    rest = strict_json.encode({"next_cursor": next_cursor, **more})[1:]
    return b'{"items":[' + b",".join(items) + b"]," + rest


def query_parameters(exchange: Exchange, *known: str) -> Mapping[str, str]:
    """Raises INVALID_REQUEST for a parameter that is unknown, repeated or not plain text."""
    raw: bytes = exchange.scope.get("query_string", b"")
    try:
        pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, strict_parsing=bool(raw), errors="strict")
    except ValueError:
        raise refuse(Code.INVALID_REQUEST, "The query string is malformed.") from None
    parameters: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise refuse(Code.INVALID_REQUEST, f"The query knows only: {', '.join(known) or 'nothing'}.")
        if name in parameters or not value or not value.isprintable() or len(value) > _LONGEST_VALUE:
            raise refuse(Code.INVALID_REQUEST, f"{name}: must be given once, as plain text.")
        parameters[name] = value
    return parameters


def tenant_parameter(parameters: Mapping[str, str], caller: Caller) -> UUID:
    """The tenant that is read: `tenant`, or the caller's own (D-51). Raises INVALID_REQUEST, TENANT_MISMATCH."""
    text = parameters.get("tenant")
    try:
        wanted = None if text is None else UUID(text)
    except ValueError:
        raise refuse(Code.INVALID_REQUEST, "tenant: must be the uid of a namespace.") from None
    return authorized_tenant(caller, wanted)


def limit_parameter(parameters: Mapping[str, str]) -> int:
    """The most items of a page. Raises INVALID_REQUEST."""
    text = parameters.get("limit", str(DEFAULT_LIMIT))
    if not (text.isascii() and text.isdigit() and len(text) < 5 and 1 <= int(text) <= LARGEST_LIMIT):
        raise refuse(Code.INVALID_REQUEST, f"limit: must be 1 to {LARGEST_LIMIT}.")
    return int(text)
