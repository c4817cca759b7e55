"""A receipt: evidence of custody, as its emitter sends it (docs/memorygate/receipts.md).

`Draft` is the field table: names, types, sizes, defaults. `examine` adds what no single field can know (the rules of
its phase) and names every bad field at once, so that nobody repairs a receipt one refusal at a time. What it returns
is complete: every default is filled in, and this filled-in form is what is hashed, compared and stored.

Times stay the text that was sent. The ledger sorts by its own clock and only hands the emitter's on.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from legivellum.base.canonical_json import Uncanonical, canonical
from legivellum.receipts import schema_v1
from legivellum.receipts.phase_rules import PLACEHOLDER_WORDS, ReceiptFinding, broken_rules

KIB = 1024
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_FRACTION = re.compile(r"\.\d+")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_LONGEST_PLACEHOLDER = max(map(len, PLACEHOLDER_WORDS))


def _named(text: str) -> str:
    if len(text) > _LONGEST_PLACEHOLDER and text.isprintable() and text == text.strip():
        return text  # what nearly every name is
    if not text.strip():
        raise ValueError("must not be blank")
    if text != text.strip():
        raise ValueError("must not begin or end with white space")
    if text.casefold() in PLACEHOLDER_WORDS:
        raise ValueError("must be a real value, not a placeholder like NA or TBD")
    if not text.isprintable():
        raise ValueError("must not contain control characters")
    return text


def _one_line(text: str) -> str:
    # What lists and terminals show: an escape sequence or a second line in it would be read as somebody else's.
    if _CONTROL.search(text):
        raise ValueError("must be one line without control characters")
    return text


def moment(text: str) -> str:
    """The text, if it is an RFC 3339 time that exists. Raises ValueError."""
    if not _RFC3339.fullmatch(text):
        raise ValueError("must be an RFC 3339 time with its offset, like 2027-01-31T12:00:00Z")
    try:
        # Python knows six digits of a second, RFC 3339 any number.
        datetime.fromisoformat(_FRACTION.sub("", text.upper()))
    except ValueError:
        raise ValueError("must be a time that exists") from None
    return text


def _pointer(text: str) -> str:
    # INV-048: a data: URI is the artifact itself.
    if text.lstrip().casefold().startswith("data:"):
        raise ValueError("must point to an artifact, not contain it")
    return text


def _at_most(size: int) -> AfterValidator:
    def check(text: str) -> str:
        try:
            if len(text.encode()) > size:
                raise ValueError(f"must not be larger than {size} bytes")
        except UnicodeEncodeError:
            raise ValueError("must hold only numbers and text that JSON can carry unchanged (RFC 8785)") from None
        return text

    return AfterValidator(check)


def _text(size: int) -> Any:
    return Annotated[str, StringConstraints(max_length=size), _at_most(size)]


Name = Annotated[str, StringConstraints(min_length=1, max_length=253), AfterValidator(_named)]
Key = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_named)]
Ulid = Annotated[str, StringConstraints(pattern=r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"), AfterValidator(_named)]
Moment = Annotated[str, StringConstraints(max_length=40), AfterValidator(moment)]
Pointer = Annotated[
    str,
    StringConstraints(max_length=2 * KIB),
    _at_most(2 * KIB),
    AfterValidator(_named),
    AfterValidator(_pointer),
]
Tenant = Annotated[
    str,
    StringConstraints(pattern=r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"),
    BeforeValidator(lambda value: _named(value) if isinstance(value, str) else value),
]


class Signature(BaseModel):
    """A detached Ed25519 signature over the canonical form of every other field (D-28)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    key_id: Key
    value: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{86}$")]
    """The 64 bytes in base64url without padding."""


