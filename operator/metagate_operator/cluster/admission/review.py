"""AdmissionReview in, AdmissionReview out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from metagate_crds.kinds import GROUP, KINDS
from metagate_crds.objects import CompileSettings
from metagate_crds.rules.findings import Finding
from metagate_crds.validation import validate

API_VERSION = "admission.k8s.io/v1"
SHOWN = 100
WARNING_LIMIT = 256


def review_object(request: Mapping[str, Any], settings: CompileSettings) -> tuple[Finding, ...]:
    """Everything wrong with the object of the request; nothing, when the request is none of our business.

    Not ours: other groups, subresources, deletions, objects that are being deleted, and updates that leave the spec as
    it was: nobody should have to repair a spec in order to remove a finalizer or a label.
    """
    kind = request.get("kind") or {}
    body = request.get("object")
    if (
        kind.get("group") != GROUP
        or kind.get("kind") not in KINDS
        or request.get("subResource")
        or not isinstance(body, dict)
    ):
        return ()
    if (body.get("metadata") or {}).get("deletionTimestamp"):
        return ()
    before = request.get("oldObject")
    if isinstance(before, dict) and before.get("spec") == body.get("spec"):
        return ()
    return validate(
        kind["kind"],
        body.get("spec"),
        namespace=request.get("namespace") or "",
        name=request.get("name") or (body.get("metadata") or {}).get("name") or "",
        system_namespace=settings.system_namespace,
        reserved_issuer=settings.jwt_issuer,
    )


def review_response(
    request: Mapping[str, Any], findings: Sequence[Finding], warnings: Sequence[str] = ()
) -> dict[str, Any]:
    """The response: a refusal that names every finding by its path and no value, or consent with warnings."""
    response: dict[str, Any] = {"uid": request.get("uid", ""), "allowed": not findings}
    if findings:
        response["status"] = refusal_status(request, findings)
    elif warnings:
        response["warnings"] = [
            warning if len(warning) <= WARNING_LIMIT else warning[: WARNING_LIMIT - 1] + "…" for warning in warnings
        ]
    return {"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}


def refusal_status(request: Mapping[str, Any], findings: Sequence[Finding]) -> dict[str, Any]:
    kind = request["kind"]["kind"]
    shown = [f"{finding}" for finding in findings[:SHOWN]]
    if len(findings) > SHOWN:
        shown.append(f"and {len(findings) - SHOWN} more")
    return {
        "status": "Failure",
        "reason": "Invalid",
        "code": 422,
        "message": f"{kind} is not valid:\n" + "\n".join(f"  {finding}" for finding in shown),
        "details": {
            "group": GROUP,
            "kind": kind,
            "name": request.get("name", ""),
            "causes": [
                {"reason": finding.reason, "message": finding.message, "field": finding.path}
                for finding in findings[:SHOWN]
            ],
        },
    }
