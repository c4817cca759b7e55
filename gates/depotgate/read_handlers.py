"""GET /artifacts and what is below it: anybody of the tenant reads (DP-05). Nothing here changes anything."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Final
from urllib.parse import quote

import structlog

from depotgate import rendering
from depotgate.artifact import ROLES, Artifact, Pointer
from depotgate.blobs import BlobMissing, BlobReader, StoreError
from depotgate.depot_gate import DepotGate
from depotgate.metrics import BYTES, CORRUPT
from depotgate.problem_codes import Code
from depotgate.ranges import ByteRange, Unsatisfiable, chosen_range, matches
from depotgate.settings import TRANSFER_SECONDS
from depotgate.transfers import TransferSlot
from legivellum.gate.cursors import decode_time, encode_time
from legivellum.gate.event_stream import IsAllowed, run_while_allowed
from legivellum.gate.query import limit_parameter, page_body, query_parameters, tenant_parameter
from legivellum.http.exchange import (
    AnyResponse,
    ClientGone,
    Exchange,
    RawHeaders,
    Response,
    ResponseStream,
    StreamingResponse,
    json_response,
)
from legivellum.http.problems import refuse
from legivellum.identity.caller import Caller

_HEADERS: Final[RawHeaders] = [
    (b"accept-ranges", b"bytes"),
    (b"cache-control", b"private, no-cache"),
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
]
"""A browser must not run what somebody deposited (DP-10)."""

_log = structlog.get_logger("depotgate.reading")


class ArtifactReadHandlers:
    def __init__(self, gate: DepotGate) -> None:
        self._gate = gate

    async def artifacts(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        parameters = query_parameters(exchange, "task_id", "role", "tenant", "limit", "cursor")
        tenant, limit = tenant_parameter(parameters, caller), limit_parameter(parameters)
        task_id, role = parameters.get("task_id"), parameters.get("role")
        if role is not None and role not in ROLES:
            raise refuse(Code.INVALID_REQUEST, f"role: must be one of {', '.join(ROLES)}.")
        listing = f"artifacts/{tenant}/{role}/{task_id}"
        before = decode_time(listing, parameters["cursor"]) if "cursor" in parameters else None
        page = await self._gate.process.database.artifacts(
            tenant, task_id=task_id, role=role, before=before, limit=limit
        )
        cursor = None if page.next_position is None else encode_time(listing, *page.next_position)
        return json_response(200, page_body([rendering.manifest(artifact) for artifact in page.items], cursor))

    async def manifest(self, exchange: Exchange) -> Response:
        caller = await self._gate.process.authenticator.caller(exchange)
        return json_response(200, rendering.manifest(await self._artifact(exchange, caller)))

    async def content(self, exchange: Exchange) -> AnyResponse:
        caller = await self._gate.process.authenticator.caller(exchange)
        artifact = await self._artifact(exchange, caller)
        if artifact.key is None:
            raise refuse(Code.ARTIFACT_RETIRED, "The artifact's bytes were retired; its manifest stays.")
        etag = f'"{artifact.sha256}"'.encode()
        headers = [*_HEADERS, (b"etag", etag), (b"repr-digest", _digest(artifact))]
        if matches(exchange.header(b"if-none-match"), etag):
            return Response(304, headers, b"")
        try:
            wanted = chosen_range(
                exchange.header(b"range"), exchange.header(b"if-range"), size=artifact.size_bytes, etag=etag
            )
        except Unsatisfiable:
            raise refuse(
                Code.RANGE_NOT_SATISFIABLE,
                f"The artifact has {artifact.size_bytes} bytes.",
                headers=((b"content-range", b"bytes */%d" % artifact.size_bytes),),
            ) from None
        part = wanted or ByteRange(0, artifact.size_bytes)
        headers += [
            (b"content-type", artifact.media_type.encode()),
            (b"content-length", b"%d" % (part.end - part.start)),
            (b"content-disposition", _disposition(artifact)),
        ]
        if wanted is not None:
            headers.append((b"content-range", b"bytes %d-%d/%d" % (part.start, part.end - 1, artifact.size_bytes)))
        if exchange.method == "HEAD":
            return Response(200 if wanted is None else 206, headers, b"")

        async def is_allowed() -> bool:
            return await self._gate.process.authenticator.current(exchange, caller) is not None

        return await self._download(artifact, wanted, headers, is_allowed)

    async def _artifact(self, exchange: Exchange, caller: Caller) -> Artifact:
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), caller)
        pointer = Pointer.parse(exchange.path_parameters["pointer"])
        artifact = None if pointer is None else await self._gate.process.database.artifact(tenant, pointer)
        if artifact is None:
            raise refuse(Code.NOT_FOUND, "There is no such artifact here.")
        return artifact

    async def _download(
        self, artifact: Artifact, wanted: ByteRange | None, headers: RawHeaders, is_allowed: IsAllowed
    ) -> StreamingResponse:
        """The blob is opened before the head is sent: from here on retirement cannot take it (promise 5)."""
        slot = self._gate.downloads.take()
        part = wanted or ByteRange(0, artifact.size_bytes)
        assert artifact.key is not None
        try:
            reader = await self._gate.blobs.reader(artifact.key, part.start, part.end)
        except BlobMissing as error:
            CORRUPT.inc()
            _log.error("artifact_corrupt", artifact_id=artifact.artifact_id, error="missing")
            raise refuse(Code.UNAVAILABLE, "The artifact's bytes are missing; the operators were told.") from error
        except StoreError as error:
            raise refuse(Code.UNAVAILABLE, f"The bytes cannot be read: {error}.") from error
        download = _Download(artifact, slot, reader, checked=wanted is None, is_allowed=is_allowed)
        return StreamingResponse(200 if wanted is None else 206, headers, download.write)


class _Download:
    """Whole reads are hashed as they leave, and the last part is held back until the digest is known: corrupt bytes
    never look complete (DP-11). Ranges are not checked.
    """

    def __init__(
        self,
        artifact: Artifact,
        slot: TransferSlot,
        reader: BlobReader,
        *,
        checked: bool,
        is_allowed: IsAllowed,
    ) -> None:
        self._artifact = artifact
        self._slot = slot
        self._reader = reader
        self._checked = checked
        self._is_allowed = is_allowed

    async def write(self, stream: ResponseStream) -> None:
        """Until the bytes have left, the client or its credential has gone, or it took too long (D-67, DP-09)."""
        try:
            async with asyncio.timeout(TRANSFER_SECONDS):
                if not await run_while_allowed(self._write(stream), self._is_allowed):
                    raise ClientGone
        except TimeoutError as error:
            raise ClientGone from error
        except StoreError as error:
            _log.error("download_failed", artifact_id=self._artifact.artifact_id, error=str(error))
            raise ClientGone from error
        finally:
            self._slot.give_back()
            await self._reader.close()

    async def _write(self, stream: ResponseStream) -> None:
        digest = hashlib.sha256()
        held = b""
        async for part in self._reader.parts():
            if stream.client_gone:
                raise ClientGone
            # A part is hashed in a thread while the one before it leaves.
            hashing = asyncio.to_thread(digest.update, part) if self._checked else asyncio.sleep(0)
            await asyncio.gather(hashing, self._send(stream, held))
            held = part
        if self._checked and digest.hexdigest() != self._artifact.sha256:
            CORRUPT.inc()
            _log.error("artifact_corrupt", artifact_id=self._artifact.artifact_id, error="digest")
            raise ClientGone
        await self._send(stream, held)

    async def _send(self, stream: ResponseStream, part: bytes) -> None:
        if not part:
            return
        await stream.write(part)
        BYTES.labels("out").inc(len(part))


def _digest(artifact: Artifact) -> bytes:
    return b"sha-256=:" + base64.b64encode(bytes.fromhex(artifact.sha256)) + b":"


def _disposition(artifact: Artifact) -> bytes:
    if artifact.name is None:
        return b"attachment"
    return f"attachment; filename*=UTF-8''{quote(artifact.name, safe='')}".encode()
