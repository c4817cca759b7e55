"""The ledger behind the edge that all gates share: HEAD, OPTIONS, paths, and the endpoint table."""

import re
from pathlib import Path
from urllib.parse import quote

import pytest
from tests.integration.memorygate.conftest import RunningLedger, accepted

from memorygate.gate import GATE

ENDPOINTS = GATE.all_endpoints

GETS = sorted({endpoint.path for endpoint in ENDPOINTS if endpoint.method == "GET"})


@pytest.mark.parametrize("path", GETS)
async def test_head_is_get_without_a_body(gate: RunningLedger, path: str):
    """On every path that GET is on, with a credential and without: the status and the type of GET, no body."""
    alice = gate.peer()
    sent = accepted(task_id="t", principal_ai="alice")
    await alice.post(sent)
    concrete = path.format(receipt_id=sent["receipt_id"], task_id="t")
    for headers in (alice.headers, {}):
        head = await gate.client.head(concrete, headers=headers)
        assert head.content == b""
        if path == "/receipts/stream" and headers:
            assert (head.status_code, head.headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
            continue
        got = await gate.client.get(concrete, headers=headers)
        assert (head.status_code, head.headers["content-type"]) == (got.status_code, got.headers["content-type"])


async def test_options_and_other_methods_name_what_a_path_takes(gate: RunningLedger):
    """OPTIONS is 204 and 405 is a problem; both name every method of the path."""
    for path in sorted({endpoint.path for endpoint in ENDPOINTS}):
        concrete = re.sub(r"\{\w+\}", "x", path)
        methods = {endpoint.method for endpoint in ENDPOINTS if endpoint.path == path}
        methods |= {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        options = await gate.client.options(concrete)
        assert (options.status_code, set(options.headers["allow"].split(", "))) == (204, methods)
        for method in {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE"} - methods:
            answer = await gate.client.request(method, concrete)
            assert (answer.status_code, set(answer.headers["allow"].split(", "))) == (405, methods), (method, path)


@pytest.mark.parametrize("name", ["repo/pull/7", "a b", "100%", "ä/ö", "...", "task/x", "%2F", "?x#y"])
async def test_any_task_id_is_found_by_its_escaped_name(gate: RunningLedger, name: str):
    """A slash in a name is data when it is escaped, and so is everything else."""
    alice = gate.peer()
    assert (await alice.accepted(task_id=name)).status_code == 201
    answer = await alice.get(f"/receipts/task/{quote(name, safe='')}")
    assert answer.status_code == 200
    assert [item["task_id"] for item in answer.json()["items"]] == [name]


@pytest.mark.parametrize("path", ["/receipts%2Ftask%2Ft", "/v1%2Fsummary", "/receipts/task%2Ft/x", "/%72eceipts%2F"])
async def test_an_escaped_slash_separates_nothing(gate: RunningLedger, path: str):
    """A proxy's path rule and the gate see the same segments."""
    assert (await gate.peer().get(path)).status_code == 404


@pytest.mark.parametrize("escape", ["%00", "a%00b", "%0A", "%1b%5B2J", "%7f", "%C2%80", "%ff"])
@pytest.mark.parametrize("prefix", ["/receipts/", "/receipts/task/", "/receipts/chain/", "/nothing/", "/"])
async def test_control_characters_in_a_path_are_400(gate: RunningLedger, prefix: str, escape: str):
    """No input looks like an outage: NUL never reaches the database."""
    answer = await gate.peer().get(prefix + escape)
    assert (answer.status_code, answer.json()["code"]) == (400, "MALFORMED_REQUEST")


async def test_the_document_describes_what_is_routed(gate: RunningLedger):
    """Every endpoint of the table and no other, each with its codes, none with a 500."""
    document = (await gate.client.get("/openapi.json")).json()
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == {(endpoint.method, endpoint.path) for endpoint in ENDPOINTS}
    assert "500" not in {
        status for path in document["paths"].values() for value in path.values() for status in value["responses"]
    }
    named = set(re.findall(r"#/components/schemas/(\w+)", str(document)))
    assert named <= set(document["components"]["schemas"])


def test_the_docs_name_every_endpoint():
    """docs/memorygate/reading.md and writing pages mention each path of the table."""
    pages = "".join(page.read_text() for page in (Path(__file__).parents[3] / "docs/memorygate").glob("*.md"))
    normal = re.sub(r"\{\w+\}", "{}", pages)
    for endpoint in ENDPOINTS:
        assert re.sub(r"\{\w+\}", "{}", endpoint.path) in normal, endpoint.path
