"""The OpenAPI document: written from the catalogue, hot routes included, every answer of every endpoint named."""

from typing import Any

from legivellum.http.problem_codes import MEANINGS, Code
from metagate_api.catalogue import ENDPOINTS, Endpoint, Reply
from metagate_api.schemas import SCHEMAS, named
from metagate_api.settings import Settings

_TEXT_HEADER = {"schema": {"type": "string"}}


def document(settings: Settings) -> dict[str, Any]:
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ENDPOINTS:
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = _operation(endpoint)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "MetaGate",
            "version": settings.version,
            "summary": "Bootstrap truth: who am I, what may I do, what world am I in?",
        },
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, "Code": {"type": "string", "enum": [code.value for code in Code]}},
            "securitySchemes": {
                "apiKey": {"type": "apiKey", "in": "header", "name": settings.api_key_header},
                "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"},
            },
        },
    }


def _operation(endpoint: Endpoint) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "summary": endpoint.summary,
        "operationId": _name(endpoint),
        "security": [] if endpoint.auth == "none" else [{"apiKey": []}, {"bearer": []}],
        "responses": {
            **{str(reply.status): _reply(reply) for reply in endpoint.replies},
            **{str(status): _refusal(codes) for status, codes in _by_status(endpoint).items()},
        },
    }
    if endpoint.parameters:
        operation["parameters"] = list(endpoint.parameters)
    if endpoint.body is not None:
        content = {media: {"schema": named(endpoint.body)} for media in endpoint.media}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _name(endpoint: Endpoint) -> str:
    words = endpoint.path.replace(".", "/").replace("-", "_").replace("{", "").replace("}", "").split("/")
    return "_".join([endpoint.method.lower(), *filter(None, words)])


def _reply(reply: Reply) -> dict[str, Any]:
    said: dict[str, Any] = {"description": reply.says}
    if reply.schema is not None:
        said["content"] = {reply.media: {"schema": named(reply.schema)}}
    if reply.headers:
        said["headers"] = dict.fromkeys(reply.headers, _TEXT_HEADER)
    return said


def _by_status(endpoint: Endpoint) -> dict[int, list[Code]]:
    found: dict[int, list[Code]] = {}
    for code in endpoint.codes:
        found.setdefault(MEANINGS[code].status, []).append(code)
    return dict(sorted(found.items()))


def _refusal(codes: list[Code]) -> dict[str, Any]:
    return {
        "description": "; ".join(f"`{code}`: {MEANINGS[code].when}" for code in codes),
        "content": {"application/problem+json": {"schema": named("Problem")}},
    }
