"""Hostile bodies and headers at the socket: 4xx problem+json, nothing stored, never a 500."""

import json
import re
import socket
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests import corpora
from tests.integration.api.gate_fixture import GateFixture
from tests.unit.http.test_strict_json import HOSTILE

DEEP = b'{"component_key":' * 200 + b"1" + b"}" * 200
EXTRA = [
    DEEP,
    b'{"component_key":"a","x":' + b"[" * 200 + b"]" * 200 + b"}",
    json.dumps({"component_key": "a", **{f"k{n}": n for n in range(2_000)}}).encode(),
    b'{"component_key":"a","pad":"' + b"x" * 3_000_000 + b'"}',
    b'{"component_key":"\\ud83d"}',
    b"[" * 60_000,
]


@pytest.mark.parametrize("raw", [*HOSTILE, *EXTRA], ids=range(len(HOSTILE) + len(EXTRA)))
async def test_hostile_json(gate: GateFixture, hostile_session: tuple[Any, str], raw: bytes) -> None:
    """Every body of the corpus on every route that takes one: 400, 413 or 422, and nothing is stored."""
    principal, session = hostile_session
    before = await gate.sessions()
    stored = await gate.stored(session)
    for path in ("/v1/bootstrap", "/v1/startup/ready", "/v1/startup/failed", "/v1/introspect", "/v1/admin/profiles"):
        answer = await gate.client.post(
            path, content=raw, headers={**principal.by_key, "content-type": "application/json"}
        )
        assert answer.status_code in {400, 413, 422}, (path, answer.status_code)
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        corpora.count("JSON bodies at five routes", answer.status_code)
    assert await gate.sessions() == before
    assert await gate.stored(session) == stored


@pytest.fixture
async def hostile_session(gate: GateFixture) -> tuple[Any, str]:
    if not hasattr(gate, "hostile"):
        principal = await gate.principal("hostile", type="admin")
        session = (await gate.boot(principal)).json()["startup"]["startup_id"]
        gate.hostile = principal, session  # type: ignore[attr-defined]
    return gate.hostile  # type: ignore[attr-defined,no-any-return]


@pytest.mark.parametrize("media", ["", "text/plain", "application/xml", "application/json; charset=utf-16", "application/jsonp",
                                   "application/json, text/plain", "multipart/form-data; boundary=x"])  # fmt: skip
async def test_media_types(gate: GateFixture, hostile_session: tuple[Any, str], media: str) -> None:
    """Anything but JSON in UTF-8 is 415."""
    principal, _ = hostile_session
    answer = await gate.client.post(
        "/v1/bootstrap", content=b'{"component_key":"a"}', headers={**principal.by_key, "content-type": media}
    )
    assert (answer.status_code, answer.json()["code"]) == (415, "UNSUPPORTED_MEDIA_TYPE")


TEXT = st.text(max_size=300)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(component=TEXT, hint=TEXT, tag=TEXT, error=TEXT, version=TEXT)
def test_no_string_breaks_anything(
    gate_process: tuple[str, int, dict[str, str], str], component: str, hint: str, tag: str, error: str, version: str
) -> None:
    """Any text in any field: an answer below 500 (or none because the text cannot be sent at all)."""
    host, port, headers, session = gate_process
    for path, body in [
        ("/v1/bootstrap", {"component_key": component, "principal_key": hint, "last_packet_etag": tag}),
        ("/v1/bootstrap", {"component_key": component}),
        ("/v1/startup/failed", {"startup_id": session, "error": error, "details": {error: [hint, tag]}}),
        ("/v1/startup/ready", {"startup_id": session, "build_version": version, "health": {version: component}}),
    ]:
        assert ask(host, port, path, headers, json.dumps(body).encode()) < 500


