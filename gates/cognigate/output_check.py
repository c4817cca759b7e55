"""Whether what a model wrote is what the job asks for."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Final

from legivellum.base.bounded_schema import BoundedSchema
from legivellum_worker.gate_client import call
from legivellum_worker.plan_step import StepJob
from legivellum_worker.settings import GateAccess

DRAFT: Final = "plan.draft"
"""The capability whose output is a plan for `POST /plans` of DeleGate."""
DRAFT_MEDIA_TYPE: Final = "application/json"
_JSON: Final = "application/json"
_MOST: Final = 20
_LONGEST: Final = 300
_CALL_SECONDS: Final = 20.0


def output_problems(job: StepJob, text: str) -> list[str]:
    """Sentences for the model; none: the output is valid. Nothing is fetched, whatever the schema names."""
    if not text.strip():
        return ["The output is empty."]
    is_json = job.output_schema is not None or (job.media_type or "").partition(";")[0].strip() == _JSON
    if not is_json:
        return []
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        return [f"The output is no JSON: {error}"[:_LONGEST]]
    return [] if job.output_schema is None else _schema_problems(job.output_schema, value)


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def _schema_problems(schema: Any, value: Any) -> list[str]:
    """A schema of a plan is JSON; what it costs to check against it is bounded, whatever a model wrote."""
    return [problem[:_LONGEST] for problem in BoundedSchema(schema).problems(value, most=_MOST)]


def draft_problems(delegate: GateAccess, text: str) -> Sequence[str]:
    """What DeleGate has against a draft; it writes nothing for it (INV-092). Raises GateError, GateUnavailableError."""
    answer = call(delegate, "POST", "/plans/validate", {"intent": {"draft": json.loads(text)}}, seconds=_CALL_SECONDS)
    if answer.get("valid") is True:
        return ()
    findings = answer.get("findings") or [{}]
    return [
        f"{finding.get('path')}: {finding.get('reason')}: {finding.get('message')}"[:_LONGEST]
        for finding in findings[:_MOST]
    ]
