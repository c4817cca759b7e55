"""Restricts the last good version of an object by its present, invalid one (D-33): what that takes away, goes at once.

The last good spec stays served, and nobody gains from the broken one; but what it withdraws is withdrawn. Each field is
read on its own. A field that is absent says what its default says; a required one that is absent, and anything that
cannot be read, restricts nothing, so that a typing error does not lock out a fleet. `suspended` and `active` are the
exception: whatever stands there and is not the permissive word restricts.
"""

from dataclasses import replace
from typing import Any, Final

from legivellum.base.public_jwk import JwkSet, normalize_members
from metagate_crds.compile.normalized import (
    ApiKeyDigest,
    NormalizedBinding,
    NormalizedIssuer,
    NormalizedPlanTemplate,
    NormalizedPrincipal,
    NormalizedProblemata,
    NormalizedSpec,
    SubjectRef,
    normalize_plan_template,
    normalize_problemata,
    to_utc,
)
from metagate_crds.models.principal import PrincipalType
from metagate_crds.rules.patterns import intersect_components

# What each type may do beyond booting; a demotion is a change to something that may do less.
_POWERS: Final[dict[PrincipalType, frozenset[str]]] = {
    "admin": frozenset({"administer", "observe"}),
    "observer": frozenset({"observe"}),
    "principal": frozenset({"mint"}),
    "delegate": frozenset({"mint", "plan"}),
    "service": frozenset({"introspect"}),
    "worker": frozenset({"lease"}),
    "component": frozenset(),
}


def restrict_last_good(good: NormalizedSpec, spec: Any) -> NormalizedSpec | None:
    """The last good spec without what the present, invalid spec takes away; None when that is all of it."""
    if not isinstance(spec, dict):
        return good
    match good:
        case NormalizedPrincipal():
            return _restrict_principal(good, spec)
        case NormalizedBinding():
            return _restrict_binding(good, spec)
        case NormalizedIssuer():
            return _restrict_issuer(good, spec)
        case NormalizedProblemata():
            return _restrict_problemata(good, spec)
        case NormalizedPlanTemplate():
            return _restrict_plan_template(good, spec)
        case _:
            return good


def _restrict_principal(good: NormalizedPrincipal, spec: dict[str, Any]) -> NormalizedPrincipal:
    keys, subjects, rights = _read_list(spec, "apiKeys"), _read_list(spec, "subjects"), _read_list(spec, "rights")
    return replace(
        good,
        type=_demote(good.type, spec.get("type", "component")),
        scope="Namespace" if spec.get("scope", "Namespace") == "Namespace" else good.scope,
        rights=good.rights if rights is None else tuple(right for right in good.rights if right in rights),
        suspended=good.suspended or spec.get("suspended") not in (False, None),
        subjects=good.subjects
        if subjects is None
        else tuple(ref for ref in good.subjects if _still_named(ref, subjects)),
        api_keys=good.api_keys
        if keys is None
        else tuple(_with_earliest_expiry(key, keys) for key in good.api_keys if _still_listed(key, keys)),
    )


def _restrict_binding(good: NormalizedBinding, spec: dict[str, Any]) -> NormalizedBinding:
    patterns = spec.get("components")
    return replace(
        good,
        active=good.active and spec.get("active", True) in (True, None),
        components=intersect_components(good.components, [pattern for pattern in patterns if isinstance(pattern, str)])
        if isinstance(patterns, list)
        else good.components,
    )


def _restrict_issuer(good: NormalizedIssuer, spec: dict[str, Any]) -> NormalizedIssuer:
    return replace(
        good,
        audiences=_remaining(good.audiences, spec.get("audiences")),
        algorithms=_remaining(good.algorithms, spec.get("algorithms")),
        namespaces=_remaining_namespaces(good, spec),
        key_set=_remaining_keys(good, spec),
    )


def _restrict_problemata(good: NormalizedProblemata, spec: dict[str, Any]) -> NormalizedProblemata:
    """Without the capabilities and gateways that are no longer listed; its tools are seen only while both say so."""
    body = good.body
    capabilities, gateway = spec.get("capabilities"), spec.get("gateway")
    if isinstance(capabilities, list):
        ids = [item.get("id") for item in capabilities if isinstance(item, dict)]
        body = {**body, "capabilities": [item for item in body["capabilities"] if item["id"] in ids]}
    principals = gateway.get("principals") if isinstance(gateway, dict) else None
    if isinstance(principals, list):
        remaining = [name for name in body["gateway"]["principals"] if name in principals]
        body = {**body, "gateway": {**body["gateway"], "principals": remaining}}
    if spec.get("exposeTools") is not True:
        body = {**body, "exposeTools": False}
    return normalize_problemata(body)


