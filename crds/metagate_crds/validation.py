"""validate: everything wrong with one spec, at once.

Admission, the command line and compiling share it. What depends on other objects (references, conflicts) is not here.
"""

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any, Final

from pydantic import ValidationError

from metagate_crds import canonical_json, reasons
from metagate_crds.kinds import MANIFEST, PRINCIPAL, PRINCIPAL_BINDING, PROBLEMATA, PROFILE
from metagate_crds.models import SPECS, Spec
from metagate_crds.models import plan_template as plan_template_texts
from metagate_crds.models import policy as policy_texts
from metagate_crds.models import principal as principal_texts
from metagate_crds.models import problemata as problemata_texts
from metagate_crds.models import spec as spec_texts
from metagate_crds.models.issuer import TokenIssuerSpec
from metagate_crds.models.plan_template import PlanTemplateSpec
from metagate_crds.models.problemata import ProblemataSpec, content_findings, name_findings
from metagate_crds.packet import MAX_BYTES
from metagate_crds.rules.findings import Finding, render_path
from metagate_crds.rules.plan_rules import plan_findings
from metagate_crds.rules.spec_scanner import SpecScanner
from metagate_crds.structural_schema import schema_of

# Their content reaches packets, so forbidden keys are looked for in them (D-17).
_IN_PACKETS: Final = frozenset({PROFILE.name, MANIFEST.name, PRINCIPAL_BINDING.name})
_WITHOUT_WORK: Final = _IN_PACKETS | {PROBLEMATA.name}
_SCHEMAS: Final = frozenset({"inputSchema", "outputSchema"})
"""Members of a Problemata that describe what somebody else takes and gives."""


def validate(
    kind: str,
    spec: Any,
    *,
    namespace: str = "",
    name: str = "",
    system_namespace: str = "metagate-system",
    reserved_issuer: str | None = None,
) -> tuple[Finding, ...]:
    """Every finding, sorted; empty means valid. Never raises for any spec, never quotes a value.

    `name` is the object's, empty while it has none; some kinds have rules about it.
    `reserved_issuer`: that of the shared secret while HS256 is on; no TokenIssuer may have it (D-37).
    """
    return parse_spec(
        kind,
        spec,
        namespace=namespace,
        name=name,
        system_namespace=system_namespace,
        reserved_issuer=reserved_issuer,
    )[1]


def parse_spec(
    kind: str,
    spec: Any,
    *,
    namespace: str = "",
    name: str = "",
    system_namespace: str = "metagate-system",
    reserved_issuer: str | None = None,
    stored: bool = False,
) -> tuple[Spec | None, tuple[Finding, ...]]:
    """The model, when the spec is valid, and the findings, when it is not.

    `stored`: an earlier release accepted this spec, so bounds that are narrower since do not count against it.
    """
    scanner = SpecScanner(forbid=kind in _WITHOUT_WORK, foreign=_SCHEMAS if kind == PROBLEMATA.name else frozenset())
    scanner.scan(spec)
    findings = list(scanner.findings)
    model = None
    # A bound was hit: pydantic would walk the same bomb without bounds.
    if not scanner.stopped:
        model, schema = _parse_model(kind, spec, stored=stored)
        findings += schema
        if kind == PRINCIPAL.name and namespace != system_namespace:
            findings += _system_namespace_findings(spec)
        if isinstance(model, TokenIssuerSpec) and reserved_issuer is not None and model.issuer == reserved_issuer:
            findings.append(Finding("spec.issuer", reasons.RESERVED_ISSUER, "is reserved for the shared secret"))
        if kind == PRINCIPAL.name and not stored:
            findings += principal_texts.name_findings(name)
        if kind == PROBLEMATA.name and name:
            findings += name_findings(name)
        if isinstance(model, ProblemataSpec) and not findings:
            findings += content_findings(model, name)
        if isinstance(model, PlanTemplateSpec) and not findings:
            findings += plan_findings(model.declared())
        # Encoding costs more than everything else here, so it is done only where the bound could be exceeded.
        if not findings and kind in _IN_PACKETS and scanner.max_json_bytes > MAX_BYTES:
            findings += _size_findings(spec)
    return (None, tuple(sorted(set(findings)))) if findings else (model, ())


def _parse_model(kind: str, spec: Any, *, stored: bool) -> tuple[Spec | None, list[Finding]]:
    try:
        return SPECS[kind].model_validate(spec, context={spec_texts.STORED: stored}), []
    except ValidationError as error:
        return None, translate_errors(kind, error)


def translate_errors(kind: str, error: ValidationError) -> list[Finding]:
    """The findings of a model's refusal, in our words and without the input."""
    return [
        _finding(kind, detail["type"], detail["loc"], detail["msg"])
        for detail in error.errors(include_url=False, include_context=False, include_input=False)
    ]


_TEXT_ERRORS: Final = frozenset({"string_type", "string_too_short", "string_too_long", "string_pattern_mismatch"})
_WANTED: Final = (
    spec_texts.WANTED
    | principal_texts.WANTED
    | policy_texts.WANTED
    | problemata_texts.WANTED
    | plan_template_texts.WANTED
)
_REASON_OF: Final = {"missing": reasons.MISSING_FIELD, "extra_forbidden": reasons.UNKNOWN_FIELD}

