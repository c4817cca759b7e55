"""The four tools of the gateway and what agents see of it (INV-114, GW-05)."""

import pytest
from tests.integration.interrogate.mcp.gateway_fixture import GatewayFixture

FOUR = ["problemata.artifacts", "problemata.capabilities", "problemata.passthrough", "problemata.status"]


@pytest.mark.invariant("INV-114")
@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_clients_of_both_eras_list_and_ask(gateway: GatewayFixture, mode: str) -> None:
    """The four tools and the declared ones, sorted; a request reaches its target and its result comes back."""
    async with gateway.sdk_client(gateway.alice, mode) as client:
        listed = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool(
            "problemata.passthrough", {"problemata_id": "desk", "capability": "doc.review", "input": {"text": "x"}}
        )
        native = await client.call_tool("desk.echo", {"text": "hello"})
    assert [name for name in listed if name.startswith("problemata.")] == FOUR
    assert listed == sorted(listed)
    assert not result.is_error, result
    assert result.structured_content["mode"] == "sync"
    assert result.structured_content["result"] == {"done": True}
    assert native.structured_content == {"text": "hello"}
    assert native.meta["legivellum.io/receipt"]["outcome"]
