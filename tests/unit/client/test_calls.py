"""The three calls: what is sent, what is tried again, what is given up, and what a person is told."""

import asyncio
import socket
import ssl
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.unit.client.double import PACKET, STARTUP, Double, double, problem, recorded, reply

import metagate_client
from metagate_client import errors, http_request
from metagate_client.client import Client
from metagate_client.errors import ClientError, MisconfiguredError, RefusedError, UnavailableError, UntrustedError
from metagate_client.packet import Packet
from metagate_client.settings import Settings


@pytest.fixture
def token(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text("header.payload.signature\n")
    return path


@pytest.fixture
def gate() -> Iterator[Double]:
    with double() as made:
        yield made


def client(gate: Double, token: Path, **options: Any) -> Client:
    settings = Settings(url=gate.url, component_key="indexer_main", token_file=str(token), environ={}, **options)
    return Client(settings)


def test_a_bootstrap_says_who_and_what(gate: Double, token: Path) -> None:
    """The request carries the component, the token and a key for repeating it; the packet arrives as it was sent."""
    packet = client(gate, token).bootstrap()
    request = gate.requests[0]
    assert (request.path, request.body) == ("/v1/bootstrap", {"component_key": "indexer_main"})
    assert request.headers["authorization"] == "Bearer header.payload.signature"
    assert len(request.headers["idempotency-key"]) == 32
    assert request.headers["content-type"] == "application/json"
    assert request.headers["host"] == f"127.0.0.1:{gate.port}"
    assert packet.content == PACKET
    assert (packet.startup_id, packet.stale) == (STARTUP, False)


def test_an_api_key_goes_into_its_header(gate: Double, tmp_path: Path) -> None:
    """With a key file the key is sent, in the header that the installation uses, and no token."""
    (tmp_path / "key").write_text("mgk_x")
    for given, name in ((None, "x-api-key"), ("X-Agent-Key", "x-agent-key")):
        settings = Settings(
            url=gate.url, component_key="c", api_key_file=str(tmp_path / "key"), api_key_header=given, environ={}
        )
        Client(settings).bootstrap()
        assert gate.requests[-1].headers[name] == "mgk_x"
        assert "authorization" not in gate.requests[-1].headers


def test_the_token_is_read_again_at_every_call(gate: Double, token: Path) -> None:
    """Kubernetes renews projected tokens: the next call, and the next try of one, uses the new one."""
    made = client(gate, token)
    made.bootstrap()
    token.write_text("renewed.a.b")
    made.ready(STARTUP, "1.2.3")

    def renew(connection: socket.socket) -> None:
        token.write_text("again.a.b")
        connection.sendall(problem(503, "UNAVAILABLE"))

    gate.script = [renew]
    made.failed(STARTUP, "broken")
    sent = [item.headers["authorization"].removeprefix("Bearer ") for item in gate.requests]
    assert sent == ["header.payload.signature", "renewed.a.b", "renewed.a.b", "again.a.b"]


def test_reports_carry_what_the_contract_names(gate: Double, token: Path) -> None:
    """READY carries the build and health, FAILED the error and details; what is not given is not sent."""
    made = client(gate, token)
    assert made.ready(STARTUP, "1.2.3", {"db": "ok"})["status"] == "READY"
    assert made.failed(STARTUP, "no disk", {"free": 0})["status"] == "FAILED"
    made.ready(STARTUP, "unknown")
    assert [item.body for item in gate.requests] == [
        {"startup_id": STARTUP, "build_version": "1.2.3", "health": {"db": "ok"}},
        {"startup_id": STARTUP, "error": "no disk", "details": {"free": 0}},
        {"startup_id": STARTUP, "build_version": "unknown"},
    ]


@pytest.mark.invariant("EXT-31")
@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_tried_again_with_the_same_key(gate: Double, token: Path, status: int) -> None:
    """A passing trouble is tried again, and every try of a bootstrap carries one and the same key (D-03)."""
    gate.script = [problem(status, "UNAVAILABLE"), problem(status, "UNAVAILABLE"), reply()]
    client(gate, token).bootstrap()
    assert len(gate.requests) == 3
    assert len({item.headers["idempotency-key"] for item in gate.requests}) == 1


def test_another_process_start_is_another_key(gate: Double, token: Path) -> None:
    """Each client has a key of its own; one that is given is used."""
    for _ in range(2):
        client(gate, token).bootstrap()
    Client(
        Settings(url=gate.url, component_key="c", token_file=str(token), environ={}), idempotency_key="k"
    ).bootstrap()
    keys = [item.headers["idempotency-key"] for item in gate.requests]
    assert len(set(keys)) == 3
    assert keys[2] == "k"


def close(connection: socket.socket) -> None:
    connection.close()


def break_off(connection: socket.socket) -> None:
    connection.sendall(reply()[:-10])


@pytest.mark.parametrize("trouble", [close, break_off, b"HTTP/1.1 200 OK\r\n", b"220 smtp ready\r\n\r\n"], ids=str)
def test_a_lost_answer_is_asked_for_again(gate: Double, token: Path, trouble: Any) -> None:
    """A connection that breaks, at any point of the answer, is no answer."""
    gate.script = [trouble]
    assert client(gate, token).bootstrap().startup_id == STARTUP
    assert len(gate.requests) == 2


@pytest.mark.parametrize(
    ("status", "code"),
    [(401, "CREDENTIAL_INVALID"), (403, "NO_BINDING"), (409, "BINDING_INCOMPLETE"), (422, "INVALID_REQUEST")],
)
def test_a_refusal_is_final_and_says_what_to_do(gate: Double, token: Path, status: int, code: str) -> None:
    """A no is asked once; the line says status, code, why, and what to do next."""
    gate.script = [problem(status, code, "It is like this.")]
    with pytest.raises(RefusedError) as refused:
        client(gate, token).bootstrap()
    assert len(gate.requests) == 1
    assert (refused.value.status, refused.value.code) == (status, code)
    assert str(refused.value).startswith(f"refused ({status} {code}): It is like this.")
    assert "\n" not in str(refused.value)


def test_what_a_server_says_cannot_forge_lines(gate: Double, token: Path) -> None:
    """Control characters of an answer do not reach the terminal or the log."""
    gate.script = [problem(403, "NO_BINDING", "a\nmetagate: all is well\x1b[2J" + "x" * 9000)]
    with pytest.raises(RefusedError) as refused:
        client(gate, token).bootstrap()
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 1000


@pytest.mark.invariant("EXT-31")
def test_the_bound_holds_whatever_the_server_does(gate: Double, token: Path) -> None:
    """Silence, a drip of bytes and endless 503s all end within the timeout, with one line that says why."""

    def drip(connection: socket.socket) -> None:
        try:
            for _ in range(400):
                connection.sendall(b"H")
                time.sleep(0.02)
        except OSError:
            pass

    def silence(connection: socket.socket) -> None:
        connection.settimeout(3)
        connection.recv(1)

    for script in ([drip] * 9, [silence] * 9, [problem(503, "UNAVAILABLE")] * 9):
        gate.script = list(script)
        began = time.monotonic()
        with pytest.raises(UnavailableError, match="is not available"):
            client(gate, token, timeout=0.6).bootstrap()
        assert time.monotonic() - began < 1.0


def test_the_pause_that_the_server_asks_for_is_kept(gate: Double, token: Path) -> None:
    """`Retry-After` is waited for, with a little randomness; one beyond the bound ends the tries at once."""
    gate.script = [problem(503, "UNAVAILABLE", Retry_After="1")]
    client(gate, token).bootstrap()
    assert 1.0 <= gate.requests[1].at - gate.requests[0].at < 1.6
    gate.script = [problem(503, "UNAVAILABLE", Retry_After="30")]
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="1 tries"):
        client(gate, token).bootstrap()
    assert time.monotonic() - began < 0.5


