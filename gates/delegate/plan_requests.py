"""The body of a request for a plan, read strictly: a member that is unknown, missing or of another kind is 422.

What the intent asks for is judged where it is expanded: its findings have paths, these refusals have one sentence.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass
from typing import Any, Final

from delegate.problem_codes import Code
from legivellum.http import strict_json
from legivellum.http.problems import RequestRefused, refuse
from metagate_crds import reasons
from metagate_crds.plans.expansion import plan_from_draft, plan_from_template
from metagate_crds.plans.identifiers import ULID, created_at
from metagate_crds.plans.plan import Plan, PlanOrigin
from metagate_crds.plans.template import PlanTemplate
from metagate_crds.rules.findings import Finding

_MEMBERS: Final = frozenset(["plan_id", "intent", "caused_by_receipt_id"])
_INTENTS: Final = (frozenset(["template", "parameters"]), frozenset(["template"]), frozenset(["draft"]))
_LONGEST_NAME: Final = 253
_MOST_MEMBERS: Final = 10_000
"""A draft of 64 steps has thousands; the bytes of a body bound them too."""


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """What is asked for: a template by its name with parameters, or a draft."""

    plan_id: str | None
    caused_by_receipt_id: str | None
    template: str | None
    parameters: Any
    draft: Any

    @property
    def intent(self) -> Mapping[str, Any]:
        if self.template is None:
            return {"draft": self.draft}
        return {"template": self.template, "parameters": self.parameters}

    def expand(
        self, origin: PlanOrigin, templates: Mapping[str, PlanTemplate], principals: Container[str]
    ) -> Plan | list[Finding]:
        """The plan, or everything that is wrong. Pure: it asks nobody."""
        if self.template is None:
            return plan_from_draft(origin, self.draft, templates, principals)
        template = templates.get(self.template)
        if template is None:
            return [
                Finding("template", reasons.TEMPLATE_NOT_FOUND, "is no PlanTemplate that is served in this namespace")
            ]
        return plan_from_template(origin, template, self.parameters, templates, principals)


def parse_plan_request(raw: bytes) -> PlanRequest:
    """Raises INVALID_REQUEST (422), and the codes of strict JSON."""
    body = strict_json.parse(raw, max_keys=_MOST_MEMBERS)
    if not isinstance(body, dict):
        raise _invalid("the body must be a JSON object")
    if unknown := body.keys() - _MEMBERS:
        raise _invalid(f"the body knows plan_id, intent, caused_by_receipt_id; {len(unknown)} members are unknown")
    intent = body.get("intent")
    if not isinstance(intent, dict) or frozenset(intent) not in _INTENTS:
        raise _invalid("intent: must be an object with template and parameters, or with draft alone")
    template = intent.get("template")
    if "template" in intent and not (
        isinstance(template, str) and 0 < len(template) <= _LONGEST_NAME and template.isprintable()
    ):
        raise _invalid("intent.template: must be the name of a PlanTemplate")
    return PlanRequest(
        plan_id=_plan_id(body),
        caused_by_receipt_id=_ulid(body, "caused_by_receipt_id"),
        template=template,
        parameters=intent.get("parameters", {}),
        draft=intent.get("draft"),
    )


def _plan_id(body: Mapping[str, Any]) -> str | None:
    """The time in it becomes that of every receipt, so it must be one that can be written."""
    plan_id = _ulid(body, "plan_id")
    return None if plan_id is None else require_plan_id(plan_id)


def require_plan_id(text: str) -> str:
    """The id, if a plan can have it. Raises INVALID_REQUEST."""
    if not ULID.fullmatch(text):
        raise _invalid("plan_id: must be a ULID in upper case")
    try:
        created_at(text)
    except (ValueError, OverflowError):
        raise _invalid("plan_id: its time is beyond the year 9999") from None
    return text


def _ulid(body: Mapping[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not (isinstance(value, str) and ULID.fullmatch(value)):
        raise _invalid(f"{name}: must be a ULID in upper case")
    return value


def _invalid(detail: str) -> RequestRefused:
    return refuse(Code.INVALID_REQUEST, f"{detail}.")


def rendered_findings(findings: list[Finding]) -> list[dict[str, str]]:
    return [{"path": finding.path, "reason": finding.reason, "message": finding.message} for finding in findings]


def invalid_plan(findings: list[Finding]) -> RequestRefused:
    """422 with the findings; TEMPLATE_NOT_FOUND (404) where there is no template to find fault with."""
    if [(finding.path, finding.reason) for finding in findings] == [("template", reasons.TEMPLATE_NOT_FOUND)]:
        return refuse(Code.TEMPLATE_NOT_FOUND, "intent.template: is no PlanTemplate that is served in this namespace.")
    detail = f"{len(findings)} findings keep this from being a plan that may run; the first: {findings[0]}."
    return refuse(Code.INVALID_PLAN, detail, members={"findings": rendered_findings(findings)})
