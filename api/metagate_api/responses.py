"""Answers of FastAPI's handlers, with the headers that every answer has."""

from fastapi import Response

from legivellum.http.problems import JSON_TYPE, SECURITY_HEADERS
from metagate_api.rendering import rendered


def json_response(value: object, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return raw_json_response(rendered(value), status=status, headers=headers)


def raw_json_response(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Like json_response, for what is encoded already."""
    response = Response(body, status_code=status, headers=headers)
    response.raw_headers[:0] = [(b"content-type", JSON_TYPE), *SECURITY_HEADERS]
    return response


def empty_response(status: int, headers: dict[str, str] | None = None) -> Response:
    response = Response(status_code=status, headers=headers)
    response.raw_headers.extend(SECURITY_HEADERS)
    return response
