"""Refusals as `application/problem+json` (RFC 9457): `{type, title, status, detail, code}`, and nothing else but the
members that a code declares as its extension.

`detail` is written for a person and never contains SQL, a stack, a credential, a declared value or another
tenant's names. A 503 or 429 always says when to come back, with jitter, so that a fleet does not return at once.
"""

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from legivellum.http.problem_codes import ProblemCode

Headers = tuple[tuple[bytes, bytes], ...]

PROBLEM_TYPE = b"application/problem+json"
JSON_TYPE = b"application/json"

# No CORS, nothing cached, nothing sniffed, nothing framed: every answer is for one machine and one moment.
SECURITY_HEADERS: Headers = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"referrer-policy", b"no-referrer"),
)

RETRY_AFTER_SECONDS = (1, 3)


@dataclass(frozen=True, slots=True)
class Problem:
    """One refusal. `retry_after` in seconds overrides the jittered default of 503 and 429; `members`: those that the
    code's extension names.
    """

    code: ProblemCode
    detail: str
    headers: Headers = ()
    retry_after: int | None = None
    members: Mapping[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> int:
        return self.code.status

    def body(self) -> bytes:
        return json.dumps(
            {
                "type": f"urn:legivellum:problem:{self.code.name.lower().replace('_', '-')}",
                "title": self.code.title,
                "status": self.code.status,
                "detail": self.detail,
                "code": self.code.name,
                **self.members,
            }
        ).encode()

    def all_headers(self, length: int) -> list[tuple[bytes, bytes]]:
        """Header list for a body of `length` bytes, Retry-After and WWW-Authenticate included where they are due."""
        headers = [(b"content-type", PROBLEM_TYPE), (b"content-length", b"%d" % length), *SECURITY_HEADERS]
        status = self.status
        if status in {503, 429}:
            headers.append((b"retry-after", b"%d" % (self.retry_after or jittered_retry_after())))
        if status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        headers.extend(self.headers)
        return headers


def jittered_retry_after() -> int:
    """Seconds to wait before coming back: whole seconds are all that Retry-After can say."""
    return random.randint(*RETRY_AFTER_SECONDS)  # noqa: S311  # spreads load, guards nothing


class RequestRefused(Exception):  # noqa: N818  # a refusal is an answer, not an error
    """Carries a Problem out of a place that cannot return one."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.code.name)
        self.problem = problem


def refuse(
    code: ProblemCode, detail: str, *, headers: Headers = (), members: Mapping[str, Any] | None = None
) -> RequestRefused:
    return RequestRefused(Problem(code, detail, headers, members=members or {}))
