"""The gate as it is served: workers, replicas, restarts, a port for metrics, signed packets."""

import asyncio
import signal
import subprocess
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, settings_for
from tests.integration.api.processes import free_port, started, wait_for
from tests.unit.http.test_tls import issue, put

from legivellum.identity.packet_signing import verifies
from metagate_api.server import serving
from metagate_crds.canonical_json import canonical


async def boots(client: httpx.AsyncClient, key: str, times: int = 1) -> list[httpx.Response]:
    return [
        await client.post("/v1/bootstrap", json={"component_key": "indexer_1"}, headers={"x-api-key": key})
        for _ in range(times)
    ]


@pytest.mark.invariant("INV-018")
async def test_replicas_and_restarts_agree(gate: GateFixture, database: Database) -> None:
    """Another replica, and the same one after a restart, give the same packet_etag."""
    principal = await gate.principal()
    etags = {(await gate.boot(principal)).json()["packet_etag"]}
    for _ in range(2):
        with started(database) as (process, port):
            wait_for(port, process, "/readyz")
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
                [answer] = await boots(client, principal.key)
                etags.add(answer.json()["packet_etag"])
    assert len(etags) == 1


async def test_workers_share_the_work_and_the_metrics(gate: GateFixture, database: Database) -> None:
    """Two workers answer; what they counted is added up on a port of its own, and only there; SIGTERM ends with 0."""
    principal = await gate.principal()
    metrics = free_port()
    with started(database, METAGATE_WORKERS="2", METAGATE_METRICS_PORT=str(metrics)) as (process, port):
        wait_for(port, process, "/readyz")
        for _ in range(30):  # a connection each, so that both workers are met
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as client:
                answers = await boots(client, principal.key)
                assert {answer.status_code for answer in answers} <= {200, 503}
                assert (await client.get("/metrics")).status_code == 404
        async with httpx.AsyncClient(timeout=10) as client:
            text = (await client.get(f"http://127.0.0.1:{metrics}/metrics")).text
        assert 'metagate_http_requests_total{route="/v1/bootstrap",status="200"}' in text
        process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(process.wait, 20) == 0


async def test_a_taken_port_is_an_error(gate: GateFixture, database: Database) -> None:
    """A second gate on the same port does not silently share it."""
    with pytest.raises(OSError, match="in use"):
        async with serving(settings_for(database, port=gate.address[1])):
            pass


async def test_signed_packets(gate: GateFixture, database: Database, tmp_path: Path) -> None:
    """EXT-09: with a key configured each packet is signed over its canonical form; discovery names the public key."""
    key = tmp_path / "signing.pem"
    key.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    principal = await gate.principal()
    async with (
        serving(settings_for(database, signing_key_file=str(key))) as url,
        httpx.AsyncClient(base_url=url) as client,
    ):
        public = (await client.get("/.well-known/metagate.json")).json()["packet_signing_key"]
        [booted] = await boots(client, principal.key)
        again = await client.get(
            f"/v1/startup/{booted.json()['startup']['startup_id']}/packet", headers={"x-api-key": principal.key}
        )
        for answer in (booted, again):
            signature = answer.headers["metagate-packet-signature"]
            assert verifies(signature, canonical(answer.json()), public)
            assert not verifies(signature, canonical({**answer.json(), "profile": "other"}), public)
    assert "metagate-packet-signature" not in (await gate.boot(principal)).headers


async def test_a_single_worker_ends_with_zero(database: Database) -> None:
    """SIGTERM is asked for: the process ends in order and says so."""
    with started(database) as (process, port):
        wait_for(port, process, "/readyz")
        process.send_signal(signal.SIGTERM)
        try:
            assert await asyncio.to_thread(process.wait, 20) == 0
        except subprocess.TimeoutExpired:
            pytest.fail("it did not end")


async def test_over_tls(gate: GateFixture, database: Database, tmp_path: Path) -> None:
    """With certificate and key the gate speaks TLS and nothing else on its port."""
    cert, key = put(tmp_path, issue("localhost"))
    principal = await gate.principal()
    async with serving(settings_for(database, tls_cert=cert, tls_key=key)) as url:
        assert url.startswith("https://")
        async with httpx.AsyncClient(base_url=url, verify=False) as client:
            assert [answer.status_code for answer in await boots(client, principal.key, 3)] == [200, 200, 200]
        async with httpx.AsyncClient(base_url=url.replace("https", "http")) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/livez")
