"""POST /v1/bootstrap at the socket."""

import pytest
from tests.integration.api.town import Town


@pytest.mark.invariant("INV-013", "INV-014")
async def test_boots(town: Town) -> None:
    """A declared principal gets its Welcome Packet with exactly the 17 keys."""
    who = await town.citizen()
    answer = await town.boot(who)
    assert answer.status_code == 200, answer.text
    packet = answer.json()
    assert len(packet) == 17
    ready = await town.ready(who, packet["startup"]["startup_id"])
    assert ready.status_code == 200, ready.text
    print(packet, answer.headers, ready.json())
