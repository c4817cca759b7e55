"""The step of a plan that a task stands for: its job, and to whom it may escalate. Read from the plan in DepotGate.

The payload pointer of such a task is `<pointer of the plan>#<step_id>`. The plan names the digest of its own bytes in
its pointer, so what is read is what was admitted.
"""

from __future__ import annotations

import json
import threading

from legivellum_worker.results import INPUT_REFUSED, Failed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import Any

LARGEST_PLAN = 512 * 1024
LARGEST_INPUT = 1 << 20
"""Bytes of an input whose job names no `maxBytes`."""
CLOSE = "plan.close"
"""The capability of the step that ends a plan; it has no job."""
_PLAN = "depot:"
_MOST_PLANS = 8


class StepInput:
    """One input of a job: a pointer, the result of another step, or a value that stands in the plan itself."""

    __slots__ = ("has_value", "max_bytes", "name", "pointer", "step", "value")

    def __init__(self, declared: Mapping[str, Any]) -> None:
        self.name = str(declared["name"])
        self.pointer: str | None = declared.get("pointer")
        self.step: str | None = declared.get("step")
        self.has_value = "value" in declared and self.pointer is None and self.step is None
        self.value: Any = declared.get("value")
        self.max_bytes = int(declared.get("maxBytes") or LARGEST_INPUT)

    def __repr__(self) -> str:
        return f"<StepInput {self.name}>"


class StepJob:
    """What a step asks for. A task that is no step of a plan has an empty one."""

    __slots__ = ("document", "inputs", "instruction", "max_output_bytes", "media_type", "output_schema", "settings")

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document
        """All of it, as it stands in the plan."""
        output: Mapping[str, Any] = document.get("output") or {}
        self.instruction = str(document.get("instruction") or "")
        self.inputs: Sequence[StepInput] = tuple(StepInput(declared) for declared in document.get("inputs") or ())
        self.media_type: str | None = output.get("mime")
        self.max_output_bytes: int | None = output.get("maxBytes")
        self.output_schema: Mapping[str, Any] | None = output.get("schema")
        self.settings: Mapping[str, Any] = document.get("settings") or {}

    def __repr__(self) -> str:
        return f"<StepJob with {len(self.inputs)} inputs>"


class StepRule:
    """For which failures the task is escalated instead of ended, and to whom."""

    __slots__ = ("escalation_class", "on", "to")

    def __init__(self, declared: Mapping[str, Any]) -> None:
        on = declared.get("on") or ()
        self.on = frozenset([on] if isinstance(on, str) else on)
        self.escalation_class = str(declared.get("class") or "other")
        self.to: str | None = declared.get("to")


class LeasedStep:
    """`task_ids` are those of all steps of the plan, by step id."""

    __slots__ = ("job", "rules", "step_id", "task_ids")

    def __init__(self, step_id: str, declared: Mapping[str, Any], task_ids: Mapping[str, str]) -> None:
        self.step_id, self.task_ids = step_id, task_ids
        self.job = StepJob(declared.get("job") or {})
        self.rules = tuple(StepRule(rule) for rule in declared.get("escalation") or ())

    def task_of(self, step: str) -> str | None:
        """The task of another step. In a plan within a plan ids may be those of the inner plan."""
        prefix = self.step_id.rpartition(".")[0]
        return self.task_ids.get(step) or self.task_ids.get(f"{prefix}.{step}")


NO_STEP = LeasedStep("", {}, {})


def split_pointer(payload_pointer: str) -> tuple[str, str] | None:
    """Pointer of the plan and step id; None where the payload is no step of a plan."""
    pointer, mark, step_id = payload_pointer.partition("#")
    return (pointer, step_id) if mark and step_id and pointer.startswith(_PLAN) else None


def find_step(body: bytes, step_id: str, task_id: str) -> LeasedStep:
    """Raises Failed for bytes that are no plan, and for a plan in which the step is not this task."""
    try:
        steps = dict(_task_steps(json.loads(body)["steps"]))
        declared = steps[step_id]
        if declared["task_id"] == task_id:
            return LeasedStep(step_id, declared, {name: str(step["task_id"]) for name, step in steps.items()})
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise Failed(INPUT_REFUSED) from error
    raise Failed(INPUT_REFUSED)


def _task_steps(steps: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for step in steps:
        if step.get("kind") == "plan":
            yield from _task_steps(step["steps"])
        else:
            yield str(step["step_id"]), step


class PlanCache:
    """The newest plans that this worker read, by pointer: the steps of a plan follow each other. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._bodies: dict[str, bytes] = {}

    def get(self, pointer: str, read: Callable[[], bytes]) -> bytes:
        with self._lock:
            body = self._bodies.get(pointer)
        if body is None:
            body = read()
            with self._lock:
                self._bodies[pointer] = body
                while len(self._bodies) > _MOST_PLANS:
                    del self._bodies[next(iter(self._bodies))]
        return body
