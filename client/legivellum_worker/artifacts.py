"""Artifacts of DepotGate: deposit a file, fetch one, list them. What is large never lies in memory.

A deposit may be repeated: the artifact's id is chosen here, before the first attempt, so the gate stores it once. What
is fetched is checked against the digest in its pointer, whatever the store or the network did to it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import threading
import time

from legivellum_worker.artifact_transfer import PIECE, download, upload
from legivellum_worker.gate_client import LEASE_HEADER, GateUnavailableError, call, parse_answer, refusal
from legivellum_worker.ulids import new_ulid
from metagate_client.errors import ClientError, MisconfiguredError
from metagate_client.http_request import UnreachableError
from metagate_client.retries import pause_seconds

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import IO, Any, TypeVar

    from legivellum_worker.settings import GateAccess

    Progress = Callable[[int, int], object]
    """Bytes so far, and of how many."""
    Answer = TypeVar("Answer")

ROLES = ("plan", "input", "output", "supporting")
OCTETS = "application/octet-stream"
PATIENCE_SECONDS = 60.0
"""How long a transfer is begun again and again while nothing of it arrives: longer than the restart of a gate."""
_POINTER = re.compile(r"depot:[0-9A-HJKMNP-TV-Z]{26}:([0-9a-f]{64})\Z")
_PARTIAL = 206


class ArtifactCorruptError(ClientError):
    """The bytes that came are not those that the pointer names. Nothing of them is kept."""


class ArtifactTooLargeError(ClientError):
    """An artifact has more bytes than the caller takes; nothing beyond them was read."""


class StoredArtifact:
    """What DepotGate says of an artifact that it stored."""

    __slots__ = ("answer", "location", "media_type", "pointer", "receipt_id", "sha256", "size_bytes")

    def __init__(self, answer: Mapping[str, Any]) -> None:
        self.answer = answer
        """All of it."""
        self.pointer = str(answer["pointer"])
        self.location = str(answer["location"])
        self.sha256 = str(answer["sha256"])
        self.size_bytes = int(answer["size_bytes"])
        self.media_type = str(answer["media_type"])
        self.receipt_id = str(answer["receipt_id"])

    def __repr__(self) -> str:
        return f"<StoredArtifact {self.pointer}, {self.size_bytes} bytes>"


class DepotGateClient:
    """DepotGate's endpoints. Thread-safe: a connection per request."""

    def __init__(
        self,
        access: GateAccess,
        *,
        lease_id: str | None = None,
        patience_seconds: float = PATIENCE_SECONDS,
        cancelled: threading.Event | None = None,
    ) -> None:
        """`lease_id`: deposits are made under this lease. Nothing is tried again once `cancelled` is set."""
        self.access = access
        self.lease_id = lease_id
        self._patience_seconds = patience_seconds
        self._cancelled = cancelled or threading.Event()

    def put(
        self,
        source: bytes | IO[bytes],
        *,
        role: str = "output",
        media_type: str = OCTETS,
        name: str | None = None,
        task_id: str | None = None,
        caused_by_receipt_id: str | None = None,
        artifact_id: str | None = None,
        on_progress: Progress | None = None,
    ) -> StoredArtifact:
        """Deposit what `source` holds from where it stands to its end; it must be seekable.

        It is read twice: the digest is sent first, so that bytes which changed on the way are refused and not stored.
        Raises GateError for a refusal, GateUnavailableError when it was tried long enough.
        """
        file = io.BytesIO(source) if isinstance(source, bytes | bytearray) else source
        start = file.tell()
        digest, size = _digest(file)
        query = {
            "role": role,
            "task_id": task_id,
            "caused_by_receipt_id": caused_by_receipt_id,
            "artifact_id": artifact_id or new_ulid(),
            "name": name,
        }
        headers = {"Content-Type": media_type, "Content-Digest": f"sha-256=:{_base64(digest)}:"}

        def report(sent: int) -> None:
            if on_progress is not None:
                on_progress(sent, size)

        def attempt() -> StoredArtifact:
            file.seek(start)
            response = upload(
                self.access,
                f"/artifacts?{_query(query)}",
                {**self._headers(), **headers},
                source=file,
                size=size,
                on_progress=report,
            )
            return StoredArtifact(parse_answer(self.access, response))

        return self._repeated(attempt)

    def get(
        self,
        pointer: str,
        target: IO[bytes],
        *,
        max_bytes: int | None = None,
        on_progress: Progress | None = None,
    ) -> int:
        """Write the artifact's bytes to `target`, and return how many there are. What broke off goes on where it was.

        Raises ArtifactCorruptError behind the last byte, where they are not what the pointer names;
        ArtifactTooLargeError, before the first where DepotGate names the size; GateError and GateUnavailableError.
        """
        transfer = _Download(target, digest_of(pointer), max_bytes, on_progress)
        path = f"/artifacts/{pointer}"
        self._repeated(lambda: transfer.go_on(self.access, path, self._headers()), lambda: transfer.received)
        return transfer.received

    def fetch(self, pointer: str, path: str | os.PathLike[str], *, on_progress: Progress | None = None) -> int:
        """Like `get`, into a file that is there whole or not at all."""
        part = f"{os.fspath(path)}.{os.urandom(4).hex()}.part"
        try:
            with open(part, "xb") as file:
                size = self.get(pointer, file, on_progress=on_progress)
            os.replace(part, path)
        except BaseException:
            _remove(part)
            raise
        return size

    def read(self, pointer: str, *, max_bytes: int | None = None) -> bytes:
        """A small artifact, checked."""
        target = io.BytesIO()
        self.get(pointer, target, max_bytes=max_bytes)
        return target.getvalue()

    def manifest(self, pointer: str) -> dict[str, Any]:
        """What is known of an artifact; it outlives the bytes."""
        digest_of(pointer)
        return self._repeated(lambda: call(self.access, "GET", f"/artifacts/{pointer}/manifest"))

    def manifests(self, *, task_id: str | None = None, role: str | None = None) -> Iterator[dict[str, Any]]:
        """The manifests of a task's artifacts, or of all; page by page."""
        cursor: str | None = None
        while True:
            query = _query({"task_id": task_id, "role": role, "cursor": cursor})
            page = self._repeated(lambda query=query: call(self.access, "GET", f"/artifacts?{query}".rstrip("?")))  # type: ignore[misc]
            yield from page["items"]
            cursor = page.get("next_cursor")
            if not cursor:
                return

    def _headers(self) -> dict[str, str]:
        name, value = self.access.credential()
        lease = {LEASE_HEADER: self.lease_id} if self.lease_id else {}
        accepted = "application/json, application/problem+json, */*"
        return {"User-Agent": "legivellum-worker", "Accept": accepted, name: value, **lease}

    def _repeated(self, attempt: Callable[[], Answer], received: Callable[[], int] = int) -> Answer:
        """`attempt`, again after a pause while the gate cannot be reached; what brought bytes counts as no failure."""
        failures, since = 0, time.monotonic()
        while True:
            before = received()
            try:
                return attempt()
            except (UnreachableError, GateUnavailableError) as error:
                if received() > before:
                    failures, since = 0, time.monotonic()
                pause = pause_seconds(failures, getattr(error, "retry_after", None))
                is_hopeless = time.monotonic() + pause - since > self._patience_seconds
                if is_hopeless or self._cancelled.wait(pause):
                    raise _unavailable(self.access, error) from error
                failures += 1


