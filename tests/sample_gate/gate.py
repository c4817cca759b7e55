"""SampleGate: its settings, codes, endpoints and handlers, and the definition from which the kit makes the rest."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from pydantic import Field, SecretStr
from tests.sample_gate.notes import SCHEMA, WRITER, Note, NoteStore
from ulid import ULID

from legivellum.gate.command_line import gate_commands
from legivellum.gate.definition import GateDefinition
from legivellum.gate.interview import Interview
from legivellum.gate.metrics import GateMetrics
from legivellum.gate.process import GateProcess
from legivellum.gate.query import query_parameters, tenant_parameter
from legivellum.gate.settings import DatabaseGateSettings, prefixed
from legivellum.http import problem_codes, strict_json
from legivellum.http.endpoints import JSON_CODES, Endpoint, Reply, in_path
from legivellum.http.exchange import Exchange, Response, json_response
from legivellum.http.problem_codes import ProblemCode
from legivellum.http.problems import refuse
from legivellum.http.router import Handler
from legivellum.identity.request_authenticator import require_caller
from legivellum.receipts.receipt import Receipt, examine

EMITTER: Final = "svc:depotgate"


class Settings(DatabaseGateSettings):
    model_config = prefixed("SAMPLEGATE")

    database_url: SecretStr = Field(
        SecretStr("postgresql://samplegate_writer@127.0.0.1:5432/metagate"),
        description="PostgreSQL as the role `samplegate_writer`.",
    )
    audience: str = Field("samplegate", description="The audience a token must be made for.", min_length=1)
    port: int = Field(8099, description="Port to listen on; 0 picks one.", ge=0, le=65_535)


class Code(problem_codes.Code):
    NOTE_EXISTS: Final = ProblemCode(409, "Note exists", "Another note has this name.", "Choose another name.")
    NOTE_REFUSED: Final = ProblemCode(422, "Note refused", "The ledger refused the note's receipt.", "Read `detail`.")


ENDPOINTS: Final = (
    Endpoint(
        "POST", "/notes", "Store a note.", "any principal", (Reply(201, "Stored.", "Note"),),
        (*JSON_CODES, Code.NOTE_EXISTS, Code.NOTE_REFUSED), body="NewNote",
    ),
    Endpoint(
        "GET", "/notes/{note_id}", "One note.", "any principal", (Reply(200, "The note.", "Note"),),
        (Code.INVALID_REQUEST, Code.NOT_FOUND), (in_path("note_id", {"type": "string"}),),
    ),
)  # fmt: skip
_TEXT: Final = {"type": "string", "minLength": 1}
SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "Note": {"type": "object", "properties": dict.fromkeys(("note_id", "author", "text", "receipt_id"), _TEXT)},
    "NewNote": {"type": "object", "required": ["note_id", "text"], "properties": {"note_id": _TEXT, "text": _TEXT}},
}


class NoteHandlers:
    def __init__(self, process: GateProcess[Settings, NoteStore]) -> None:
        self._process = process

    async def store(self, exchange: Exchange) -> Response:
        caller = await self._process.authenticator.authenticate(exchange)
        exchange.require_json()
        note_id, text = _new_note(strict_json.parse(await exchange.body()))
        caller = require_caller(caller)
        note = Note(note_id, caller.principal_key, text, str(ULID()))
        receipt = _receipt(str(caller.tenant), note)
        outcome = await self._process.database.store(caller.tenant, note, receipt)
        if outcome == "NOTE_EXISTS":
            raise refuse(Code.NOTE_EXISTS, "note_id: another note has this name.")
        if outcome != "STORED":
            raise refuse(Code.NOTE_REFUSED, f"The ledger refused the receipt: {outcome}.")
        return json_response(201, _rendered(note))

    async def read(self, exchange: Exchange) -> Response:
        caller = await self._process.authenticator.caller(exchange)
        tenant = tenant_parameter(query_parameters(exchange, "tenant"), caller)
        note = await self._process.database.note(tenant, exchange.path_parameters["note_id"])
        if note is None:
            raise refuse(Code.NOT_FOUND, "There is no such note.")
        return json_response(200, _rendered(note))


def _new_note(body: Any) -> tuple[str, str]:
    if not isinstance(body, dict) or set(body) != {"note_id", "text"} or not all(map(_is_text, body.values())):
        raise refuse(Code.INVALID_REQUEST, "The body must be an object with two texts, note_id and text.")
    return body["note_id"], body["text"]


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable()


def _receipt(tenant: str, note: Note) -> Receipt:
    """What the ledger keeps of a note. Raises NOTE_REFUSED for what is no receipt."""
    receipt = examine(
        {
            "receipt_id": note.receipt_id, "kind": "artifact", "phase": "stored", "task_id": note.note_id,
            "principal_ai": note.author, "artifact_pointer": note.note_id, "artifact_location": "samplegate",
            "artifact_mime": "text/plain", "artifact_size_bytes": len(note.text.encode()),
            "artifact_checksum": f"sha256:{hashlib.sha256(note.text.encode()).hexdigest()}",
        },
        tenant=tenant, emitter=EMITTER,
    )  # fmt: skip
    if isinstance(receipt, Receipt):
        return receipt
    raise refuse(Code.NOTE_REFUSED, "; ".join(map(str, receipt)))


def _rendered(note: Note) -> bytes:
    return json.dumps({name: getattr(note, name) for name in Note.__slots__}, ensure_ascii=False).encode()


async def interview(process: GateProcess[Settings, NoteStore], tenant: UUID) -> Interview:
    as_of, notes = await process.database.count(tenant)
    return Interview(as_of, {"notes": notes})


async def connect(settings: Settings) -> NoteStore:
    """Raises Unavailable."""
    timeout = settings.deadline_seconds * 0.8
    return await NoteStore.connect(settings.dsn, size=settings.pool_size, query_timeout=timeout)


def handlers(process: GateProcess[Settings, NoteStore]) -> Mapping[str, Handler]:
    notes = NoteHandlers(process)
    return {"POST /notes": notes.store, "GET /notes/{note_id}": notes.read}


GATE = GateDefinition(
    module=__name__,
    name="samplegate",
    title="SampleGate",
    doctrine="SampleGate keeps notes.",
    description="A gate of the tests.",
    settings=Settings,
    schema=SCHEMA,
    role=WRITER,
    connect=connect,
    endpoints=ENDPOINTS,
    handlers=handlers,
    interview=interview,
    metrics=GateMetrics("samplegate"),
    codes=Code,
    schemas=SCHEMAS,
    requires=("memorygate.schema:LEDGER",),
)
app = gate_commands("samplegate", "SampleGate: a gate of the tests.", (WRITER,), lambda: GATE)
