"""An ASGI application (FastAPI) as the handler of routes: its answer is held back until it is whole.

So a late answer can still be replaced by a 503, and an application that starts none, or does not finish the one that it
started, becomes a 500 that is logged instead of a connection that breaks off.
"""

from __future__ import annotations

from legivellum.http.exchange import App, Exchange, Message, RawHeaders, Response


class IncompleteAnswer(RuntimeError):  # noqa: N818  # the edge answers it as a defect
    """The application returned without a whole answer."""


class AsgiHandler:
    """The body is read before the application runs. The application finds the exchange in the scope's state."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, exchange: Exchange) -> Response:
        requests: list[Message] = [{"type": "http.request", "body": await exchange.body(), "more_body": False}]
        answer = _Collected()

        async def receive() -> Message:  # ASGI
            return requests.pop() if requests else {"type": "http.disconnect"}

        await self._app(_inner_scope(exchange), receive, answer.send)
        return answer.response()


def _inner_scope(exchange: Exchange) -> dict[str, object]:
    scope = dict(exchange.scope)
    if exchange.method == "HEAD":
        scope["method"] = "GET"
    scope["path_params"] = dict(exchange.path_parameters)
    scope["state"] = {**scope.get("state", {}), "exchange": exchange}
    return scope


class _Collected:
    """What an application sends, as one answer."""

    def __init__(self) -> None:
        self._status = 0
        self._headers: RawHeaders = []
        self._parts: list[bytes] = []
        self._complete = False

    async def send(self, message: Message) -> None:  # ASGI
        if message["type"] == "http.response.start":
            self._status, self._headers = message["status"], list(message.get("headers", ()))
        else:
            self._parts.append(message.get("body", b""))
            self._complete = not message.get("more_body", False)

    def response(self) -> Response:
        """Raises IncompleteAnswer."""
        if not self._status:
            raise IncompleteAnswer("the application started no answer")
        body = b"".join(self._parts)
        announced = next((int(value) for name, value in self._headers if name.lower() == b"content-length"), None)
        if not self._complete or (announced is not None and self._status != 304 and announced != len(body)):
            raise IncompleteAnswer("the application did not finish its answer")
        return Response(self._status, self._headers, body)
