"""The body of a request for admission, read strictly: bytes in, `Envelope` out, or one refusal.

A refusal here is no decision: nothing is counted against anybody and no receipt is written (IG-03). So only what has no
meaning is refused; what is well formed and incomplete is denied by a rule, with a receipt.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any, Final

from interrogate.envelope import NOT_SENT, TOOL_CALL, Causality, Envelope, NotSent
from interrogate.problem_codes import Code
from legivellum.base.canonical_json import canonical
from legivellum.http import strict_json
from legivellum.http.problems import RequestRefused, refuse
from legivellum.receipts.phase_rules import PLACEHOLDER_WORDS

LONGEST_NAME: Final = 200
"""As of a task in a receipt."""
LONGEST_DOMAIN_NAME: Final = 253
LARGEST_INTEGER: Final = 2**53 - 1
"""The largest integer that every JSON reader understands alike."""
ULID_CHARACTERS: Final = frozenset("0123456789ABCDEFGHJKMNPQRSTVWXYZ")

_MEMBERS: Final = frozenset(
    [
        "tenant_id",
        "surface_id",
        "policy_profile_id",
        "payload_kind",
        "payload",
        "causality",
        "target",
        "artifact_bytes",
    ]
)
_DOMAIN: Final = ("tenant_id", "surface_id", "policy_profile_id")


def parse_envelope(raw: bytes) -> Envelope:
    """The envelope of `POST /v1/evaluate`. Raises RequestRefused: NO_DOMAIN, INVALID_REQUEST, a code of strict JSON."""
    members = strict_json.parse_object(raw)
    payload_bytes = strict_json.member_source(raw, "payload") if "payload" in members else None
    envelope = read_envelope(members, payload_bytes or b"")
    if envelope.payload_kind == TOOL_CALL:
        raise _invalid("payload_kind tool_call is made through the MCP endpoint only")
    return envelope


def read_envelope(members: Mapping[str, Any], payload_bytes: bytes, *, tool: str | None = None) -> Envelope:
    """The envelope of members that strict JSON has. Raises RequestRefused: NO_DOMAIN or INVALID_REQUEST."""
    tenant_id, surface_id, policy_profile_id = (_domain_name(members, name) for name in _DOMAIN)
    if not members.keys() <= _MEMBERS:
        raise _invalid("The envelope has a member that is unknown")
    payload_sha256 = hashlib.sha256(payload_bytes).hexdigest()
    target = _member(members, "target", _line)
    artifact_bytes = _member(members, "artifact_bytes", _size)
    return Envelope(
        tenant_id=tenant_id,
        surface_id=surface_id,
        policy_profile_id=policy_profile_id,
        payload_kind=_member(members, "payload_kind", _name),
        payload=members.get("payload", NOT_SENT),
        payload_bytes=payload_bytes,
        payload_sha256=payload_sha256,
        causality=_causality(members["causality"]) if "causality" in members else Causality(),
        target=None if target is NOT_SENT else target,
        artifact_bytes=None if artifact_bytes is NOT_SENT else artifact_bytes,
        tool=tool,
        digest=_digest(members, payload_sha256, tool),
    )


def _digest(members: Mapping[str, Any], payload_sha256: str, tool: str | None) -> bytes:
    replaced = {"payload": payload_sha256} if "payload" in members else {}
    if tool is not None:
        # The same arguments to a tool of the same name behind another Problemata are another request.
        replaced["tool"] = tool
    return hashlib.sha256(canonical({**members, **replaced})).digest()


def _causality(sent: Any) -> Causality:
    if not isinstance(sent, dict):
        raise _invalid("causality must be an object")
    if not sent.keys() <= _CLAIMS.keys():
        raise _invalid("causality has a member that is unknown")
    claims = {name: _member(sent, name, check, "causality.") for name, check in _CLAIMS.items() if name in sent}
    return Causality(**claims, as_sent=sent)


def _member(
    members: Mapping[str, Any], name: str, check: Callable[[Any], str | None], prefix: str = ""
) -> Any | NotSent:
    if name not in members:
        return NOT_SENT
    value = members[name]
    problem = check(value)
    if problem is not None:
        raise _invalid(f"{prefix}{name} {problem}")
    return value


def _domain_name(members: Mapping[str, Any], name: str) -> str:
    value = members.get(name)
    if not isinstance(value, str) or not value.strip():
        raise refuse(Code.NO_DOMAIN, f"{name} is required, as text; nothing else names the domain.")
    if len(value) > LONGEST_DOMAIN_NAME or not value.isprintable():
        raise refuse(
            Code.NO_DOMAIN, f"{name} must be one line of at most {LONGEST_DOMAIN_NAME} characters to name a domain."
        )
    return value


# --- what a value must be: the end of a sentence that begins with its name, or None


def _line(value: Any) -> str | None:
    if not isinstance(value, str):
        return "must be text"
    if not value.strip() or value != value.strip():
        return "must not be blank, nor begin or end with white space"
    if len(value.encode()) > LONGEST_NAME or not value.isprintable():
        return f"must be one line of at most {LONGEST_NAME} bytes"
    return None


def _name(value: Any) -> str | None:
    """As the ledger holds a task's name (`legivellum.receipts.receipt.Key`), or no receipt could be written."""
    problem = _line(value)
    if problem is None and value.casefold() in PLACEHOLDER_WORDS:
        problem = "must be a real value, not a placeholder like NA or TBD"
    return problem


def _name_or_null(value: Any) -> str | None:
    return None if value is None else _name(value)


def _receipt_id_or_null(value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and len(value) == 26 and value[0] <= "7" and ULID_CHARACTERS.issuperset(value):
        return None
    return "must be the id of a receipt, a ULID in upper case, or null"


def _integer(value: Any) -> str | None:
    # In Python a boolean is an integer, in JSON it is not.
    if not isinstance(value, int) or isinstance(value, bool):
        return "must be an integer"
    return None if abs(value) <= LARGEST_INTEGER else "must be an integer below 2^53"


def _integer_or_null(value: Any) -> str | None:
    return None if value is None else _integer(value)


def _size(value: Any) -> str | None:
    return _integer(value) or ("must not be negative" if value < 0 else None)


_CLAIMS: Final[Mapping[str, Callable[[Any], str | None]]] = {
    "root_task_id": _name,
    "parent_task_id": _name_or_null,
    "caused_by_receipt_id": _receipt_id_or_null,
    "spawn_depth": _integer_or_null,
    "capability_id": _line,
    "recursion_budget_remaining": _integer,
    "task_id": _name,
}


def _invalid(detail: str) -> RequestRefused:
    return refuse(Code.INVALID_REQUEST, f"{detail}.")
