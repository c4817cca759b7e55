"""Which route a raw path belongs to: slashes separate, everything else is data."""

import pytest

from legivellum.http.endpoints import Endpoint, Reply
from legivellum.http.exchange import Exchange, Response
from legivellum.http.problems import RequestRefused
from legivellum.http.router import RouteLimits, Router, path_segments

DEFAULTS = RouteLimits(body_bytes=1_000, body_seconds=1.0, deadline_seconds=0.5)


def endpoint(key: str, **more: object) -> Endpoint:
    method, path = key.split(" ")
    return Endpoint(method, path, "", "none", (Reply(200, ""),), **more)  # type: ignore[arg-type]


ENDPOINTS = (
    endpoint("GET /"),
    endpoint("GET /things"),
    endpoint("POST /things", body_bytes=5_000_000, body_seconds=60.0),
    endpoint("GET /things/{thing_id}"),
    endpoint("PUT /things/{thing_id}", body_bytes=9_000_000),
    endpoint("POST /things/plan"),
    endpoint("GET /things/{thing_id}/parts/{part}"),
)


async def echo(exchange: Exchange) -> Response:
    return Response(200, [], b"")


ROUTER = Router.bind(ENDPOINTS, {item.key: echo for item in ENDPOINTS}, defaults=DEFAULTS)


async def routed(method: str, raw_path: bytes) -> Exchange:
    exchange = Exchange(
        {"type": "http", "method": method, "path": "", "raw_path": raw_path, "headers": []},
        None,  # type: ignore[arg-type]  # nothing is received
        request_id="1",
        seconds=1,
    )
    ROUTER.route(exchange)
    return exchange


async def refused(method: str, raw_path: bytes) -> RequestRefused:
    with pytest.raises(RequestRefused) as refusal:
        await routed(method, raw_path)
    return refusal.value


@pytest.mark.parametrize(
    ("raw_path", "template", "parameters"),
    [
        (b"/", "/", {}),
        (b"/things", "/things", {}),
        (b"/th%69ngs", "/things", {}),
        (b"/things/a", "/things/{thing_id}", {"thing_id": "a"}),
        (b"/things/repo%2Fpull%2f7", "/things/{thing_id}", {"thing_id": "repo/pull/7"}),
        (b"/things/%252F", "/things/{thing_id}", {"thing_id": "%2F"}),
        (b"/things/a+b%20c", "/things/{thing_id}", {"thing_id": "a+b c"}),
        (b"/things/%F0%9F%98%80", "/things/{thing_id}", {"thing_id": "😀"}),
        (b"/things/%2e%2e", "/things/{thing_id}", {"thing_id": ".."}),
        (b"/things/parts/parts/parts", "/things/{thing_id}/parts/{part}", {"thing_id": "parts", "part": "parts"}),
        (b"/things/a%2Fparts/parts/b", "/things/{thing_id}/parts/{part}", {"thing_id": "a/parts", "part": "b"}),
    ],
)
async def test_a_raw_path_is_split_first_and_decoded_afterwards(
    raw_path: bytes, template: str, parameters: dict[str, str]
) -> None:
    """An escaped slash is data in a name, every other escape is decoded within its segment."""
    exchange = await routed("GET", raw_path)
    assert (exchange.route, dict(exchange.path_parameters)) == (template, parameters)


@pytest.mark.parametrize(
    "raw_path",
    [b"/things%2Fa", b"%2Fthings", b"", b"*", b"things", b"x/things", b"//things", b"/things/", b"/things//parts/x",
     b"/Things", b"/things/a/b", b"/things/a/parts/"],
)  # fmt: skip
async def test_other_paths_are_not_found(raw_path: bytes) -> None:
    """An escaped slash separates nothing, an empty segment is no name, case matters."""
    assert (await refused("GET", raw_path)).problem.code.name == "NOT_FOUND"


@pytest.mark.parametrize(
    "raw_path",
    [b"/things/%00", b"/things/a%00b", b"/nothing/%00", b"/%0a", b"/things/%1b%5b2J", b"/things/%7F", b"/things/a\x01",
     b"/things/%C2%85", b"/things/%ff", b"/things/%C0%80", b"/things/%ed%a0%80"],
)  # fmt: skip
async def test_control_characters_and_broken_utf8_are_malformed(raw_path: bytes) -> None:
    """D-74: NUL and other control characters are 400 on every path, whether or not it exists."""
    assert (await refused("GET", raw_path)).problem.code.name == "MALFORMED_REQUEST"


async def test_a_literal_goes_before_a_parameter() -> None:
    """`/things/plan` is itself, also for a method that only the parameter's path takes."""
    assert (await routed("POST", b"/things/plan")).route == "/things/plan"
    refusal = await refused("GET", b"/things/plan")
    assert refusal.problem.headers == ((b"allow", b"OPTIONS, POST"),)


async def test_head_and_options_follow_from_the_table() -> None:
    """HEAD wherever GET is and nowhere else; OPTIONS everywhere; 405 names the rest."""
    assert (await routed("HEAD", b"/things/a")).route == "/things/{thing_id}"
    refusal = await refused("HEAD", b"/things/plan")
    assert refusal.problem.code.name == "METHOD_NOT_ALLOWED"
    exchange = await routed("OPTIONS", b"/things/a")
    answer = await ROUTER.route(exchange).handler(exchange)
    assert (answer.status, dict(answer.headers)[b"allow"]) == (204, b"GET, HEAD, OPTIONS, PUT")


def test_limits_are_those_of_the_route() -> None:
    """A body's size and time are the endpoint's own, or the gate's default; also where no route is."""
    assert ROUTER.limits("POST", b"/things") == RouteLimits(5_000_000, 60.0, 0.5)
    assert ROUTER.limits("PUT", b"/things/a%2Fb") == RouteLimits(9_000_000, 1.0, 0.5)
    for method, raw_path in (("DELETE", b"/things"), ("POST", b"/nothing"), ("POST", b"/things/%00")):
        assert ROUTER.limits(method, raw_path) == DEFAULTS


def test_every_endpoint_has_a_handler_and_every_handler_an_endpoint() -> None:
    """A table and its handlers that do not fit end the composition and name the difference."""
    for handlers in ({"GET /": echo}, {**{item.key: echo for item in ENDPOINTS}, "GET /more": echo}):
        with pytest.raises(ValueError, match="GET /"):
            Router.bind(ENDPOINTS, handlers, defaults=DEFAULTS)


def test_segments() -> None:
    """Malformed escapes stay as they are, as browsers read them."""
    assert path_segments(b"/100%/%zz/%2") == ["100%", "%zz", "%2"]
