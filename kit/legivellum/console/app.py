"""A console as an ASGI application for `/console` and what is below it; everything else is the gate's.

Without a session every path, whether it exists or not, leads to the sign-in page, so that nothing can be learnt from
an answer. With one, the gate checks for every request again that its credential is still good.
"""

import re
import time
from typing import Any, Final

from legivellum.base.token_bucket import TokenBuckets
from legivellum.console import responses
from legivellum.console.concurrency_limit import ConcurrencyLimit
from legivellum.console.definition import ConsoleDefinition, ConsolePorts
from legivellum.console.page import ConsoleRequest, Redirect
from legivellum.console.rendering import TemplateRenderer
from legivellum.console.request_parsing import PageQuery, is_of_console, link, path_segments
from legivellum.console.sessions import SessionCookies, Viewer
from legivellum.console.sign_in import SignIn, safe_address
from legivellum.console.streaming import LiveStreams
from legivellum.console.viewer import authorized_viewer
from legivellum.http.deadline import Deadline
from legivellum.http.exchange import (
    AnyResponse,
    App,
    ClientGone,
    Exchange,
    RawHeaders,
    Receive,
    Response,
    Scope,
    Send,
    choose_request_id,
)
from legivellum.http.problem_codes import Code
from legivellum.http.problems import Problem, refuse
from legivellum.identity.tenancy import authorized_tenant, tenants_for

_QUALITY: Final = re.compile(r"(?:0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\Z")
_RATE, _BURST = 20.0, 200.0
"""Pages a second of one principal: far more than people read, far less than a loop asks for."""


