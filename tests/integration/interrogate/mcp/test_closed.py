"""When the gateway does not know enough, or the database takes nothing: nothing is decided and nothing is called."""

import asyncio

import asyncpg
import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.mcp.gateway_fixture import MODERN, serving_gateway

LIST = {"mcp_protocol_version": MODERN, "mcp_method": "tools/list"}


@pytest.mark.invariant("INV-107", "INV-116")
async def test_what_is_too_old_closes_the_gateway(admission_database: AdmissionDatabase) -> None:
    """MetaGate cannot be read for the stale time: 503 for everything, no row, and counted for the alert."""
    async with serving_gateway(admission_database, identity_stale_seconds=1.0) as gateway:
        before = len(await gateway.gate.receipts())
        await _execute(admission_database, "REVOKE EXECUTE ON FUNCTION metagate.state FROM metagate_identity")
        try:
            async with asyncio.timeout(20):
                while (
                    answer := await gateway.alice.post(gateway.alice.message("tools/list"), **LIST)
                ).status_code == 200:
                    await asyncio.sleep(0.05)
            assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")
            assert "retry-after" in answer.headers
            message = gateway.alice.message("tools/call", {"name": "desk.echo", "arguments": {"text": "x"}})
            called = await gateway.alice.post(
                message, mcp_protocol_version=MODERN, mcp_method="tools/call", mcp_name="desk.echo"
            )
            assert called.status_code == 503
            assert len(await gateway.gate.receipts()) == before
            assert gateway.upstream.calls == []
            assert 'interrogate_fail_closed_total{cause="' in (await gateway.http.get("/metrics")).text
        finally:
            await _execute(admission_database, "GRANT EXECUTE ON FUNCTION metagate.state TO metagate_identity")


async def test_what_cannot_be_stored_is_neither_forwarded_nor_called(admission_database: AdmissionDatabase) -> None:
    """An error of the protocol that says that nothing was decided."""
    async with serving_gateway(admission_database) as gateway:
        await _execute(admission_database, "REVOKE EXECUTE ON FUNCTION interrogate.record FROM interrogate_writer")
        await _execute(
            admission_database, "REVOKE EXECUTE ON FUNCTION interrogate.record_calls FROM interrogate_writer"
        )
        try:
            asked = await gateway.alice.error(
                "problemata.passthrough", {"problemata_id": "desk", "capability": "doc.any", "input": {}}
            )
            called = await gateway.alice.error("desk.echo", {"text": "x"})
        finally:
            await _execute(admission_database, "GRANT EXECUTE ON FUNCTION interrogate.record TO interrogate_writer")
            await _execute(
                admission_database, "GRANT EXECUTE ON FUNCTION interrogate.record_calls TO interrogate_writer"
            )
        assert (
            (asked["code"], asked["data"]["code"])
            == (called["code"], called["data"]["code"])
            == (-32603, "UNAVAILABLE")
        )
        assert await gateway.gate.receipts() == []
        assert gateway.receiver.requests == gateway.upstream.calls == []


async def _execute(database: AdmissionDatabase, statement: str) -> None:
    connection = await asyncpg.connect(database.superuser)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
