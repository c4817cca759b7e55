"""Which handler a request goes to, found on the raw path, as it was sent.

The raw path is split at its slashes first and each segment is decoded afterwards. So `%2F` is data in a name and never
a separator: a proxy's path rule and this table see the same segments. Paths without parameters are found in a
dictionary; only what is not there is split and compared.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import unquote_to_bytes

from legivellum.http.deadline import Deadline
from legivellum.http.endpoints import Endpoint
from legivellum.http.exchange import AnyResponse, Exchange, Response
from legivellum.http.problem_codes import Code
from legivellum.http.problems import SECURITY_HEADERS, RequestRefused, refuse

Handler = Callable[[Exchange], Coroutine[Any, Any, AnyResponse]]

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


@dataclass(frozen=True, slots=True)
class RouteLimits:
    """How large a body may be, in how many seconds it must arrive in total, and when the answer is due.

    `reader_rate`: bytes a second that a client must take at least, measured over ten seconds, while a large answer is
    written; 0: it is cut off when it takes nothing for a few seconds.
    """

    body_bytes: int
    body_seconds: float
    deadline_seconds: float
    reader_rate: int = 0


@dataclass(frozen=True, slots=True)
class Route:
    """An endpoint bound to its handler. `deadline` is None where the handler keeps the deadline itself."""

    template: str
    handler: Handler
    limits: RouteLimits
    deadline: Deadline | None = None
    callers: frozenset[str] | None = None


class _PathRoutes:
    """Everything that one path template takes, by method."""

    __slots__ = ("allow", "routes", "segments", "template")

    def __init__(self, template: str) -> None:
        self.template = template
        self.segments = tuple(
            _Parameter(text[1:-1]) if text.startswith("{") else text for text in template.split("/")[1:]
        )
        self.routes: dict[str, Route] = {}
        self.allow = b""

    def complete(self, defaults: RouteLimits) -> None:
        """HEAD wherever GET is, OPTIONS everywhere."""
        # A HEAD that a gate forgot would be 405, and proxies and monitors use HEAD (D-74).
        if "GET" in self.routes:
            self.routes.setdefault("HEAD", self.routes["GET"])
        self.routes["OPTIONS"] = Route(self.template, self._options, defaults)
        self.allow = ", ".join(sorted(self.routes)).encode()

    def free_segments(self) -> list[bool]:
        """For each segment whether it is a parameter."""
        return [isinstance(segment, _Parameter) for segment in self.segments]

    async def _options(self, _exchange: Exchange) -> Response:
        return Response(204, [(b"allow", self.allow), *SECURITY_HEADERS], b"")

    def match(self, segments: list[str]) -> dict[str, str] | None:
        """The path parameters, or None when the path is another one."""
        parameters: dict[str, str] = {}
        for wanted, segment in zip(self.segments, segments, strict=True):
            if isinstance(wanted, _Parameter):
                if not segment:
                    return None
                parameters[wanted.name] = segment
            elif wanted != segment:
                return None
        return parameters


@dataclass(frozen=True, slots=True)
class _Parameter:
    name: str


class Router:
    """The table of a gate, ready to be asked for every request."""

    def __init__(self, routes: Iterable[tuple[str, Route]], *, defaults: RouteLimits) -> None:
        """`routes`: pairs of a method and a route."""
        self.defaults = defaults
        templates: dict[str, _PathRoutes] = {}
        for method, route in routes:
            path = templates.setdefault(route.template, _PathRoutes(route.template))
            path.routes[method] = route
        self._exact: dict[bytes, _PathRoutes] = {}
        self.exact_limits: dict[bytes, dict[bytes, RouteLimits]] = {}
        """By raw path and method, for paths without parameters: what a protocol asks for every body."""
        self._by_length: dict[int, list[_PathRoutes]] = {}
        # A literal segment goes before a parameter: `/v1/admin/plan` is itself and no `/v1/admin/{kind}`.
        for path in sorted(templates.values(), key=_PathRoutes.free_segments):
            path.complete(defaults)
            self._by_length.setdefault(len(path.segments), []).append(path)
            if not any(path.free_segments()):
                raw_path = path.template.encode()
                self._exact[raw_path] = path
                self.exact_limits[raw_path] = {method.encode(): route.limits for method, route in path.routes.items()}

    @classmethod
    def bind(cls, endpoints: Iterable[Endpoint], handlers: Mapping[str, Handler], *, defaults: RouteLimits) -> Router:
        """Raises ValueError when an endpoint has no handler or a handler no endpoint. `handlers` by `Endpoint.key`."""
        table = {endpoint.key: endpoint for endpoint in endpoints}
        # A missing handler is found when the process starts, and not by the first request for it.
        if table.keys() != handlers.keys():
            raise ValueError(f"endpoints and handlers differ: {sorted(table.keys() ^ handlers.keys())}")
        shared = Deadline(defaults.deadline_seconds)
        return cls(
            ((endpoint.method, _route(endpoint, handlers[key], defaults, shared)) for key, endpoint in table.items()),
            defaults=defaults,
        )

    def route(self, exchange: Exchange) -> Route:
        """The route of a request; its template and path parameters are noted in the exchange.

        Raises MALFORMED_REQUEST (400), NOT_FOUND, METHOD_NOT_ALLOWED.
        """
        raw_path: bytes = exchange.scope["raw_path"]
        path = self._exact.get(raw_path)
        if path is None:
            path, exchange.path_parameters = self._match(raw_path)
        exchange.route = path.template
        route = path.routes.get(exchange.method)
        if route is None:
            raise refuse(
                Code.METHOD_NOT_ALLOWED, "The path does not take this method.", headers=((b"allow", path.allow),)
            )
        exchange.callers = route.callers
        return route

    def limits(self, method: str, raw_path: bytes) -> RouteLimits:
        """How large and how slow a body may be there; the defaults where there is no such route."""
        path = self._exact.get(raw_path)
        try:
            if path is None:
                path, _ = self._match(raw_path)
        # The handler refuses the path in its own words; until then its body is bounded as any other.
        except RequestRefused:
            return self.defaults
        route = path.routes.get(method)
        return self.defaults if route is None else route.limits

    def _match(self, raw_path: bytes) -> tuple[_PathRoutes, dict[str, str]]:
        segments = path_segments(raw_path)
        for path in self._by_length.get(len(segments), ()):
            parameters = path.match(segments)
            if parameters is not None:
                return path, parameters
        raise refuse(Code.NOT_FOUND, "There is nothing at this path.")


def path_segments(raw_path: bytes) -> list[str]:
    """The segments of a raw path, each decoded by itself. Raises MALFORMED_REQUEST, NOT_FOUND.

    Control characters would reach a database, a log or a file name: no name that is declared has them (D-74).
    """
    if not raw_path.startswith(b"/"):
        raise refuse(Code.NOT_FOUND, "There is nothing at this path.")
    try:
        segments = [unquote_to_bytes(segment).decode() for segment in raw_path[1:].split(b"/")]
    except UnicodeDecodeError:
        raise refuse(Code.MALFORMED_REQUEST, "The path is not UTF-8.") from None
    if any(map(_CONTROL.search, segments)):
        raise refuse(Code.MALFORMED_REQUEST, "The path has a control character.")
    return segments


def _route(endpoint: Endpoint, handler: Handler, defaults: RouteLimits, shared: Deadline) -> Route:
    limits = RouteLimits(
        defaults.body_bytes if endpoint.body_bytes is None else endpoint.body_bytes,
        defaults.body_seconds if endpoint.body_seconds is None else endpoint.body_seconds,
        defaults.deadline_seconds if endpoint.deadline_seconds is None else endpoint.deadline_seconds,
        endpoint.reader_rate,
    )
    if endpoint.keeps_deadline:
        deadline = None
    else:
        deadline = shared if limits.deadline_seconds == shared.seconds else Deadline(limits.deadline_seconds)
    return Route(endpoint.path, handler, limits, deadline, endpoint.callers)
