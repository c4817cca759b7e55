"""One event per request that is worth a line. Never a credential, never what was sent, never a query string."""

from typing import Literal

import structlog

from legivellum_http.exchange import Answer, Exchange

_log = structlog.get_logger("memorygate.access")


class AccessLog:
    def __init__(self, which: Literal["all", "refused", "none"]) -> None:
        self._from = {"all": 0, "refused": 400, "none": 1_000}[which]

    def __call__(self, exchange: Exchange, answer: Answer, seconds: float) -> None:
        if answer.status < self._from:
            return
        tenant, principal_key = exchange.who or (None, None)
        log = _log.error if answer.status == 500 else _log.warning if answer.status >= 500 else _log.info
        log(
            "request",
            method=exchange.method,
            path=exchange.scope.get("route_path", exchange.path[:256]),
            status=answer.status,
            code=exchange.code,
            reason=exchange.reason,
            ms=round(seconds * 1_000, 2),
            request_id=exchange.request_id,
            tenant=tenant,
            principal_key=principal_key,
        )
