"""Fetching key sets over https, from real servers on loopback."""

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from metagate_operator.issuers import key_fetcher
from metagate_operator.issuers.key_fetcher import HttpsKeyFetcher, KeysUnavailable, parse_networks

LOOPBACK = parse_networks("127.0.0.0/8, ::1/128")
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for localhost and 127.0.0.1, and its key; the certificate is its own authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    names = x509.SubjectAlternativeName([x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "tls.crt", folder / "tls.key"


@asynccontextmanager
async def served(certificate: tuple[Path, Path], **handlers: Handler) -> AsyncIterator[int]:
    app = web.Application()
    for name, handler in handlers.items():
        app.router.add_get(f"/{name}", handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


def answering(body: bytes = b"{}", status: int = 200, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(body=body, status=status, headers=headers)

    return handler


async def trouble(fetch: HttpsKeyFetcher, url: str) -> str:
    with pytest.raises(KeysUnavailable) as refused:
        await fetch(url)
    return str(refused.value)


async def test_a_key_set_is_fetched_over_verified_tls(certificate: tuple[Path, Path]) -> None:
    """With its authority in the CA bundle the document arrives as it is; without it nothing does."""
    async with served(certificate, keys=answering(b'{"keys":[]}')) as port:
        for host in ("localhost", "127.0.0.1"):
            fetch = HttpsKeyFetcher(ca_file=certificate[0], allow=LOOPBACK)
            assert await fetch(f"https://{host}:{port}/keys") == b'{"keys":[]}'
        assert "certificate" in await trouble(HttpsKeyFetcher(allow=LOOPBACK), f"https://localhost:{port}/keys")


async def test_addresses_nobody_should_be_sent_to_are_refused(certificate: tuple[Path, Path]) -> None:
    """Loopback is refused unless allowed, by name and by number, before anything is sent."""
    requests = []

    async def handler(_: web.Request) -> web.Response:
        requests.append(1)
        return web.Response()

    async with served(certificate, keys=handler) as port:
        for host in ("localhost", "127.0.0.1", "127.1.2.3", "[::1]", "[::ffff:127.0.0.1]"):
            text = await trouble(HttpsKeyFetcher(ca_file=certificate[0]), f"https://{host}:{port}/keys")
            assert "loopback" in text, host
    assert requests == []


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "169.254.169.254",
        "169.254.170.2",
        "0.0.0.0",
        "100.100.100.200",
        "192.0.0.192",
        "224.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00:ec2::254",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "2002:a9fe:a9fe::1",
        "ff02::1",
    ],
)
def test_the_addresses_that_are_refused(address: str) -> None:
    """Loopback, link-local, unspecified, multicast and metadata addresses, also as IPv6 spellings of IPv4 ones."""
    with pytest.raises(OSError, match="refused"):
        key_fetcher._refuse(ip_address(address), ())
    key_fetcher._refuse(
        ip_address(address), parse_networks(f"{address}/{32 if '.' in address and ':' not in address else 128}")
    )


@pytest.mark.parametrize("address", ["10.0.0.7", "192.168.1.1", "8.8.8.8", "fd12::1", "2606:4700::1111"])
def test_the_addresses_that_are_fetched_from(address: str) -> None:
    """Private networks are where a company's identity provider lives; they are fetched from."""
    key_fetcher._refuse(ip_address(address), ())


@pytest.mark.parametrize(
    "url", ["http://idp.example.com/k", "ftp://x/k", "https://user:pw@idp.example.com/k", "file:///etc/passwd"]
)
async def test_only_https_is_fetched(url: str) -> None:
    """Anything but https without credentials is refused without a connection."""
    assert "https" in await trouble(HttpsKeyFetcher(), url)


async def test_redirects_stay_on_the_host(certificate: tuple[Path, Path]) -> None:
    """A redirect on the same host is followed a little; to another host, port or scheme it is not."""
    async with (
        served(certificate, keys=answering(b"other")) as other,
        served(
            certificate,
            keys=answering(b"here"),
            same=answering(status=302, Location="/keys"),
            loop=answering(status=302, Location="/loop"),
            nowhere=answering(status=302),
            port=answering(status=307, Location=f"https://localhost:{other}/keys"),
            host=answering(status=301, Location="https://idp.example.com/keys"),
            plain=answering(status=308, Location="http://localhost/keys"),
        ) as port,
    ):
        fetch = HttpsKeyFetcher(ca_file=certificate[0], allow=LOOPBACK)
        assert await fetch(f"https://localhost:{port}/same") == b"here"
        for path in ("port", "host", "plain"):
            assert "another host" in await trouble(fetch, f"https://localhost:{port}/{path}"), path
        for path in ("loop", "nowhere"):
            assert "too often" in await trouble(fetch, f"https://localhost:{port}/{path}"), path


async def test_size_and_time_are_bounded(certificate: tuple[Path, Path]) -> None:
    """A document that is too large, and one that drips for ever, are given up."""

    async def drip(request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" ")
            await asyncio.sleep(0.02)

    async with served(certificate, large=answering(b" " * 300_000), drip=drip, gone=answering(status=404)) as port:
        fetch = HttpsKeyFetcher(ca_file=certificate[0], allow=LOOPBACK, seconds=0.3)
        assert "larger than 256 KiB" in await trouble(fetch, f"https://localhost:{port}/large")
        assert "404" in await trouble(fetch, f"https://localhost:{port}/gone")
        assert "0.3 s" in await trouble(fetch, f"https://localhost:{port}/drip")
    assert "refused or failed" in await trouble(fetch, f"https://localhost:{port}/keys")


async def test_a_name_that_is_nobodys_is_told() -> None:
    """A name that does not resolve is said to be that."""
    assert "resolved" in await trouble(HttpsKeyFetcher(), "https://no-such-host.invalid/keys")