def test_pauses_grow_and_differ(gate: Double, token: Path) -> None:
    """Pauses grow to a second at most, and no two clients march in step."""
    pauses: list[float] = []
    settings = Settings(url=gate.url, component_key="c", token_file=str(token), timeout=60, environ={})
    made = Client(settings, sleep=pauses.append)
    gate.script = [problem(503, "UNAVAILABLE")] * 8
    with pytest.raises(UnavailableError, match="8 tries"):
        made.bootstrap()
    assert len(set(pauses)) == len(pauses)
    for number, pause in enumerate(pauses):
        assert min(1.0, 0.1 * 2**number) * 0.5 <= pause <= min(1.0, 0.1 * 2**number) * 1.5


def test_nobody_there_is_told_in_one_line(token: Path) -> None:
    """A refused connection, a name that is nobody's and a wrong protocol say so, with the address."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    settings = Settings(
        url=f"http://127.0.0.1:{port}", component_key="c", token_file=str(token), timeout=0.3, environ={}
    )
    with pytest.raises(UnavailableError, match=rf"127.0.0.1:{port} is not available: the connection was refused"):
        Client(settings).bootstrap()
    settings = Settings(
        url="http://no-such-host.invalid", component_key="c", token_file=str(token), timeout=2, environ={}
    )
    with pytest.raises(UnavailableError, match=r"cannot be resolved|not resolved in time"):
        Client(settings).bootstrap()


def test_a_resolver_that_hangs_does_not_break_the_bound(token: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system's resolver may block for long; the call ends within its time all the same."""
    real = socket.getaddrinfo

    def slow(host: str, *args: Any, flags: int = 0, **rest: Any) -> Any:
        if flags:
            return real(host, *args, flags=flags, **rest)
        time.sleep(2)
        raise socket.gaierror("late")

    monkeypatch.setattr(http_request.socket, "getaddrinfo", slow)
    settings = Settings(url="http://metagate", component_key="c", token_file=str(token), timeout=0.3, environ={})
    began = time.monotonic()
    with pytest.raises(UnavailableError, match="not resolved in time"):
        Client(settings).bootstrap()
    assert time.monotonic() - began < 0.6