class _Download:
    """The bytes of one artifact, over as many requests as it takes."""

    def __init__(self, target: IO[bytes], digest: str, max_bytes: int | None, on_progress: Progress | None) -> None:
        self._target, self._digest, self._on_progress = target, digest, on_progress
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self.received = 0
        self._size = 0

    def go_on(self, access: GateAccess, path: str, headers: Mapping[str, str]) -> None:
        if self.received:
            # The artifact cannot change, so its digest is the condition under which the rest belongs to the beginning.
            headers = {**headers, "Range": f"bytes={self.received}-", "If-Range": f'"{self._digest}"'}
        response = download(access, path, headers, self._on_head)
        if response.status >= 300:
            raise refusal(access, response)
        if self._hash.hexdigest() != self._digest:
            raise ArtifactCorruptError(f"{access.gate} sent other bytes than the pointer names; they are not kept")

    def _on_head(self, status: int, headers: Mapping[str, str]) -> Callable[[bytes], object] | None:
        if status == _PARTIAL and headers.get("content-range", "").startswith(f"bytes {self.received}-"):
            return self._take
        if status != 200:
            return None
        if self.received:  # a proxy that ignores ranges: what is there already comes once more
            skipped = self.received

            def skip(piece: bytes) -> None:
                nonlocal skipped
                rest = piece[skipped:]
                skipped -= min(skipped, len(piece))
                if rest:
                    self._take(rest)

            return skip
        length = headers.get("content-length", "")
        self._size = int(length) if length.isdigit() else 0
        self._require_small(self._size)
        return self._take

    def _require_small(self, size: int) -> None:
        if self._max_bytes is not None and size > self._max_bytes:
            raise ArtifactTooLargeError(f"the artifact has more than {self._max_bytes} bytes")

    def _take(self, piece: bytes) -> None:
        self._require_small(self.received + len(piece))
        self._target.write(piece)
        self._hash.update(piece)
        self.received += len(piece)
        if self._on_progress is not None:
            self._on_progress(self.received, max(self._size, self.received))


def digest_of(pointer: str) -> str:
    """The digest in a pointer. Raises MisconfiguredError for what is none."""
    match = _POINTER.match(pointer)
    if match is None:
        raise MisconfiguredError("a pointer is depot:<artifact_id>:<sha256>")
    return match[1]


def is_pointer(text: str) -> bool:
    """Whether it names an artifact of DepotGate."""
    return _POINTER.match(text) is not None


def _digest(file: IO[bytes]) -> tuple[bytes, int]:
    """SHA-256 and length of what is left of a file."""
    digest, size = hashlib.sha256(), 0
    while piece := file.read(PIECE):
        digest.update(piece)
        size += len(piece)
    return digest.digest(), size


def _base64(digest: bytes) -> str:
    from base64 import b64encode

    return b64encode(digest).decode()


def _query(values: Mapping[str, str | None]) -> str:
    from urllib.parse import quote, urlencode

    return urlencode({name: value for name, value in values.items() if value is not None}, quote_via=quote)


def _unavailable(access: GateAccess, error: Exception) -> GateUnavailableError:
    return error if isinstance(error, GateUnavailableError) else GateUnavailableError(access.gate, str(error))


def _remove(path: str) -> None:
    import contextlib

    with contextlib.suppress(OSError):
        os.unlink(path)