def ask(host: str, port: int, path: str, headers: dict[str, str], body: bytes) -> int:
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: a",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        "Connection: close",
    ]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    with socket.create_connection((host, port), timeout=5) as wire:
        wire.sendall("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        got = b""
        while data := wire.recv(65_536):
            got += data
    return int(got[9:12])


@pytest.mark.parametrize("value", ["\u00ff", "a" * 20_000, "=" * 300, "mgk_" + "9" * 60, "Bearer", "Bearer  x y"])
@pytest.mark.parametrize(
    "name", ["authorization", "x-api-key", "if-none-match", "idempotency-key", "x-request-id", "content-type"]
)
async def test_odd_header_values(gate: GateFixture, hostile_session: tuple[Any, str], name: str, value: str) -> None:
    """Whatever stands in a header, the answer is a problem or a success, never a defect."""
    principal, _ = hostile_session
    headers = {**principal.by_key, "content-type": "application/json", name: value.encode("latin-1")}
    if name == "authorization":
        del headers["x-api-key"]
    answer = await gate.client.post("/v1/bootstrap", content=b'{"component_key":"a"}', headers=headers)
    assert answer.status_code < 500
    assert not re.search(r"Traceback|SELECT |asyncpg|psycopg|sqlstate", answer.text)


@pytest.mark.parametrize("path", ["/v1/admin/profiles/" + "a" * 3_000,
                                  "/v1/startups?limit=99999999999999999999", "/v1/startups?component_key=%00", "/v1/startups?cursor=%00", "/v1/startups?tenant=%ff",
                                  "/v1/policy-profiles/%F0%9F%98%80", "/v1/admin/profiles/a%2Fb", "/v1/startups?limit=1&limit=2", "/v1/startups?status=OPEN%00"])  # fmt: skip
async def test_odd_paths_and_queries(gate: GateFixture, hostile_session: tuple[Any, str], path: str) -> None:
    """NUL in a query, overflow and repetition are the caller's mistake, not ours."""
    principal, _ = hostile_session
    answer = await gate.client.get(path, headers=principal.by_key)
    assert answer.status_code in {200, 404, 422}, answer.text


@pytest.mark.parametrize("path", ["/v1/startup/%00", "/v1/policy-profiles/%00", "/v1/policy-profiles/%ff%fe", "/v1/admin/profiles/%00", "/%00", "/v1/bootstrap%00",
                                  "/v1/startup/01a1fddc-1f95-70fb-95ba-f3bf1240ecc9%0a", "/v1/admin/explain/principal/a%1bb", "/nothing/%7F"])  # fmt: skip
async def test_control_characters_in_a_path_are_400(
    gate: GateFixture, hostile_session: tuple[Any, str], path: str
) -> None:
    """D-74: NUL, other control characters and broken UTF-8 never reach the database."""
    principal, _ = hostile_session
    for method in ("GET", "POST", "HEAD"):
        answer = await gate.client.request(method, path, headers=principal.by_key)
        assert answer.status_code == 400, answer.text
        assert method == "HEAD" or answer.json()["code"] == "MALFORMED_REQUEST"


@pytest.mark.parametrize(
    "path",
    ["/v1%2Fadmin%2Fprincipals", "/v1/admin%2fprincipals", "/v1%2Fbootstrap", "%2Fhealth", "/v1/startup%2Fready"],
)
async def test_an_escaped_slash_separates_nothing(gate: GateFixture, path: str) -> None:
    """A proxy's path rule and the gate see the same segments; such a path exists nowhere."""
    admin = await gate.principal("admin", type="admin")
    for method in ("GET", "POST"):
        assert (await gate.client.request(method, path, headers=admin.by_key)).status_code in {404, 405}


async def test_an_escaped_slash_is_data_in_a_name(gate: GateFixture) -> None:
    """`a%2Fb` is one name of two parts, so it is looked up as such and not taken for two segments."""
    admin = await gate.principal("admin", type="admin")
    answer = await gate.client.get("/v1/admin/profiles/a%2Fb", headers=admin.by_key)
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such object.")
