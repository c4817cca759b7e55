"""The edge of a served gate, as whoever reaches its port meets it: TLS, its renewal, limits, slowness, junk."""

import asyncio
import contextlib
import datetime as dt
import json
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from tests.databases import Database
from tests.integration.api.gate_fixture import GateFixture, PrincipalFixture
from tests.integration.api.processes import CODE, free_port, started, wait_for
from tests.integration.identity.conftest import Corpus
from tests.unit.http.test_tls import put

from metagate_client import Client, Settings
from metagate_client.errors import UnavailableError, UntrustedError


def issue(number: int) -> tuple[bytes, bytes]:
    """A certificate for 127.0.0.1 that is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "metagate")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(number)
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return made.public_bytes(Encoding.PEM), pem


@contextlib.contextmanager
def speaking_tls(database: Database, folder: Path, **environment: str) -> Iterator[tuple[int, Path, str]]:
    """A served gate with TLS and signed packets: its port, its log, and its certificate's file."""
    cert, key = put(folder, issue(1001))
    signing = folder / "signing.pem"
    signing.write_bytes(Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    port, log = free_port(), folder / "log"
    environ = {
        "PATH": "/usr/bin:/bin",
        "DATABASE_URL": database.api,
        "METAGATE_PORT": str(port),
        "METAGATE_TLS_CERT": cert,
        "METAGATE_TLS_KEY": key,
        "METAGATE_SIGNING_KEY_FILE": str(signing),
        **environment,
    }
    with log.open("wb") as stream:
        served = subprocess.Popen([sys.executable, "-c", CODE], env=environ, stderr=stream)
    try:
        trusted = ssl.create_default_context(cafile=cert)
        for _ in range(200):
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"https://127.0.0.1:{port}/readyz", verify=trusted).status_code == 200:
                    break
            time.sleep(0.05)
        yield port, log, cert
    finally:
        served.terminate()
        served.wait(20)


