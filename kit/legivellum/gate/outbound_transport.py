"""The connections on which a gate calls others."""

from __future__ import annotations

import httpx2


class OutboundTransport(httpx2.AsyncHTTPTransport):
    """A peer that dies right after it accepted a connection is a peer that is away.

    The loop has closed the socket by then, and the driver, which looks at the socket's addresses before it sends, finds
    none: an AttributeError, which nobody would take for an outage. Nothing was sent, so it is a failed connect.
    """

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        try:
            return await super().handle_async_request(request)
        except AttributeError as error:
            raise httpx2.ConnectError("the connection was closed as soon as it was made", request=request) from error