class Draft(BaseModel):
    """The field table. Sizes are bytes of UTF-8; those of the fields that are any JSON are in `_FREE_BYTES`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    receipt_id: Ulid = Field(description="A ULID, made by the emitter; the same id and content again is a replay.")
    task_id: Key
    phase: Literal[
        "accepted", "complete", "escalate", "rejected",
        "published", "queued", "lease_issued", "reassigned", "expired", "revoked", "stored", "retired",
    ]  # fmt: skip
    kind: Literal["obligation", "startup", "lifecycle", "admission", "artifact"] = "obligation"
    emitter: Name = Field(description="Who sends it: the credential's principal, from which it is filled when omitted.")
    principal_ai: Name = Field(description="The ultimate owner of the obligation.")
    tenant_id: Tenant = Field(description="The uid of the namespace; filled from the credential when omitted.")
    obligation_id: Key | None = Field(None, description="Default: task_id.")
    parent_task_id: Key | None = None
    caused_by_receipt_id: Ulid | None = None
    dedupe_key: Key | None = Field(None, description="Unique per tenant and emitter.")
    attempt: Annotated[int, Field(ge=0, le=1_000_000)] = 0
    for_principal: Name | None = Field(None, description="Default: principal_ai.")
    recipient_ai: Name | None = Field(None, description="Who has custody. Default: emitter; escalate: escalation_to.")
    trust_domain: Key | None = None
    status: Literal["NA", "success", "failure", "canceled"] = "NA"
    task_type: Key | None = None
    task_summary: Annotated[_text(2 * KIB), AfterValidator(_one_line)] | None = None  # type: ignore[valid-type]
    task_body: Any = None
    inputs: Any = None
    outcome_kind: Literal["NA", "none", "response_text", "artifact_pointer", "mixed"] = "NA"
    outcome_text: _text(64 * KIB) | None = None  # type: ignore[valid-type]
    artifact_pointer: Pointer | None = None
    artifact_location: Pointer | None = None
    artifact_mime: Key | None = None
    artifact_checksum: Key | None = None
    artifact_size_bytes: Annotated[int, Field(ge=0, lt=2**53)] | None = None
    escalation_class: Literal["NA", "owner", "capability", "trust", "policy", "scope", "other"] = "NA"
    escalation_reason: Annotated[_text(2 * KIB), AfterValidator(_named)] | None = None  # type: ignore[valid-type]
    escalation_to: Name | None = None
    retry_requested: bool = False
    created_at: Moment | None = None
    started_at: Moment | None = None
    completed_at: Moment | None = None
    body: Any = None
    metadata: dict[str, Any] = Field(default_factory=dict)
    signature: Signature | None = None


_DEFAULTS = {name: field.default for name, field in Draft.model_fields.items() if not field.is_required()}

OPTIONAL_IN_A_REQUEST = frozenset({"emitter", "tenant_id"})
"""Mandatory in a receipt, filled from the credential when a request omits them (D-36)."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """A receipt that is complete and obeys every rule. `fields` holds the whole table but the signature."""

    fields: Mapping[str, Any]
    form: bytes
    """RFC 8785 of the fields that have a value (an absent member and null say the same): what is hashed and stored."""
    signature: Signature | None


def examine(sent: Mapping[str, Any], *, tenant: str, emitter: str) -> Receipt | tuple[ReceiptFinding, ...]:
    """The complete receipt, or every finding about it. `tenant` and `emitter` fill what was omitted (D-36).

    That a repeated tenant or emitter agrees with the credential is not judged here: that is a 403, not a 422.
    """
    contradictions: tuple[ReceiptFinding, ...] = ()
    if schema_v1.is_v1(sent):
        sent, contradictions = schema_v1.converted(sent)
    filled = {"tenant_id": tenant, "emitter": emitter, **sent}
    try:
        draft = Draft.model_validate(filled)
    except ValidationError as error:
        findings = contradictions + tuple(
            _finding(item) for item in error.errors(include_url=False, include_input=False)
        )
        findings += _bad_free_values(filled, {finding.path.partition(".")[0] for finding in findings})
        bad = {finding.path.partition(".")[0] for finding in findings}
        values = with_defaults({name: value for name, value in filled.items() if name not in bad})
        return findings + tuple(rule for rule in broken_rules(completed(values)) if rule.path not in bad)
    values = dict(draft.__dict__)  # the fields in their order; nothing else lives there
    signature = values.pop("signature")
    values = completed(values)
    try:
        form = form_of(values)
    except Uncanonical:
        form = b""
    # A form smaller than the smallest bound holds no value beyond its own: hardly any receipt is looked at twice.
    findings = () if 0 < len(form) <= _LEAST_BOUND else _bad_free_values(values)
    bad = {finding.path for finding in findings}
    if findings := contradictions + findings + tuple(rule for rule in broken_rules(values) if rule.path not in bad):
        return findings
    return Receipt(values, form, signature)


def _bad_free_values(values: Mapping[str, Any], known: Container[str] = ()) -> tuple[ReceiptFinding, ...]:
    """What is too large, or cannot be written as JSON that reads back the same. `known`: fields that are bad anyway."""
    findings = []
    for name, size in _FREE_BYTES.items():
        value = values.get(name)
        if value is None or name in known:
            continue
        try:
            form = canonical(value, round_trip=True)
            if (len(value.encode()) if isinstance(value, str) else len(form)) > size:
                findings.append(ReceiptFinding(name, f"must not be larger than {size} bytes"))
        except Uncanonical:
            findings.append(
                ReceiptFinding(name, "must hold only numbers and text that JSON can carry unchanged (RFC 8785)")
            )
    return tuple(findings)


def form_of(fields: Mapping[str, Any], *, without: Container[str] = ()) -> bytes:
    """The canonical bytes of a complete receipt: one form, whichever way its absent fields were sent."""
    members = {name: value for name, value in fields.items() if value is not None and name not in without}
    return canonical(members, inspect=[members[name] for name in _FREE_BYTES if name in members], round_trip=True)


def completed(values: dict[str, Any]) -> dict[str, Any]:
    """The defaults that depend on other fields (docs/memorygate/receipts.md), filled in where they are missing."""
    if values.get("obligation_id") is None:
        values["obligation_id"] = values.get("task_id")
    if values.get("for_principal") is None:
        values["for_principal"] = values.get("principal_ai")
    if values.get("recipient_ai") is None:
        escalated = values.get("phase") == "escalate"
        values["recipient_ai"] = values.get("escalation_to" if escalated else "emitter")
    return values


def with_defaults(values: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are given, and the fixed defaults of all others."""
    return {**_DEFAULTS, "metadata": {}, **values}


def _finding(error: Any) -> ReceiptFinding:
    path = ".".join(str(part) for part in error["loc"] if not str(part).startswith(("function-", "constrained-")))
    if error["type"] == "extra_forbidden":
        message = "is kept by the ledger and cannot be sent" if path in _LEDGERS_OWN else "is not a field of a receipt"
        return ReceiptFinding(path, message)
    if error["type"] == "missing":
        return ReceiptFinding(path, "is required")
    return ReceiptFinding(path, error["msg"].removeprefix("Value error, "))


_FREE_BYTES = {"task_body": 100 * KIB, "inputs": 64 * KIB, "body": 64 * KIB, "metadata": 16 * KIB}
"""Fields whose value is any JSON, and how many bytes of canonical form each may have. All others are text, booleans and
small integers: any encoder writes those alike.
"""
_LEAST_BOUND = min(_FREE_BYTES.values())

_LEDGERS_OWN = frozenset({"stored_at", "archived_at", "read_at", "sha256", "root_task_id", "position"})