async def handshake(port: int, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> tuple[int, asyncio.StreamWriter]:
    """The serial number of the certificate that is shown, and the connection."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.maximum_version = maximum
    _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    shown = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number, writer


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated:DeprecationWarning")
@pytest.mark.invariant("EXT-09")
async def test_the_client_believes_its_authority_and_its_signer(
    gate: GateFixture, indexer: PrincipalFixture, database: Database, tmp_path: Path
) -> None:
    """Over TLS with the CA bundle and with the published key a pod boots; another authority or signer is not believed;
    the certificate is renewed while connections go on; TLS 1.1 is not spoken.
    """
    key_file, public, other = tmp_path / "key", tmp_path / "public.jwk", tmp_path / "other.jwk"
    key_file.write_text(indexer.key)
    with speaking_tls(database, tmp_path) as (port, log, cert):
        url = f"https://127.0.0.1:{port}"

        def client(**settings: str) -> Client:
            return Client(
                Settings(url=url, component_key="indexer_1", api_key_file=str(key_file), environ={}, **settings)
            )

        trusting = httpx.AsyncClient(base_url=url, verify=ssl.create_default_context(cafile=cert))
        async with trusting:
            jwk = (await trusting.get("/.well-known/metagate.json")).json()["packet_signing_key"]
            public.write_text(json.dumps(jwk))
            other.write_text(json.dumps({**jwk, "x": "A" * 43}))
            booted = await asyncio.to_thread(client(ca_file=cert, verify_key_file=str(public)).bootstrap)
            assert booted["principal_key"] == indexer.name
            with pytest.raises(UntrustedError):
                await asyncio.to_thread(client(ca_file=cert, verify_key_file=str(other)).bootstrap)
            with pytest.raises(UnavailableError):
                await asyncio.to_thread(client(verify_key_file=str(public)).bootstrap)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await handshake(port, ssl.TLSVersion.TLSv1_1)
            serial, open_before = await handshake(port)
            assert serial == 1001
            put(tmp_path, issue(1002))
            deadline = time.monotonic() + 15
            while serial != 1002:
                assert time.monotonic() < deadline, "the new certificate is not shown"
                assert (await trusting.get("/livez")).status_code == 200  # on the connection that was there before
                await asyncio.sleep(0.2)
                serial, writer = await handshake(port)
                writer.close()
            open_before.close()
    assert '"certificate_reloaded"' in log.read_text()
    assert '"plain_http"' not in log.read_text()


async def test_plain_http_is_said_once(database: Database, tmp_path: Path) -> None:
    """Without a certificate the process says in one line that nobody encrypts here, however many workers it has."""
    port, log = free_port(), tmp_path / "log"
    environ = {"PATH": "/usr/bin", "DATABASE_URL": database.api, "METAGATE_PORT": str(port), "METAGATE_WORKERS": "2"}
    with log.open("wb") as stream:
        served = subprocess.Popen([sys.executable, "-c", CODE], env=environ, stderr=stream)
    try:
        await asyncio.to_thread(wait_for, port, served, "/livez")
    finally:
        served.terminate()
        served.wait(20)
    assert log.read_text().count('"plain_http"') == 1


async def dripping(port: int, first: bytes) -> tuple[int, float]:
    """Send `first` and then a byte now and then: the status in the end, and after how many seconds."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    answer = asyncio.ensure_future(reader.readline())
    while not answer.done():
        assert time.monotonic() - began < 10, "nobody ends this"
        await asyncio.sleep(0.1)
        with contextlib.suppress(ConnectionError):
            writer.write(b"a")
    writer.close()
    return int((await answer).split()[1]), time.monotonic() - began


@pytest.mark.invariant("INV-026", "EXT-08")
async def test_slow_and_many(gate: GateFixture, indexer: PrincipalFixture, database: Database) -> None:
    """Who drips is told 408 at the limit, who comes when it is full 503; who behaves is answered meanwhile."""
    limits = {"METAGATE_HEADER_SECONDS": "0.5", "METAGATE_BODY_SECONDS": "0.7", "METAGATE_CONNECTIONS": "20"}
    with started(database, **limits) as (process, port):
        wait_for(port, process, "/readyz")
        body = {"component_key": "indexer_1"}
        head = b"POST /v1/bootstrap HTTP/1.1\r\nHost: a\r\n"
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10, trust_env=False) as client:
            assert (await client.post("/v1/bootstrap", json=body, headers=indexer.by_key)).status_code == 200
            key = b"X-API-Key: " + indexer.key.encode() + b"\r\nContent-Type: application/json\r\n"
            slow = asyncio.gather(
                *[dripping(port, head + b"X-Slow: ") for _ in range(4)],
                *[dripping(port, head + key + b"Content-Length: 60000\r\n\r\n{") for _ in range(4)],
            )
            while not slow.done():
                assert (await client.post("/v1/bootstrap", json=body, headers=indexer.by_key)).status_code == 200
                await asyncio.sleep(0.05)
            assert {status for status, _ in slow.result()} == {408}
            assert max(seconds for _, seconds in slow.result()) < 5
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(19)]
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            assert (await asyncio.wait_for(reader.readline(), 5)).split()[1] == b"503"
            assert (await client.post("/v1/bootstrap", json=body, headers=indexer.by_key)).status_code == 200
            for _, item in (*idle, (reader, writer)):
                item.close()


async def test_junk_waits_and_the_good_do_not(
    gate: GateFixture, indexer: PrincipalFixture, corpus: Corpus, database: Database
) -> None:
    """A flood of wrong tokens is answered late and all of it with 401; a good caller beside it is not slowed."""
    junk = {"authorization": "Bearer " + corpus.attacks["signed by a stranger with a known kid"].decode()}
    with started(database, JWT_SECRET=corpus.secret) as (process, port):
        wait_for(port, process, "/readyz")
        body = {"component_key": "indexer_1"}
        limits = httpx.Limits(max_connections=40)
        base = f"http://127.0.0.1:{port}"
        async with (
            httpx.AsyncClient(base_url=base, timeout=30, trust_env=False, limits=limits) as flood,
            httpx.AsyncClient(base_url=base, timeout=30, trust_env=False) as good,
        ):

            async def one() -> tuple[int, float]:
                began = time.monotonic()
                status = (await flood.post("/v1/bootstrap", json=body, headers=junk)).status_code
                return status, time.monotonic() - began

            flooding = asyncio.gather(*[one() for _ in range(600)])
            taken, statuses = [], set()
            while not flooding.done():
                began = time.monotonic()
                statuses.add((await good.post("/v1/bootstrap", json=body, headers=indexer.by_key)).status_code)
                taken.append(time.monotonic() - began)
                await asyncio.sleep(0.01)
            assert statuses == {200}
            assert {status for status, _ in flooding.result()} == {401}
            last = [seconds for _, seconds in flooding.result()][-60:]
            assert min(last) > sorted(taken)[len(taken) // 2], "whoever sends junk waits longer than who does not"
