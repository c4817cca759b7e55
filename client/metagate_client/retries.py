"""When a call is repeated, after which pause, and what the answer to a refused one says."""

from __future__ import annotations

import json
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from metagate_client.http_request import HttpResponse

RETRY_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


def pause_seconds(attempt: int, retry_after: float | None = None) -> float:
    """The pause after a failed attempt, random so that a fleet does not call in step. `attempt`: from 0."""
    chance = int.from_bytes(os.urandom(2), "big") / 65_536
    if retry_after is not None:
        return retry_after + chance * max(0.1, retry_after / 4)
    return min(1.0, 0.1 * (1 << min(attempt, 10))) * (0.5 + chance)


def retry_after_seconds(response: HttpResponse) -> float | None:
    """What the header Retry-After says, where it is a number of seconds."""
    header = response.headers.get("retry-after")
    return float(header) if header is not None and header.isdigit() and len(header) < 6 else None


def parse_problem(response: HttpResponse) -> tuple[str, str]:
    """The code and the detail of a problem document, each one printable line."""
    try:
        problem = json.loads(response.body)
    except (ValueError, RecursionError):
        problem = None
    if not isinstance(problem, dict):
        return "", "not an answer of MetaGate; check METAGATE_URL"
    return _line(problem.get("code")), _line(problem.get("detail") or problem.get("title"))


def _line(value: object) -> str:
    text = value if isinstance(value, str) else ""
    return "".join(character if character.isprintable() else " " for character in text[:500])
