"""TLS with certificates that change."""

import asyncio
import datetime as dt
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from legivellum.base import tls_reload


def issue(name: str) -> tuple[bytes, bytes]:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = dt.datetime.now(dt.UTC)
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    return (
        cert.public_bytes(Encoding.PEM),
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
    )


def put(directory: Path, pair: tuple[bytes, bytes]) -> tuple[str, str]:
    for name, content in zip(("tls.crt", "tls.key"), pair, strict=True):
        (directory / f"new-{name}").write_bytes(content)
        (directory / f"new-{name}").replace(directory / name)
    return str(directory / "tls.crt"), str(directory / "tls.key")


async def connect(port: int, maximum: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3):
    client = ssl.create_default_context()
    client.check_hostname, client.verify_mode, client.maximum_version = False, ssl.CERT_NONE, maximum
    return await asyncio.open_connection("127.0.0.1", port, ssl=client)


def shown(writer: asyncio.StreamWriter) -> str:
    der = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(der).subject.rfc4514_string()


async def test_certificates_are_renewed_under_way(tmp_path: Path) -> None:
    """New handshakes get the new certificate, the old connection goes on; a broken pair changes nothing; no TLS 1.1."""
    context = tls_reload.server_context(*put(tmp_path, issue("first")), check_every=0.02)

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            writer.write(line)
        writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0, ssl=context)
    port = server.sockets[0].getsockname()[1]
    old_reader, old = await connect(port)
    assert shown(old) == "CN=first"

    put(tmp_path, (b"broken", b"broken"))
    await asyncio.sleep(0.1)
    _, during = await connect(port)
    assert shown(during) == "CN=first"

    put(tmp_path, issue("second"))
    for _ in range(100):
        _, fresh = await connect(port)
        name = shown(fresh)
        fresh.close()
        if name == "CN=second":
            break
        await asyncio.sleep(0.02)
    assert name == "CN=second"
    old.write(b"still here\n")
    assert await old_reader.readline() == b"still here\n"
    for writer in (old, during):
        writer.close()
    server.close()


def test_missing_files_fail_at_once(tmp_path: Path) -> None:
    """Nobody serves plain text because a certificate was not there."""
    with pytest.raises(OSError, match="No such file"):
        tls_reload.server_context(str(tmp_path / "a"), str(tmp_path / "b"))