_MESSAGES: Final = {
    "missing": "is required",
    "model_type": "must be an object",
    "dict_type": "must be an object",
    "list_type": "must be a list",
    "string_type": "must be text",
    "bool_type": "must be true or false",
    "int_type": "must be an integer",
}
_API_KEY_ENTRY: Final = "as `metagate keys create` prints it, and never the key"
_SHORTEST_BEGINNING: Final = 3
# pydantic's phrases in our words; its texts name Python's types and "input", which people do not declare.
_PHRASES: Final = (
    (" after validation", ""),
    ("Input should", "must"),
    ("String should", "must"),
    ("List should", "must"),
    ("Dictionary should", "must"),
)


def _finding(kind: str, error: str, location: tuple[int | str, ...], message: str) -> Finding:
    reason = error if error in reasons.REASONS else _REASON_OF.get(error, reasons.INVALID_FIELD)
    message = _MESSAGES.get(error, message)
    for pydantic_phrase, phrase in _PHRASES:
        message = message.replace(pydantic_phrase, phrase)
    if error in _TEXT_ERRORS:
        wanted = _WANTED.get(_schema_at(schema_of(kind), location).get("pattern", ""))
        message = f"must be {wanted}" if wanted else message
    suggestion = _suggest(kind, location) if reason == reasons.UNKNOWN_FIELD else ""
    if reason == reasons.UNKNOWN_FIELD:
        message = f"is not a field of {kind}"
    if reason == reasons.UNKNOWN_FIELD and location[:1] == ("apiKeys",):
        message = f"is not part of an API key's entry, {_API_KEY_ENTRY}"
    if error == "model_type" and location[:1] == ("apiKeys",):
        message = f"must be an entry with id and sha256, {_API_KEY_ENTRY}"
    if reason == reasons.UNKNOWN_FIELD and kind == PRINCIPAL_BINDING.name and location[:1] == ("overrides",):
        reason, message = reasons.NOT_OVERRIDABLE, "cannot be overridden"
    if reason == reasons.UNKNOWN_FIELD and location[:1] == ("secretRefs",):
        reason, message = reasons.INLINE_SECRET, "is not part of a secret reference, which never holds a value"
    if location[:1] == ("secretRefs",) and location[2:] == ("kind",):
        reason, message = reasons.INLINE_SECRET, "must be Env or File: secrets are references only"
    if reason == reasons.UNKNOWN_FIELD and "polling" in location[:1]:
        reason, message = reasons.INVALID_POLLING, "is more than a pointer: only endpoint, interval and description"
    return Finding(render_path(step for step in location if step != "[key]"), reason, message + suggestion)


def _suggest(kind: str, location: tuple[int | str, ...]) -> str:
    """What an unknown key was probably meant to be: a field beside it, or the place where a field of this name is.

    The key itself is not repeated: it may be anything that somebody pasted.
    """
    schema = schema_of(kind)
    *path, key = (step for step in location if step != "[key]")
    fields = list(_schema_at(schema, path).get("properties", {}))
    matches = [
        *(name for name in fields if _plain(name) == _plain(str(key))),
        *get_close_matches(str(key), fields, n=1),
        *(name for name in fields if len(str(key)) >= _SHORTEST_BEGINNING and name.startswith(str(key))),
    ]
    if matches:
        return f": did you mean `{matches[0]}`?"
    parents = _parents_of(schema, str(key), "spec")
    return f": `{parents[0]}` has a field of this name" if len(parents) == 1 else ""


def _plain(key: str) -> str:
    return key.replace("_", "").replace("-", "").casefold()


def _schema_at(schema: dict[str, Any], path: Iterable[int | str]) -> dict[str, Any]:
    for step in path:
        inner = schema.get("items") if isinstance(step, int) else schema.get("properties", {}).get(step)
        schema = inner or schema.get("additionalProperties") or {}
    return schema


def _parents_of(schema: dict[str, Any], key: str, path: str) -> list[str]:
    """The objects of a schema that have a field of this name, as paths."""
    parents = [path] if key in schema.get("properties", {}) and path != "spec" else []
    for name, part in schema.get("properties", {}).items():
        parents += _parents_of(part, key, f"{path}.{name}")
    for suffix, part in (("[]", schema.get("items")), (".*", schema.get("additionalProperties"))):
        if isinstance(part, dict):
            parents += _parents_of(part, key, f"{path}{suffix}")
    return parents


def _system_namespace_findings(spec: Any) -> list[Finding]:
    """What only Principals of the system namespace may say (D-51)."""
    if not isinstance(spec, dict):
        return []
    findings = []
    if spec.get("scope") == "Cluster":
        findings.append(
            Finding("spec.scope", reasons.SYSTEM_NAMESPACE_ONLY, "Cluster is for the system namespace only")
        )
    if spec.get("rights"):
        findings.append(Finding("spec.rights", reasons.SYSTEM_NAMESPACE_ONLY, "are for the system namespace only"))
    return findings


def _size_findings(spec: Any) -> list[Finding]:
    if len(canonical_json.canonical(spec)) > MAX_BYTES:
        return [Finding("spec", reasons.PACKET_TOO_LARGE, f"is larger than {MAX_BYTES} bytes")]
    return []
