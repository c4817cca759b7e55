"""The OpenAPI document of a gate, written from its endpoint table: every path, every answer that it may give."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from legivellum.http.endpoints import ANYBODY, Endpoint, Reply, Schema
from legivellum.http.problem_codes import ProblemCode

_TEXT_HEADER: Final = {"schema": {"type": "string"}}
_PROBLEM: Final[Schema] = {
    "type": "object",
    "properties": {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "code": {"$ref": "#/components/schemas/Code"},
    },
    "required": ["type", "title", "status", "detail", "code"],
    "additionalProperties": False,
}


def schema_reference(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def object_schema(properties: Schema, *, required: tuple[str, ...] | None = None, closed: bool = False) -> Schema:
    """An object with these members, all of them unless `required` names fewer; `closed`: and with no others."""
    schema: Schema = {"type": "object", "required": list(properties if required is None else required)}
    if closed:
        schema["additionalProperties"] = False
    return {**schema, "properties": properties}


def openapi_document(
    endpoints: Iterable[Endpoint],
    *,
    info: Mapping[str, str],
    schemas: Mapping[str, Schema],
    codes: Iterable[ProblemCode],
    api_key_header: str | None,
) -> dict[str, Any]:
    """`info` has title and version. `schemas` by the names that the endpoints use; `codes`: all of the gate's.

    `api_key_header`: None for a gate that knows no credentials.
    """
    paths: dict[str, dict[str, Any]] = {}
    codes = list(codes)
    for endpoint in endpoints:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": dict(info),
        "paths": paths,
        "components": {
            "schemas": {
                **schemas,
                "Problem": _problem(codes),
                "Code": {"type": "string", "enum": [code.name for code in codes]},
            },
            "securitySchemes": {} if api_key_header is None else _security_schemes(api_key_header),
        },
    }


def _problem(codes: Iterable[ProblemCode]) -> Schema:
    extension = {name: schema for code in codes for name, schema in code.extension.items()}
    return {**_PROBLEM, "properties": {**_PROBLEM["properties"], **extension}}


def _security_schemes(api_key_header: str) -> dict[str, Any]:
    return {
        "apiKey": {"type": "apiKey", "in": "header", "name": api_key_header},
        "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": endpoint.operation_id,
        "security": [] if endpoint.auth == ANYBODY else [{"apiKey": []}, {"bearer": []}],
        "responses": _responses(endpoint),
    }
    if endpoint.parameters:
        operation["parameters"] = list(endpoint.parameters)
    if endpoint.body is not None:
        content = {media: {"schema": schema_reference(endpoint.body)} for media in endpoint.media}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    """By status. A status may be both an answer and a refusal, told apart by their content type."""
    responses = {str(reply.status): _success(reply) for reply in endpoint.replies}
    for status, codes in _codes_by_status(endpoint).items():
        answer, refusal = responses.get(str(status), {}), _refusal(codes)
        content = {**answer.get("content", {}), **refusal["content"]}
        described = [response["description"] for response in (answer, refusal) if response]
        responses[str(status)] = {**answer, "description": " ".join(described), "content": content}
    return responses


def _success(reply: Reply) -> dict[str, Any]:
    response: dict[str, Any] = {"description": reply.description}
    if reply.schema is not None:
        response["content"] = {reply.media: {"schema": schema_reference(reply.schema)}}
    if reply.headers:
        response["headers"] = dict.fromkeys(reply.headers, _TEXT_HEADER)
    return response


def _codes_by_status(endpoint: Endpoint) -> dict[int, list[ProblemCode]]:
    by_status: dict[int, list[ProblemCode]] = {}
    for code in endpoint.all_codes:
        by_status.setdefault(code.status, []).append(code)
    return dict(sorted(by_status.items()))


def _refusal(codes: list[ProblemCode]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"`{code}`: {code.meaning}" for code in codes),
        "content": {"application/problem+json": {"schema": schema_reference("Problem")}},
    }
