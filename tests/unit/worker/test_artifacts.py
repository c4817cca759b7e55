"""The client of DepotGate at a gate that refuses early, breaks off, lies or is away: one socket, one script.

How it goes with a real DepotGate: tests/integration/depotgate.
"""

import hashlib
import io
import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from legivellum_worker.artifact_commands import main
from legivellum_worker.artifacts import (
    ArtifactCorruptError,
    DepotGateClient,
    StoredArtifact,
    digest_of,
)
from legivellum_worker.gate_client import GateError, GateUnavailableError
from legivellum_worker.results import Output
from legivellum_worker.settings import WorkerSettings, find_depotgate
from legivellum_worker.ulids import new_ulid
from metagate_client.errors import MisconfiguredError

CONTENT = bytes(range(256)) * 4096
DIGEST = hashlib.sha256(CONTENT).hexdigest()
ID = "01KXQ5J8ZC8Q4T1V2W3X4Y5Z60"
POINTER = f"depot:{ID}:{DIGEST}"
ANSWER = {
    "pointer": POINTER,
    "location": "https://depot.example.com",
    "sha256": DIGEST,
    "size_bytes": len(CONTENT),
    "media_type": "application/pdf",
    "receipt_id": ID,
}


@dataclass
class HeardRequest:
    line: str
    headers: dict[str, str]
    body: bytes


Step = Callable[[socket.socket, HeardRequest], None]


@dataclass
class ScriptedDepot:
    """One step of the script for each connection; a step answers when it has read of the body what it wants."""

    port: int
    script: list[Step]
    requests: list[HeardRequest] = field(default_factory=list)

    def client(self, key: Path) -> DepotGateClient:
        return DepotGateClient(find_depotgate(url=f"http://127.0.0.1:{self.port}", api_key_file=str(key), environ={}))

    def serve(self, connection: socket.socket) -> None:
        raw = b""
        while b"\r\n\r\n" not in raw:
            raw += connection.recv(65536)
        head, _, body = raw.partition(b"\r\n\r\n")
        line, *rest = head.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (header.partition(":") for header in rest)}
        request = HeardRequest(line, headers, body)
        self.requests.append(request)
        self.script.pop(0)(connection, request)


@contextmanager
def depot(*script: Step) -> Iterator[ScriptedDepot]:
    listener = socket.create_server(("127.0.0.1", 0))
    scripted = ScriptedDepot(listener.getsockname()[1], list(script))

    def accept() -> None:
        while scripted.script:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection:
                scripted.serve(connection)

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    yield scripted
    listener.close()
    thread.join(5)