def _restrict_plan_template(good: NormalizedPlanTemplate, spec: dict[str, Any]) -> NormalizedPlanTemplate | None:
    """Held for an approver once the present spec says so, and without what steps are no longer granted."""
    body = good.body
    if spec.get("dispatch") == "Held" and body["dispatch"] != "Held":
        approver = spec.get("approver")
        if not isinstance(approver, str):
            return None  # plans would wait for an approval that nobody may give
        body = {**body, "dispatch": "Held", "approver": approver}
    steps = spec.get("steps")
    if isinstance(steps, list):
        present = {step["id"]: step for step in steps if isinstance(step, dict) and isinstance(step.get("id"), str)}
        body = {**body, "steps": [_restrict_step(step, present.get(step["id"], {})) for step in body["steps"]]}
    return good if body == good.body else normalize_plan_template(body)


def _restrict_step(step: dict[str, Any], present: dict[str, Any]) -> dict[str, Any]:
    granted = _shared_grant(step.get("authority"), present.get("authority"))
    return {name: member for name, member in step.items() if name != "authority"} | (
        {} if granted is None else {"authority": granted}
    )


def _shared_grant(good: Any, present: Any) -> Any:
    """What both versions of an authority, or of a member of one, grant; None: nothing. Absent is denied."""
    if present is None or good is None:
        return None
    if isinstance(good, dict) and isinstance(present, dict):
        members = {name: _shared_grant(member, present.get(name)) for name, member in good.items()}
        return {name: member for name, member in members.items() if member is not None}
    if isinstance(good, list) and isinstance(present, list):
        return [item for item in good if item in present]
    if isinstance(good, bool) and isinstance(present, bool):
        return good and present
    if _is_number(good) and _is_number(present):
        return min(good, present)
    return good


def _is_number(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_list(spec: dict[str, Any], name: str) -> list[Any] | None:
    """A list that is empty when absent; None when it cannot be read."""
    items = spec.get(name)
    if items is None:
        return []
    return items if isinstance(items, list) else None


def _demote(good: PrincipalType, present: Any) -> PrincipalType:
    # An unreadable type demotes nobody: a typing error must not lock an admin out.
    if not isinstance(present, str) or present not in _POWERS or _POWERS[good] <= _POWERS[present]:
        return good
    shared = _POWERS[good] & _POWERS[present]
    return next((name for name, powers in _POWERS.items() if powers == shared), "component")


def _still_named(ref: SubjectRef, subjects: list[Any]) -> bool:
    for item in subjects:
        if not isinstance(item, dict):
            continue
        account = item.get("serviceAccount")
        if ref.issuer is None and isinstance(account, dict) and account.get("name") == ref.subject:
            return True
        if ref.issuer is not None and (item.get("issuer"), item.get("subject")) == (ref.issuer, ref.subject):
            return True
    return False


def _still_listed(key: ApiKeyDigest, keys: list[Any]) -> bool:
    return any(isinstance(item, dict) and item.get("sha256") == key.sha256 for item in keys)


def _with_earliest_expiry(key: ApiKeyDigest, keys: list[Any]) -> ApiKeyDigest:
    """The key with the earliest expiry that either version gives it."""
    ends = [] if key.expires_at is None else [key.expires_at]
    for item in keys:
        if isinstance(item, dict) and item.get("sha256") == key.sha256 and isinstance(item.get("expiresAt"), str):
            try:
                ends.append(to_utc(item["expiresAt"]) or "")
            except (ValueError, OverflowError):
                continue  # no time: the key keeps the expiry it had
    return replace(key, expires_at=min(ends, default=None))


def _remaining(good: tuple[str, ...], present: Any) -> tuple[str, ...]:
    return tuple(item for item in good if item in present) if isinstance(present, list) else good


def _remaining_namespaces(good: NormalizedIssuer, spec: dict[str, Any]) -> tuple[str, ...] | None:
    present = _read_list(spec, "namespaces")
    if present is None:
        return good.namespaces
    if spec.get("namespaces") is None and good.source == "Cluster":
        return good.namespaces
    if good.namespaces is None:
        return tuple(item for item in present if isinstance(item, str)) if good.source == "Cluster" else None
    if "*" in good.namespaces:
        return tuple(item for item in present if isinstance(item, str))
    return good.namespaces if "*" in present else _remaining(good.namespaces, present)


def _remaining_keys(good: NormalizedIssuer, spec: dict[str, Any]) -> JwkSet:
    """The keys that the present spec still lists, whatever else stands beside their numbers there."""
    source = spec.get("jwks")
    inline = source.get("inline") if isinstance(source, dict) else None
    present = inline.get("keys") if isinstance(inline, dict) else None
    if not isinstance(present, list):
        return good.key_set
    listed = [normalize_members(item) for item in present if isinstance(item, dict)]
    keys = (
        key
        for key in good.key_set.keys
        if any(all(item.get(name) == value for name, value in key.members.items()) for item in listed)
    )
    return JwkSet(tuple(keys), good.key_set.skipped)
