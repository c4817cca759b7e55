"""Answers as a browser gets them: HTML with the strictest policy that the pages can live with."""

from typing import Final

from legivellum.console.rendering import STATIC, static, version
from legivellum.http.exchange import Response
from legivellum.http.problems import Problem, jittered_retry_after

POLICY: Final = (
    b"default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; "
    b"form-action 'self'; frame-ancestors 'none'"
)
"""Nothing inline, nothing from another origin, and no other page may frame it."""

HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", POLICY),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
)
_FRESH: Final = (b"cache-control", b"no-store")
_KEPT: Final = (b"cache-control", b"public, max-age=86400")

Header = tuple[bytes, bytes]


def html(body: bytes, *more: Header, status: int = 200) -> Response:
    sized = (b"content-length", str(len(body)).encode())
    return Response(status, [(b"content-type", b"text/html; charset=utf-8"), sized, _FRESH, *HEADERS, *more], body)


def redirect(address: str, *more: Header) -> Response:
    """See there, with GET."""
    return Response(303, [(b"location", address.encode()), (b"content-length", b"0"), _FRESH, *HEADERS, *more], b"")


def asset(name: str, query: bytes) -> Response | None:
    """A static file, to be kept only under the address that names its content: while a release is rolled out, another
    process may have another content under the same name.
    """
    media = STATIC.get(name)
    if media is None:
        return None
    body = static(name)
    kept = _KEPT if query == f"v={version(name)}".encode() else _FRESH
    return Response(
        200,
        [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode()), kept, *HEADERS],
        body,
    )


def problem_headers(problem: Problem) -> list[Header]:
    """When to come back, where that is worth saying."""
    again = (
        [(b"retry-after", str(problem.retry_after or jittered_retry_after()).encode())]
        if problem.status in {429, 503}
        else []
    )
    return [*again, *problem.headers]