def answer(status: int, body: bytes, *headers: str, claimed: int | None = None) -> bytes:
    lines = [
        f"HTTP/1.1 {status} Text",
        f"Content-Length: {len(body) if claimed is None else claimed}",
        *headers,
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + body


def problem(status: int, code: str, *headers: str) -> bytes:
    return answer(status, json.dumps({"code": code, "detail": "because"}).encode(), *headers)


def says(*parts: bytes) -> Step:
    def step(connection: socket.socket, _: HeardRequest) -> None:
        connection.sendall(b"".join(parts))

    return step


def takes(then: bytes = b"", *, most: int | None = None) -> Step:
    """Wants the body: all of it, or `most` bytes; then answers, or hangs up."""

    def step(connection: socket.socket, request: HeardRequest) -> None:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        length = int(request.headers["content-length"])
        while len(request.body) < min(length, length if most is None else most):
            request.body += connection.recv(1 << 20)
        connection.sendall(then)

    return step


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "key"
    path.write_text("mgk_depositor")
    return path


def test_a_deposit_sends_its_digest_ahead_and_its_lease(key: Path) -> None:
    with depot(takes(answer(201, json.dumps(ANSWER).encode()))) as scripted:
        client = DepotGateClient(scripted.client(key).access, lease_id="L-1")
        progress: list[tuple[int, int]] = []
        artifact = client.put(
            CONTENT, role="input", media_type="application/pdf", name="a b.pdf", task_id="t",
            on_progress=lambda done, total: progress.append((done, total)),
        )  # fmt: skip
    [request] = scripted.requests
    assert request.body == CONTENT
    assert request.line.startswith("POST /artifacts?role=input&task_id=t&artifact_id=")
    assert "&name=a%20b.pdf" in request.line
    assert request.headers["content-digest"].startswith("sha-256=:")
    assert request.headers["expect"] == "100-continue"
    assert (request.headers["legivellum-lease"], request.headers["x-api-key"]) == ("L-1", "mgk_depositor")
    assert progress[-1] == (len(CONTENT), len(CONTENT))
    output = Output.of(artifact)
    assert output.claim() == {
        "status": "success",
        "outcome_kind": "artifact_pointer",
        "artifact_pointer": POINTER,
        "artifact_location": "https://depot.example.com",
        "artifact_mime": "application/pdf",
        "artifact_checksum": f"sha256:{DIGEST}",
        "artifact_size_bytes": len(CONTENT),
    }


def test_a_deposit_is_repeated_with_the_same_id(key: Path) -> None:
    """The gate hangs up in the middle, then has no time, then takes it: the file is sent from where it stood."""
    source = io.BytesIO(b"not this" + CONTENT)
    source.seek(8)
    script = (
        takes(most=1000),
        says(problem(503, "OVERLOADED", "Retry-After: 0")),
        takes(answer(201, json.dumps(ANSWER).encode())),
    )
    with depot(*script) as scripted:
        assert scripted.client(key).put(source).pointer == POINTER
    assert len({request.line for request in scripted.requests}) == 1
    assert scripted.requests[-1].body == CONTENT


def test_what_is_refused_before_the_body_is_not_sent(key: Path) -> None:
    with depot(says(problem(403, "ROLE_NOT_PERMITTED"))) as scripted, pytest.raises(GateError) as refused:
        scripted.client(key).put(CONTENT, role="plan")
    assert (refused.value.status, refused.value.code) == (403, "ROLE_NOT_PERMITTED")
    assert [request.body for request in scripted.requests] == [b""]


def test_a_refusal_in_the_middle_of_the_body_is_heard(key: Path) -> None:
    """Too large at the byte that crosses: the gate answers and reads no more."""
    large = b"x" * (32 << 20)
    refusal = takes(problem(413, "ARTIFACT_TOO_LARGE"), most=1 << 20)
    with depot(refusal) as scripted, pytest.raises(GateError) as refused:
        scripted.client(key).put(large)
    assert refused.value.code == "ARTIFACT_TOO_LARGE"
    assert len(scripted.requests[0].body) < len(large)


def test_a_download_goes_on_where_it_broke_off(key: Path, tmp_path: Path) -> None:
    """By a range that holds only for the same bytes; a proxy that knows no ranges sends all again."""
    ranged = answer(206, CONTENT[300_000:], f"Content-Range: bytes 300000-{len(CONTENT) - 1}/{len(CONTENT)}")
    for second in (ranged, answer(200, CONTENT)):
        with depot(says(answer(200, CONTENT[:300_000], claimed=len(CONTENT))), says(second)) as scripted:
            assert scripted.client(key).fetch(POINTER, tmp_path / "out") == len(CONTENT)
        assert (tmp_path / "out").read_bytes() == CONTENT
        assert scripted.requests[1].headers["range"] == "bytes=300000-"
        assert scripted.requests[1].headers["if-range"] == f'"{DIGEST}"'


@pytest.mark.parametrize("chunked", [False, True])
def test_other_bytes_than_the_pointer_names_leave_no_file(key: Path, tmp_path: Path, *, chunked: bool) -> None:
    wrong = CONTENT[:-1] + b"?"
    if chunked:
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(wrong), wrong)
        said = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    else:
        said = answer(200, wrong)
    with depot(says(said)) as scripted, pytest.raises(ArtifactCorruptError):
        scripted.client(key).fetch(POINTER, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["key"]


def test_what_is_no_longer_there_is_refused_once(key: Path) -> None:
    with depot(says(problem(410, "ARTIFACT_RETIRED"))) as scripted, pytest.raises(GateError) as refused:
        scripted.client(key).read(POINTER)
    assert refused.value.code == "ARTIFACT_RETIRED"
    assert len(scripted.requests) == 1


def test_a_gate_that_stays_away_is_named(key: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    access = find_depotgate(url=f"http://127.0.0.1:{port}", api_key_file=str(key), environ={})
    client = DepotGateClient(access, patience_seconds=0.3)
    with pytest.raises(GateUnavailableError, match="depotgate is not available: the connection was refused"):
        client.manifest(POINTER)


def test_lists_are_read_page_by_page(key: Path) -> None:
    first, second = {"items": [{"n": 1}], "next_cursor": "c&1"}, {"items": [{"n": 2}], "next_cursor": None}
    with depot(*(says(answer(200, json.dumps(page).encode())) for page in (first, second))) as scripted:
        assert [item["n"] for item in scripted.client(key).manifests(task_id="t")] == [1, 2]
    assert scripted.requests[1].line == "GET /artifacts?task_id=t&cursor=c%261 HTTP/1.1"


@pytest.mark.parametrize(
    "pointer", ["", "depot:x:y", POINTER.lower(), POINTER.upper(), f"{POINTER}\n", f"../{POINTER}"]
)
def test_what_is_no_pointer_is_asked_of_nobody(key: Path, pointer: str) -> None:
    client = DepotGateClient(find_depotgate(url="http://127.0.0.1:9", api_key_file=str(key), environ={}))
    with pytest.raises(MisconfiguredError, match="a pointer is"):
        client.manifest(pointer)
    assert digest_of(POINTER) == DIGEST


def test_ids_are_ulids_in_the_order_of_their_time() -> None:
    ids = [new_ulid() for _ in range(1000)]
    assert {len(made) for made in ids} == {26}
    assert [made[:10] for made in ids] == sorted(made[:10] for made in ids)
    assert len(set(ids)) == 1000
    assert ids[0][0] == "0"
    digest_of(f"depot:{ids[0]}:{DIGEST}")


def test_a_worker_without_a_credential_for_the_depot_knows_none(key: Path, tmp_path: Path) -> None:
    """A packet names it for everybody; a token is for one audience."""
    token = tmp_path / "token"
    token.write_text("abc")
    environ = {"METAGATE_ASYNCGATE_URL": "http://queue:8002", "METAGATE_DEPOTGATE_URL": "http://depot:8003"}
    assert WorkerSettings(token_file=str(token), environ=environ).depotgate is None
    with_key = WorkerSettings(api_key_file=str(key), environ=environ).depotgate
    assert with_key is not None
    assert with_key.credential() == ("X-API-Key", "mgk_depositor")
    with pytest.raises(MisconfiguredError, match="set METAGATE_DEPOTGATE_URL"):
        find_depotgate(api_key_file=str(key), environ={})


def test_the_command_prints_the_pointer_and_nothing_else(
    key: Path, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    (tmp_path / "report.pdf").write_bytes(CONTENT)
    with depot(takes(answer(201, json.dumps(ANSWER).encode())), says(answer(200, CONTENT))) as scripted:
        connection = ["--url", f"http://127.0.0.1:{scripted.port}", "--api-key-file", str(key)]
        put = ["put", str(tmp_path / "report.pdf"), "--lease", "L-1", "--id", ID, "--type", "application/pdf"]
        assert main([*put, *connection]) == 0
        assert capsysbinary.readouterr() == (f"{POINTER}\n".encode(), b"")
        assert main(["get", POINTER, "-", *connection]) == 0
        assert capsysbinary.readouterr() == (CONTENT, b"")
    request = scripted.requests[0]
    assert request.line == f"POST /artifacts?role=output&artifact_id={ID}&name=report.pdf HTTP/1.1"
    assert (request.headers["legivellum-lease"], request.headers["content-type"]) == ("L-1", "application/pdf")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["put", "/no/such/file"], 2, "/no/such/file: no such file or directory"),
        (["get", "depot:1", "-"], 2, "a pointer is depot:<artifact_id>:<sha256>"),
        (["list", "--token-file", "t"], 2, "choose one"),
    ],
)
def test_what_cannot_work_says_so(
    key: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert main([*words, "--url", "http://127.0.0.1:9", "--api-key-file", str(key)]) == code
    assert said in capsys.readouterr().err


def test_a_name_moves_no_cursor(key: Path, capsys: pytest.CaptureFixture[str]) -> None:
    item = {
        "pointer": POINTER, "role": "output", "size_bytes": 5 << 20, "state": "kept",
        "stored_at": "2026-11-28T10:00:00.000000Z", "name": "a\x1b[2Jb",
    }  # fmt: skip
    page = {"items": [item], "next_cursor": None}
    with depot(says(answer(200, json.dumps(page).encode()))) as scripted:
        assert main(["list", "--url", f"http://127.0.0.1:{scripted.port}", "--api-key-file", str(key)]) == 0
    out = capsys.readouterr().out
    assert out == f"{POINTER}  output         5.0 MiB  kept     2026-11-28T10:00:00Z  a?[2Jb\n"


def test_an_artifact_shows_its_pointer() -> None:
    assert repr(StoredArtifact(ANSWER)) == f"<StoredArtifact {POINTER}, {len(CONTENT)} bytes>"