@pytest.mark.parametrize(
    ("raw", "trouble"),
    [
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n", None),
        (b"HTTP/1.0 200 OK\r\n\r\n%b", None),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nContent-Length: %d\r\n\r\n%b", None),
        (b"HTTP/1.1 200 OK\r\ncontent-LENGTH:%d\r\nX: y\r\n\r\n%b", None),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n", "larger than any packet"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n", "larger than any packet"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "broken"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000, "broke off"),
        (b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "headers are broken"),
        (b"HTTP/2 200\r\n\r\n", "does not speak HTTP"),
        (b"\x15\x03\x01\x00\x02\x02", "broke off"),
    ],
    ids=lambda value: repr(value[:60]) if isinstance(value, bytes) else "",
)
def test_every_shape_of_an_answer(gate: Double, token: Path, raw: bytes, trouble: str | None) -> None:
    """Lengths, chunks and closing are understood as HTTP/1.1 has them; anything else is no answer."""
    body = reply().partition(b"\r\n\r\n")[2]
    if raw.count(b"%") == 2:
        raw = raw % (len(body), body)
    elif b"%b" in raw:
        raw = raw % body
    gate.script = [raw]
    address = http_request.ServerAddress("127.0.0.1", gate.port, tls=False, ca_file=None)
    deadline = time.monotonic() + 2
    if trouble is None:
        answer = http_request.send_request(address, "/v1/bootstrap", headers={}, body=b"{}", deadline=deadline)
        assert (answer.status, answer.body) == (200, body)
    else:
        with pytest.raises(http_request.UnreachableError, match=trouble):
            http_request.send_request(address, "/v1/bootstrap", headers={}, body=b"{}", deadline=deadline)


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"<html>", b'{"startup":{}}', b'{"startup":{"startup_id":7}}', b"[" * 90_000]
)
def test_an_answer_that_is_no_packet_is_not_used(gate: Double, token: Path, body: bytes) -> None:
    """A 200 of something else (a proxy's login page, say) is not taken for a packet."""
    gate.script = [reply(200, body)]
    with pytest.raises(UnavailableError, match="not a Welcome Packet"):
        client(gate, token).bootstrap()


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, Path]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "metagate")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("tls")
    (folder / "tls.crt").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "tls.key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
    return context, folder / "tls.crt"


def test_https_is_verified_with_the_bundle(tls: tuple[ssl.SSLContext, Path], token: Path) -> None:
    """With its authority in the bundle the server is believed; without it the line names the setting."""
    with double(tls=tls[0]) as gate:
        url = gate.url.replace("http", "https", 1)
        good = Settings(url=url, component_key="c", token_file=str(token), ca_file=str(tls[1]), environ={})
        assert Client(good).bootstrap().startup_id == STARTUP
        bad = Settings(url=url, component_key="c", token_file=str(token), timeout=5, environ={})
        with pytest.raises(UnavailableError, match="METAGATE_CA_FILE"):
            Client(bad).bootstrap()
        assert len(gate.requests) == 1
        missing = Settings(url=url, component_key="c", token_file=str(token), ca_file="/no", timeout=0.3, environ={})
        with pytest.raises(MisconfiguredError, match="CA file /no cannot be used"):
            Client(missing).bootstrap()


