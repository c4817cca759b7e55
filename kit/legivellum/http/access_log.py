"""One event per request that is worth a line. Never a credential, never a declared value, never a query string."""

import re
from typing import Final, Literal

import structlog

from legivellum.http.exchange import AnyResponse, Exchange

_log = structlog.get_logger("gate.access")

# Somebody will send a key or a token as a part of the path; ids and names that belong there are shorter.
_LONG_SEGMENT: Final = re.compile(r"[^/]{41,}")


class AccessLog:
    """Told of every answer by the edge. A path is its route, where it has one: what stands in it was declared."""

    def __init__(self, which: Literal["all", "refused", "none"]) -> None:
        self._from = {"all": 0, "refused": 400, "none": 1_000}[which]

    def __call__(self, exchange: Exchange, answer: AnyResponse, seconds: float) -> None:
        if answer.status < self._from:
            return
        tenant, principal_key = exchange.principal or (None, None)
        log = _log.error if answer.status == 500 else _log.warning if answer.status >= 500 else _log.info
        log(
            "request",
            method=exchange.method,
            path=exchange.route or _unrouted(exchange),
            status=answer.status,
            code=None if exchange.code is None else exchange.code.name,
            reason=exchange.reason,
            ms=round(seconds * 1_000, 2),
            request_id=exchange.request_id,
            tenant=tenant,
            principal_key=principal_key,
        )


def _unrouted(exchange: Exchange) -> str:
    """A path without a route, still escaped: decoded control characters would act on the terminal that shows them."""
    raw_path: bytes = exchange.scope["raw_path"]
    return _LONG_SEGMENT.sub("…", raw_path.decode("ascii", "backslashreplace"))[:256]
