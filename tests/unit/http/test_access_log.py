"""What the access log says of a request."""

from typing import Any

import pytest
import structlog

from legivellum.http.access_log import AccessLog
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problem_codes import Code


async def logged(status: int, raw_path: bytes = b"/", **more: Any) -> list[Any]:
    scope = {"type": "http", "method": "GET", "path": "/decoded\x1b", "raw_path": raw_path, "headers": []}
    exchange = Exchange(scope, None, request_id="r-1", seconds=1)  # type: ignore[arg-type]  # nothing is received
    for name, value in more.items():
        setattr(exchange, name, value)
    with structlog.testing.capture_logs() as lines:
        AccessLog("refused")(exchange, Response(status, [], b""), 0.0012)
    return lines


async def test_a_refusal_is_one_line_with_its_code_and_principal() -> None:
    """Template, status, code, time, id, who; nothing of an answer below 400."""
    [line] = await logged(404, route="/things/{id}", code=Code.NOT_FOUND, principal=("t", "p"))
    assert line == {
        "event": "request", "log_level": "info", "method": "GET", "path": "/things/{id}", "status": 404, "code": "NOT_FOUND",
        "reason": None, "ms": 1.2, "request_id": "r-1", "tenant": "t", "principal_key": "p",
    }  # fmt: skip
    assert await logged(200) == []


@pytest.mark.parametrize(
    ("raw_path", "shown"),
    [
        (b"/nothing/%1b%5B2J%00%0A", "/nothing/%1b%5B2J%00%0A"),
        (b"/a/" + b"k" * 41 + b"/b", "/a/…/b"),
        (b"/" + b"a/" * 500, ("/" + "a/" * 500)[:256]),
    ],
)
async def test_a_path_without_a_route_stays_escaped_and_short(raw_path: bytes, shown: str) -> None:
    """Nothing that somebody sent acts on the terminal that shows the log, and no key that stands in a path is in it."""
    [line] = await logged(400, raw_path)
    assert line["path"] == shown