class Console:
    """`rest` answers what is not the console's."""

    def __init__(self, definition: ConsoleDefinition, ports: ConsolePorts, rest: App) -> None:
        self._definition = definition
        self._ports = ports
        self._rest = rest
        self._renderer = TemplateRenderer(definition)
        self._cookies = SessionCookies(ports.secret, gate=definition.gate, lifetime=ports.lifetime, secure=ports.secure)
        self._sign_in = SignIn(definition, ports, self._cookies, self._renderer)
        # whoever waits half of the deadline would not be drawn within the other half either
        self._limit = ConcurrencyLimit(ports.at_once, patience=ports.seconds / 2)
        self._streams = LiveStreams(definition, ports, self._limit)
        self._outer = Deadline(ports.seconds)
        self._buckets = TokenBuckets(_RATE, _BURST, principals=10_000)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not (is_of_console(scope["raw_path"]) or _asks_for_front_page(scope)):
            await self._rest(scope, receive, send)
            return
        started = time.perf_counter()
        exchange = Exchange(scope, receive, request_id=choose_request_id(scope["headers"]), seconds=self._outer.seconds)
        exchange.route = "/console/{page}"
        try:
            answer = await self._outer.run(self._answer(exchange), name="console")
        except ClientGone:
            return
        except Exception as error:  # noqa: BLE001 - the last place where an error can still become an answer
            answer = self._failed(self._ports.problem(error, exchange), exchange)
        self._ports.observe(exchange, answer, time.perf_counter() - started)
        await exchange.send(answer, send)

    async def _answer(self, exchange: Exchange) -> AnyResponse:
        if exchange.path == "/":
            exchange.route = "/"
            return responses.redirect(link(), (b"vary", b"accept"))
        parts = path_segments(exchange.scope)
        reads = exchange.method in {"GET", "HEAD"}
        if parts[:1] == ("static",) and len(parts) == 2 and reads:
            # Before the session is looked at: the sign-in page needs its style sheet.
            asset = responses.asset(parts[1], _query(exchange))
            if asset is not None:
                exchange.route = "/console/static/{name}"
                return asset
        if parts == ("sign-in",):
            exchange.route = "/console/sign-in"
            if exchange.method == "POST":
                return await self._sign_in.enter(exchange)
            if reads:
                wanted = PageQuery(_query(exchange)).text("next", 2_000) or ""
                return self._sign_in.page(exchange, safe_address(wanted))
        session = self._cookies.session(exchange.headers)
        viewer = None if session is None else await authorized_viewer(session, self._definition, self._ports)
        # The same answer for every path, so that nobody learns which ones exist.
        if viewer is None:
            return self._sign_in.away(exchange)
        return await self._seen(exchange, viewer, parts, reads=reads)

    async def _seen(self, exchange: Exchange, viewer: Viewer, parts: tuple[str, ...], *, reads: bool) -> AnyResponse:
        exchange.principal, exchange.caller_type = (str(viewer.tenant), viewer.principal_key), viewer.type
        if parts == ("sign-out",) and exchange.method == "POST":
            return await self._sign_in.leave(exchange, viewer)
        try:
            self._admit(viewer, reads=reads)
            return await self._shown(exchange, viewer, parts)
        except ClientGone:
            raise
        except Exception as error:  # noqa: BLE001 - somebody who is signed in keeps the frame of the page
            return self._failed(self._ports.problem(error, exchange), exchange, viewer)

    def _admit(self, viewer: Viewer, *, reads: bool) -> None:
        wait = self._buckets.take((viewer.tenant, viewer.principal_key))
        if wait:
            raise refuse(Code.RATE_LIMITED, f"Too many pages at once; wait {wait} s.")
        if not reads:
            raise refuse(Code.METHOD_NOT_ALLOWED, "The console only shows.")

    async def _shown(self, exchange: Exchange, viewer: Viewer, parts: tuple[str, ...]) -> AnyResponse:
        query = PageQuery(_query(exchange))
        tenant = query.id("tenant")
        if parts == ("live",):
            exchange.route = "/console/live"
            followed = tenants_for if self._definition.across_tenants else authorized_tenant
            return self._streams.response(exchange, viewer, followed(viewer, tenant))
        parts = parts[:-1] if parts[-1:] == ("",) else parts
        route = self._definition.pages.get((parts[0] if parts else "", max(0, len(parts) - 1)))
        if route is None:
            raise refuse(Code.NOT_FOUND, "There is nothing at this path.")
        exchange.route = route.label
        name = parts[1] if len(parts) == 2 else ""
        request = ConsoleRequest(viewer, query, name, tenant)
        async with self._limit.slot():
            drawn = await route.draw(request)
        if isinstance(drawn, Redirect):
            return responses.redirect(drawn.address)
        frame = self._frame(viewer, drawn.title, tenant=tenant, here=parts[0] if parts else "", live=drawn.live)
        return responses.html(self._renderer.render(drawn.template, {**frame, **drawn.values}))

    def _frame(self, viewer: Viewer | None, title: str, **more: Any) -> dict[str, Any]:
        """What every page has around it."""
        out = None if viewer is None else self._cookies.token(viewer.session.nonce)
        return {"viewer": viewer, "title": title, "out": out, "tenant": None, "here": None, "live": False, **more}

    def _failed(self, problem: Problem, exchange: Exchange, viewer: Viewer | None = None) -> Response:
        exchange.code = problem.code
        values = {**self._frame(viewer, "Not shown"), "problem": problem, "request_id": exchange.request_id}
        body = self._renderer.render("failure.html", values)
        return responses.html(body, *responses.problem_headers(problem), status=problem.status)


def _asks_for_front_page(scope: Scope) -> bool:
    """A person's browser at `/`. Programs get the gate's own answer there, as before (INV-035)."""
    return scope["path"] == "/" and scope["method"] in {"GET", "HEAD"} and _prefers_html(scope["headers"])


def _prefers_html(headers: RawHeaders) -> bool:
    """Whether Accept names HTML, and nothing that is JSON before it (RFC 9110 §12.5.1)."""
    weights: dict[str, float] = {}
    for part in b",".join(value for name, value in headers if name == b"accept").decode("latin-1").split(","):
        media, *parameters = (word.strip().lower() for word in part.split(";"))
        quality = next((word[2:] for word in parameters if word.startswith("q=")), "1")
        weights[media] = float(quality) if _QUALITY.match(quality) else 0.0
    json = weights.get("application/json", 0.0)
    return weights.get("text/html", 0.0) > 0 and weights["text/html"] >= json


def _query(exchange: Exchange) -> bytes:
    query: bytes = exchange.scope.get("query_string", b"")
    return query
