"""A plan: one document that says everything that will be minted, and how it is read back from where it is kept.

The document is what people approve and what DepotGate keeps (`application/vnd.legivellum.plan+json`, RFC 8785). Its
digest says what will happen, whatever ids and times it got: the same intent, state and configuration have the same one
(INV-086).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from metagate_crds.canonical_json import canonical, digest
from metagate_crds.plans.identifiers import created_at

SCHEMA: Final = "legivellum.plan/v1"
MEDIA_TYPE: Final = "application/vnd.legivellum.plan+json"
MOST_BYTES: Final = 512 * 1024
CLOSE: Final = "close"
CLOSE_CAPABILITY: Final = "plan.close"

_IDS_AND_TIMES: Final = frozenset(
    {"plan_id", "tenant_id", "caused_by_receipt_id", "root_task_id", "parent_task_id", "deadline_at", "plan_digest"}
)


class UnreadablePlan(ValueError):  # noqa: N818 - what the document is
    """The document is no plan, or of a release that this one does not know."""


@dataclass(frozen=True, slots=True)
class PlanOrigin:
    """Whose plan it is and what it comes from. Ids are ULIDs, but for `parent_task_id`, which may be any task's."""

    plan_id: str
    tenant_id: str
    principal_ai: str
    caused_by_receipt_id: str | None
    root_task_id: str
    parent_task_id: str | None = None


@dataclass(frozen=True, slots=True)
class PlannedTask:
    """One task that will be minted. `depends_on` holds the task ids of those that must be over before it."""

    step_id: str
    task_id: str
    capability: str
    depends_on: tuple[str, ...]
    job: Mapping[str, Any]
    escalation: tuple[Mapping[str, Any], ...]
    authority: Mapping[str, Any]

    @property
    def is_close(self) -> bool:
        return self.step_id == CLOSE

    @property
    def escalation_to(self) -> tuple[str, ...]:
        """Whom its worker may escalate to, in the order of its rules."""
        return tuple(dict.fromkeys(rule["to"] for rule in self.escalation))


@dataclass(frozen=True, slots=True)
class Plan:
    """`body`: the document's bytes. `tasks`: in topological order, `close` last. `depth`: levels of plans in plans."""

    document: Mapping[str, Any]
    body: bytes
    tasks: tuple[PlannedTask, ...]
    depth: int

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Plan:
        return cls(document, canonical(document), tuple(_tasks(document["steps"])), _depth(document["steps"]))

    @classmethod
    def read(cls, body: bytes) -> Plan:
        """The plan that was kept: its document decides, also where a template has changed since (DG-06).

        Raises UnreadablePlan.
        """
        try:
            document = json.loads(body)
            if document["schema"] != SCHEMA:
                raise UnreadablePlan("the document is of another schema")
            return cls(document, body, tuple(_tasks(document["steps"])), _depth(document["steps"]))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise UnreadablePlan("the document is no plan") from error

    @property
    def plan_id(self) -> str:
        return str(self.document["plan_id"])

    @property
    def principal_ai(self) -> str:
        return str(self.document["principal_ai"])

    @property
    def plan_digest(self) -> str:
        """`sha256:` and hex, of the document without ids and times."""
        return str(self.document["plan_digest"])

    @property
    def is_held(self) -> bool:
        return bool(self.document["dispatch"] == "Held")

    @property
    def approver(self) -> str | None:
        approver: str | None = self.document["approver"]
        return approver

    @property
    def result_task_id(self) -> str | None:
        """The task whose artifact the plan's completion names."""
        return next((task.task_id for task in self.tasks if task.step_id == self.document["result"]), None)

    @property
    def deadline_at(self) -> str | None:
        deadline: str | None = self.document["deadline_at"]
        return deadline


def plan_digest(document: Mapping[str, Any]) -> str:
    """What will happen, without who asked when: a deadline counts by its length."""
    content = {name: member for name, member in document.items() if name not in _IDS_AND_TIMES}
    content["steps"] = [_without_ids(step) for step in document["steps"]]
    if document["deadline_at"] is not None:
        deadline = datetime.fromisoformat(document["deadline_at"])
        content["deadline_seconds"] = round((deadline - created_at(document["plan_id"])).total_seconds())
    return f"sha256:{digest(canonical(content))}"


def _without_ids(step: Mapping[str, Any]) -> dict[str, Any]:
    content = {name: member for name, member in step.items() if name != "task_id"}
    if "steps" in step:
        content["steps"] = [_without_ids(inner) for inner in step["steps"]]
    return content


def _tasks(steps: list[Mapping[str, Any]]) -> Iterator[PlannedTask]:
    for step in steps:
        if step["kind"] == "plan":
            yield from _tasks(step["steps"])
            continue
        plan_id = step["task_id"][: -len(step["step_id"]) - 1]
        yield PlannedTask(
            step_id=step["step_id"],
            task_id=step["task_id"],
            capability=step["capability"],
            depends_on=tuple(f"{plan_id}.{need}" for need in step["depends_on"]),
            job=step["job"],
            escalation=tuple(step["escalation"]),
            authority=step["authority"],
        )


def _depth(steps: list[Mapping[str, Any]]) -> int:
    return max((1 + _depth(step["steps"]) for step in steps if step["kind"] == "plan"), default=0)
