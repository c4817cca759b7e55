"""The bodies of requests, read strictly: a member that is unknown, missing or of another kind is 422."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from asyncgate.problem_codes import Code
from legivellum.http.problems import RequestRefused, refuse
from legivellum.receipts.receipt import Key, Moment, Name, Pointer

_SHOWN_FINDINGS = 40

Capability = Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
LeaseId = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Line = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^[^\x00-\x1f\x7f-\x9f]*$")]
Seconds = Annotated[int, Field(ge=5, le=86_400)]


class RequestBody(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class TaskLeaseBody(RequestBody):
    """How leases on the task are shorter than the gate's."""

    ttl_seconds: Seconds | None = None
    max_renewals: Annotated[int, Field(ge=0, le=10_000)] | None = None
    max_lifetime_seconds: Annotated[int, Field(ge=5, le=604_800)] | None = None


class TaskBody(RequestBody):
    """POST /tasks."""

    task_id: Key
    principal_ai: Name
    payload_pointer: Pointer
    tenant_id: str | None = None
    obligation_id: Key | None = None
    capability: Capability = "default"
    not_before: Moment | None = None
    parent_task_id: Key | None = None
    task_type: Key | None = None
    task_summary: Annotated[str, StringConstraints(min_length=1, max_length=2_048)] | None = None
    authority: dict[str, Any] | None = None
    needs: list[Key] = Field(default_factory=list, max_length=64)
    lease: TaskLeaseBody = Field(default_factory=TaskLeaseBody)
    max_leases: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    escalation_to: list[Name] | None = Field(None, max_length=16)


class BatchItem(RequestBody):
    task: dict[str, Any]
    admission: str | None = None


class TaskBatchBody(RequestBody):
    """POST /tasks/batch. `check`: judge the tasks, store nothing."""

    items: list[BatchItem] = Field(min_length=1, max_length=256)
    all_or_none: bool = False
    check: bool = False


class LeaseBody(RequestBody):
    """POST /lease."""

    capabilities: list[Capability] = Field(min_length=1, max_length=16)
    most: Annotated[int, Field(ge=1, le=32)] = 1
    ttl_seconds: Seconds | None = None
    wait_seconds: Annotated[float, Field(ge=0, le=20)] = 0


class RenewBody(RequestBody):
    """POST /lease/renew."""

    lease_id: LeaseId
    ttl_seconds: Seconds | None = None


class ReleaseBody(RequestBody):
    """POST /lease/release."""

    lease_id: LeaseId
    reason: Line | None = None
    again_after_seconds: Annotated[float, Field(ge=0, le=3_600)] = 0


class EscalateBody(RequestBody):
    """POST /escalate."""

    lease_id: LeaseId
    escalation_class: Literal["owner", "capability", "trust", "policy", "scope", "other"]
    escalation_reason: Annotated[str, StringConstraints(min_length=1, max_length=2_048)]
    escalation_to: Name | None = None


class RevokeBody(RequestBody):
    """POST /tasks/{task_id}/revoke."""

    what: Literal["task", "lease"] = "task"
    reason: Line | None = None


class ClaimBatchBody(RequestBody):
    """POST /complete/batch."""

    items: list[dict[str, Any]] = Field(min_length=1, max_length=32)


Body = TypeVar("Body", bound=RequestBody)


def read_body(kind: type[Body], sent: Any) -> Body:
    """Raises INVALID_REQUEST, naming every bad member."""
    try:
        return kind.model_validate(sent)
    except ValidationError as error:
        findings = [_finding(item) for item in error.errors(include_url=False, include_input=False)]
        raise invalid("; ".join(findings[:_SHOWN_FINDINGS])) from None


def invalid(detail: str) -> RequestRefused:
    return refuse(Code.INVALID_REQUEST, detail)


def _finding(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"] if not str(part).startswith(("function-", "constrained-")))
    if item["type"] == "extra_forbidden":
        return f"{path}: is not known"
    if item["type"] == "missing":
        return f"{path}: is required"
    return f"{path or 'The body'}: {item['msg'].removeprefix('Value error, ')}"