@pytest.mark.invariant("EXT-31")
def test_explicit_configuration_wins(tmp_path: Path) -> None:
    """What is given wins over the environment; a flag for one credential silences the variable for the other."""
    (tmp_path / "t").write_text("a.b.c")
    (tmp_path / "k").write_text("mgk_k")
    env = {
        "METAGATE_URL": "http://env:1",
        "METAGATE_COMPONENT_KEY": "env",
        "METAGATE_TOKEN_FILE": str(tmp_path / "t"),
        "METAGATE_CA_FILE": "/env",
    }
    settings = Settings(environ=env)
    assert (settings.host, settings.port, settings.component_key, settings.ca_file) == ("env", 1, "env", "/env")
    assert settings.credential() == ("Authorization", "Bearer a.b.c")
    given = Settings(
        url="https://given/base/", component_key="given", api_key_file=str(tmp_path / "k"), ca_file="/g", environ=env
    )
    assert (given.host, given.port, given.tls, given.base, given.component_key, given.ca_file) == (
        "given",
        443,
        True,
        "/base",
        "given",
        "/g",
    )
    assert given.credential() == ("X-API-Key", "mgk_k")


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("http://metagate:8000", ("metagate", 8000, False, "")),
        ("http://[::1]:8000/", ("::1", 8000, False, "")),
        ("https://metagate.example.com/gate", ("metagate.example.com", 443, True, "/gate")),
    ],
)
def test_addresses(url: str, parts: tuple[str, int, bool, str]) -> None:
    """Host, port, scheme and a base path are understood."""
    settings = Settings(url=url, environ={})
    assert (settings.host, settings.port, settings.tls, settings.base) == parts


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"url": "metagate:8000"},
        {"url": "ftp://metagate"},
        {"url": "http://user:pw@metagate"},
        {"url": "http://metagate:99999"},
        {"url": "http://metagate/?q"},
        {"url": "http://meta gate"},
        {"url": "http://m\r\nHost: evil"},
        {"url": "http://m", "timeout": 0},
        {"url": "http://m", "timeout": 1000},
        {"url": "http://m", "api_key_header": "X:\r\nY"},
        {"url": "http://m", "token_file": "a", "api_key_file": "b"},
        {"url": "http://m", "environ": {"METAGATE_TOKEN_FILE": "a", "METAGATE_API_KEY_FILE": "b"}},
    ],
    ids=str,
)
def test_configuration_that_cannot_work_is_refused(options: dict[str, Any]) -> None:
    """What cannot work is said before anything is sent, naming what to set."""
    with pytest.raises(MisconfiguredError, match=r"METAGATE_|timeout|choose one"):
        Settings(**{"environ": {}, **options})


@pytest.mark.parametrize("content", [None, "", "  \n", "a b", "a\nb", "x" * 20_000, "schlüssel", "\x00"])
def test_a_credential_file_that_holds_none_is_refused(tmp_path: Path, content: str | None) -> None:
    """A missing, empty or odd file names itself and what to do; its content is not shown."""
    path = tmp_path / "token"
    if content is not None:
        path.write_text(content)
    with pytest.raises(MisconfiguredError, match="audience metagate") as refused:
        Settings(url="http://m", token_file=str(path), environ={}).credential()
    assert str(path) in str(refused.value)


def test_without_any_credential_the_line_names_both(tmp_path: Path) -> None:
    """With nothing configured the two variables are named; without a component, that one."""
    with pytest.raises(MisconfiguredError, match=r"METAGATE_TOKEN_FILE.*METAGATE_API_KEY_FILE"):
        Settings(url="http://m", environ={}).credential()
    with pytest.raises(MisconfiguredError, match="METAGATE_COMPONENT_KEY"):
        Client(Settings(url="http://m", environ={})).bootstrap()


@pytest.mark.invariant("EXT-31")
def test_services_are_found_by_type(gate: Double, token: Path) -> None:
    """A component asks for what it needs, not for what somebody named it."""
    packet = client(gate, token).bootstrap()
    assert packet.service("memorygate")["endpoint"] == "http://memorygate:8001"
    assert set(packet.services("smtp")) == {"mail.internal", "mail2"}
    for kind in ("smtp", "nothing"):
        with pytest.raises(LookupError):
            packet.service(kind)
    assert packet.find("services.memorygate.endpoint") == "http://memorygate:8001"
    assert packet.find("/services/mail.internal/endpoint") == "smtp://mail"
    assert packet.find("required_env.0.name") == "db"
    for path in ("services.nothing", "required_env.7", "packet_id.x", ""):
        with pytest.raises(LookupError):
            packet.find(path)


@pytest.mark.invariant("EXT-31")
def test_a_start_as_a_block(gate: Double, token: Path) -> None:
    """Leaving the block reports READY; an exception reports FAILED by its type and goes on its way."""
    made = client(gate, token)
    with metagate_client.startup(client=made, build_version="7") as packet:
        assert packet["principal_key"] == "indexer"
    with pytest.raises(ZeroDivisionError), metagate_client.startup(client=made):
        raise ZeroDivisionError("the password is hunter2")
    assert gate.paths() == ["bootstrap", "startup/ready", "bootstrap", "startup/failed"]
    assert gate.requests[3].body["error"] == "ZeroDivisionError before it was ready"


