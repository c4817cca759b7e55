"""validate: everything wrong with one spec, at once.

Admission, the command line and compiling share it. What depends on other objects (references, conflicts) is not here.
"""

from typing import Any, Final

from pydantic import ValidationError

from metagate_crds import canonical, paths, reasons
from metagate_crds.kinds import MANIFEST, PRINCIPAL, PRINCIPAL_BINDING, PROFILE
from metagate_crds.models import SPECS, Spec
from metagate_crds.models.issuer import TokenIssuerSpec
from metagate_crds.packet import MAX_BYTES
from metagate_crds.shape import Walk
from metagate_crds.verdict import Finding

# Their content reaches packets, so forbidden keys are looked for in them (D-17).
_IN_PACKETS: Final = frozenset({PROFILE.name, MANIFEST.name, PRINCIPAL_BINDING.name})


def validate(
    kind: str,
    spec: Any,
    *,
    namespace: str = "",
    system_namespace: str = "metagate-system",
    reserved_issuer: str | None = None,
) -> tuple[Finding, ...]:
    """Every finding, sorted; empty means valid. Never raises for any spec, never quotes a value.

    `reserved_issuer`: that of the shared secret while HS256 is on; no TokenIssuer may have it (D-37).
    """
    return examined(
        kind, spec, namespace=namespace, system_namespace=system_namespace, reserved_issuer=reserved_issuer
    )[1]


def examined(
    kind: str,
    spec: Any,
    *,
    namespace: str = "",
    system_namespace: str = "metagate-system",
    reserved_issuer: str | None = None,
) -> tuple[Spec | None, tuple[Finding, ...]]:
    """The model, when the spec is valid, and the findings, when it is not."""
    walk = Walk(forbid=kind in _IN_PACKETS)
    walk.over(spec)
    findings = list(walk.findings)
    model = None
    if not walk.stopped:
        model, schema = _modelled(kind, spec)
        findings += schema
        if kind == PRINCIPAL.name and namespace != system_namespace:
            findings += _place(spec)
        if isinstance(model, TokenIssuerSpec) and reserved_issuer is not None and model.issuer == reserved_issuer:
            findings.append(Finding("spec.issuer", reasons.RESERVED_ISSUER, "is reserved for the shared secret"))
        if not findings and kind in _IN_PACKETS and walk.at_most > MAX_BYTES:
            findings += _size(spec)
    return (None, tuple(sorted(set(findings)))) if findings else (model, ())


def _modelled(kind: str, spec: Any) -> tuple[Spec | None, list[Finding]]:
    try:
        return SPECS[kind].model_validate(spec), []
    except ValidationError as error:
        return None, findings_of(kind, error)


def findings_of(kind: str, error: ValidationError) -> list[Finding]:
    """What a model found wrong, in our words and without the input."""
    return [
        _finding(kind, detail["type"], detail["loc"], detail["msg"])
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    ]


_REASON_OF: Final = {"missing": reasons.MISSING_FIELD, "extra_forbidden": reasons.UNKNOWN_FIELD}

_SAID: Final = {
    "missing": "is required",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
}
_WORDS: Final = (
    (" after validation", ""),
    ("Input should", "must"),
    ("String should", "must"),
    ("List should", "must"),
    ("Dictionary should", "must"),
)


def _finding(kind: str, error: str, location: tuple[int | str, ...], message: str) -> Finding:
    reason = error if error in reasons.REASONS else _REASON_OF.get(error, reasons.INVALID_FIELD)
    message = _SAID.get(error, message)
    for theirs, ours in _WORDS:
        message = message.replace(theirs, ours)
    if reason == reasons.UNKNOWN_FIELD:
        message = f"is not a field of {kind}"
    if reason == reasons.UNKNOWN_FIELD and kind == PRINCIPAL_BINDING.name and location[:1] == ("overrides",):
        reason, message = reasons.NOT_OVERRIDABLE, "cannot be overridden"
    if reason == reasons.UNKNOWN_FIELD and location[:1] == ("secretRefs",):
        reason, message = reasons.INLINE_SECRET, "is not part of a secret reference, which never holds a value"
    if location[:1] == ("secretRefs",) and location[2:] == ("kind",):
        reason, message = reasons.INLINE_SECRET, "must be Env or File: secrets are references only"
    if reason == reasons.UNKNOWN_FIELD and "polling" in location[:1]:
        reason, message = reasons.INVALID_POLLING, "is more than a pointer: only endpoint, interval and description"
    return Finding(paths.rendered(step for step in location if step != "[key]"), reason, message)


def _place(spec: Any) -> list[Finding]:
    """What only Principals of the system namespace may say (D-51)."""
    if not isinstance(spec, dict):
        return []
    found = []
    if spec.get("scope") == "Cluster":
        found.append(Finding("spec.scope", reasons.SYSTEM_NAMESPACE_ONLY, "Cluster is for the system namespace only"))
    if spec.get("rights"):
        found.append(Finding("spec.rights", reasons.SYSTEM_NAMESPACE_ONLY, "are for the system namespace only"))
    return found


def _size(spec: Any) -> list[Finding]:
    if len(canonical.canonical(spec)) > MAX_BYTES:
        return [Finding("spec", reasons.PACKET_TOO_LARGE, f"is larger than {MAX_BYTES} bytes")]
    return []
