"""The client against a served gate: what one says the other understands."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.identity.conftest import Corpus

from metagate_client import Client, Packet, RefusedError, Settings


@pytest.fixture
def key_file(indexer: PrincipalFixture, tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text(indexer.key + "\n")
    return path


def settings(gate: GateFixture, **credential: str) -> Settings:
    return Settings(url=gate.url, component_key="indexer_1", environ={}, **credential)  # type: ignore[arg-type]


async def booted(client: Client) -> Packet:
    return await asyncio.to_thread(client.bootstrap)


@pytest.mark.invariant("EXT-31", "INV-019")
async def test_boot_and_report(gate: GateFixture, indexer: PrincipalFixture, key_file: Path) -> None:
    """A packet arrives, READY is recorded on its startup, and a later FAILED is refused with its code."""
    client = Client(settings(gate, api_key_file=str(key_file)))
    packet = await booted(client)
    assert packet["principal_key"] == "indexer"
    assert packet.service("memorygate")["endpoint"] == "http://memorygate:8001"
    assert packet.startup_id is not None
    answer = await asyncio.to_thread(client.ready, packet.startup_id, "1.2.3", {"db": "ok"})
    assert (answer["status"], answer["late"]) == ("READY", False)
    assert (await gate.stored(packet.startup_id))["status"] == "READY"
    with pytest.raises(RefusedError) as refused:
        await asyncio.to_thread(client.failed, packet.startup_id, "too late")
    assert (refused.value.status, refused.value.code) == (409, "INVALID_STATE")


async def test_one_process_start_is_one_session(gate: GateFixture, indexer: PrincipalFixture, key_file: Path) -> None:
    """Asked twice, one client gets one session; another process start gets another (D-03)."""
    client = Client(settings(gate, api_key_file=str(key_file)))
    before = await gate.sessions()
    first, again = await booted(client), await booted(client)
    other = await booted(Client(settings(gate, api_key_file=str(key_file))))
    assert first.startup_id == again.startup_id != other.startup_id
    assert await gate.sessions() == before + 2


async def test_a_token_file_speaks_too(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus, tmp_path: Path
) -> None:
    """The same principal by token; a wrong one is refused with a line that says what to look at."""
    path = tmp_path / "token"
    path.write_text(corpus.good["service account, ES256"])
    client = Client(settings(gate, token_file=str(path)))
    assert (await booted(client))["principal_key"] == "indexer"
    path.write_text(corpus.attacks["aud of another gate"].decode())
    with pytest.raises(RefusedError, match="audience"):
        await booted(client)