@pytest.mark.invariant("EXT-31")
async def test_a_start_as_a_block_of_asyncio(gate: Double, token: Path) -> None:
    """`async with` reports the same, and the event loop goes on while MetaGate takes its time."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.005)
            ticks += 1

    ticking = asyncio.create_task(tick())
    gate.script = [problem(503, "OVERLOADED"), problem(503, "OVERLOADED"), reply()]
    try:
        async with metagate_client.startup(client=client(gate, token), build_version="7") as packet:
            assert packet["principal_key"] == "indexer"
            assert ticks > 5  # two pauses of at least 50 and 100 ms lie behind it
    finally:
        ticking.cancel()
    with pytest.raises(ZeroDivisionError):
        async with metagate_client.startup(client=client(gate, token)):
            raise ZeroDivisionError
    assert gate.paths() == ["bootstrap"] * 3 + ["startup/ready", "bootstrap", "startup/failed"]


def test_the_reason_is_reported_only_when_asked_for(gate: Double, token: Path) -> None:
    """`report_reason` adds what the exception says, as one line that is not endless."""
    with pytest.raises(LookupError), metagate_client.startup(client=client(gate, token), report_reason=True):
        raise LookupError("no model\nat /models " + "x" * 1000)
    error = gate.requests[1].body["error"]
    assert error.startswith("LookupError before it was ready: no model at /models xxx")
    assert len(error) < 600


def test_a_repr_says_which_and_no_secret(gate: Double, token: Path) -> None:
    """What a debugger shows of a client and a packet: where, as whom, which startup; neither credential nor values."""
    made = client(gate, token)
    packet = made.bootstrap()
    assert repr(packet) == f"<Packet of indexer as {packet['component_key']}, startup {STARTUP}>"
    assert repr(Packet.from_body(packet.body, stale=True)).endswith(", STALE>")
    assert repr(made) == f"<Client of <Settings {made.settings.url} as {made.settings.component_key} with {token}>>"
    assert token.read_text().strip() not in repr(made)


def test_a_failed_that_cannot_be_told_hides_nothing(gate: Double, token: Path) -> None:
    """When the report fails too, the exception of the block is still the one that is raised."""
    gate.script = [reply(), problem(403, "NOT_THIS_POD")]
    with pytest.raises(ZeroDivisionError), metagate_client.startup(client=client(gate, token)):
        raise ZeroDivisionError


@pytest.mark.invariant("EXT-09")
def test_only_a_packet_with_the_right_signature_is_used(gate: Double, token: Path, tmp_path: Path) -> None:
    """With a key configured, an unsigned, altered or otherwise signed packet is refused, whatever else is chosen."""
    import json

    import rfc8785

    from legivellum.identity.packet_signing import PacketSigner

    def signer() -> PacketSigner:
        key = ed25519.Ed25519PrivateKey.generate()
        return PacketSigner(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))

    ours, stranger = signer(), signer()
    (tmp_path / "key.json").write_text(json.dumps(ours.public_jwk))
    made = client(gate, token, verify_key_file=str(tmp_path / "key.json"))
    canonical = rfc8785.dumps(PACKET)
    gate.script = [reply(MetaGate_Packet_Signature=ours.sign(canonical))]
    assert made.bootstrap().startup_id == STARTUP
    altered = {**PACKET, "principal_key": "root"}
    for bad in (
        reply(),
        reply(200, altered, MetaGate_Packet_Signature=ours.sign(canonical)),
        reply(MetaGate_Packet_Signature=stranger.sign(canonical)),
        reply(MetaGate_Packet_Signature="a.b.c"),
    ):
        gate.script = [bad]
        with pytest.raises(UntrustedError):
            made.bootstrap()
    (tmp_path / "key.json").write_text("{}")
    gate.script = [reply(MetaGate_Packet_Signature=ours.sign(canonical))]
    with pytest.raises(MisconfiguredError, match=r"key\.json"):
        made.bootstrap()


def test_the_package_exports_what_it_says() -> None:
    """Everything in `__all__` is there, and recorded answers come back as they were."""
    assert all(hasattr(metagate_client, name) for name in metagate_client.__all__)
    raised = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, ClientError)
    }
    assert raised <= {*metagate_client.__all__}
    assert recorded("READY")
