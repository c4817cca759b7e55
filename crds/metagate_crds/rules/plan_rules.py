"""What a plan template or a draft says about its own steps, judged without any other object (DELEGATE.md §2).

The spec comes as `Spec.declared` gives it: types and bounds of single fields hold already. Here is what they cannot
say: who needs whom, what a `${…}` stands for, where outputs may go, what a schema of parameters may use.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from metagate_crds import reasons
from metagate_crds.canonical_json import canonical
from metagate_crds.rules.findings import Finding, Step, render_path
from metagate_crds.rules.json_schema import schema_problems

MOST_BYTES: Final = 64 * 1024
"""Of a template or draft in all."""
MOST_ITEMS: Final = 64
LONGEST_POINTER: Final = 2048
NO_PARAMETERS: Final[Mapping[str, Any]] = {"type": "object", "additionalProperties": False}
"""The schema of a template that declares none."""

HELD_WITHIN: Final = "is held for an approver: the whole plan must be held for the same one"

REFERENCE: Final = re.compile(r"\$\{(?:item|parameters\.([^${}]+))\}")
"""`${item}` or `${parameters.name}`; the name is group 1."""

MOST_VALUE_BYTES: Final = 16 * 1024
_SCHEMA_BYTES: Final = 8 * 1024
MOST_SETTINGS_BYTES: Final = 8 * 1024
_INSTRUCTION_BYTES: Final = 16 * 1024
_SINK: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?/(?:output|supporting)")
_CONTROL: Final = re.compile("[\x00-\x1f\x7f-\x9f]")
# Nothing fetches and nothing backtracks: no `$ref`, no `pattern`, no `format`.
_KEYWORDS: Final = frozenset(
    {
        "type", "properties", "required", "items", "enum", "const", "additionalProperties", "title", "description",
        "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
        "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum",
    }
)  # fmt: skip

_Path = tuple[Step, ...]


def plan_findings(spec: Mapping[str, Any]) -> list[Finding]:
    """Everything wrong with the steps. A draft is a template without parameters: nothing in it may stand for one."""
    return [
        *_size_findings(spec),
        *_approval_findings(spec),
        *_parameter_schema_findings(spec),
        *_rule_findings((), spec.get("escalation")),
        *_result_findings(spec),
        *_graph_findings(spec["steps"]),
        *(finding for index, step in enumerate(spec["steps"]) for finding in _step_findings(spec, index, step)),
    ]


def pointer_problem(pointer: Any) -> str | None:
    """What is wrong with the address of an input; None: nothing."""
    if not isinstance(pointer, str) or not pointer:
        return "must be the address of an artifact, as text"
    if len(pointer.encode("utf-8", "surrogatepass")) > LONGEST_POINTER:
        return f"is longer than {LONGEST_POINTER} bytes"
    if _CONTROL.search(pointer):
        return "holds control characters"
    if pointer.lstrip().lower().startswith("data:"):
        return "must be an address and not the data itself; use value"
    return None


def size_problem(value: Any, most: int = MOST_VALUE_BYTES) -> str | None:
    """Whether a value has more bytes as JSON than it may have."""
    return f"is larger than {most // 1024} KiB" if len(canonical(value)) > most else None


def needs_of(step: Mapping[str, Any]) -> list[str]:
    """The ids of the steps that must be over before this one: those it names, then those whose outputs it takes."""
    return list(dict.fromkeys([*step.get("dependsOn", ()), *input_steps(step)]))


def input_steps(step: Mapping[str, Any]) -> list[str]:
    """The ids of the steps whose outputs this one takes."""
    return [each["step"] for each in step.get("job", {}).get("inputs", ()) if "step" in each]


def _finding(path: _Path, reason: str, message: str) -> Finding:
    return Finding(render_path(path), reason, message)


def _size_findings(spec: Mapping[str, Any]) -> Iterator[Finding]:
    if len(canonical(spec)) > MOST_BYTES:
        yield Finding("spec", reasons.TOO_LARGE, f"is larger than {MOST_BYTES // 1024} KiB")


def _approval_findings(spec: Mapping[str, Any]) -> Iterator[Finding]:
    held = spec.get("dispatch") == "Held"
    if held and "approver" not in spec:
        yield _finding(("approver",), reasons.APPROVER_MISSING, "is required with dispatch: Held")
    if not held and "approver" in spec:
        yield _finding(("approver",), reasons.INVALID_FIELD, "approves nothing unless dispatch is Held")


def _parameter_schema_findings(spec: Mapping[str, Any]) -> Iterator[Finding]:
    schema = spec.get("parameters")
    if schema is not None:
        yield from _schema_findings(("parameters",), schema)
        if isinstance(schema, dict) and schema.get("type") != "object":
            yield _finding(("parameters", "type"), reasons.INVALID_SCHEMA, "must be object")


def _schema_findings(path: _Path, schema: Any) -> Iterator[Finding]:
    unknown = list(_keyword_findings(path, schema))
    yield from unknown
    # What is said of a keyword that is not known here would mislead: a `$ref` within the schema is none the better.
    for inner, message in () if unknown else schema_problems(schema):
        yield _finding((*path, *inner), reasons.INVALID_SCHEMA, message)
    if (problem := size_problem(schema, _SCHEMA_BYTES)) is not None:
        yield _finding(path, reasons.TOO_LARGE, problem)


def _keyword_findings(path: _Path, schema: Any) -> Iterator[Finding]:
    if not isinstance(schema, dict):
        yield _finding(path, reasons.INVALID_SCHEMA, "must be an object")
        return
    for name, member in schema.items():
        if name not in _KEYWORDS:
            message = "is none of the keywords that are known here, which fetch nothing and match no pattern"
            yield _finding((*path, name), reasons.INVALID_SCHEMA, message)
        elif name == "additionalProperties" and not isinstance(member, bool):
            yield _finding((*path, name), reasons.INVALID_SCHEMA, "must be true or false")
        elif name == "items":
            yield from _keyword_findings((*path, name), member)
        elif name == "properties" and isinstance(member, dict):
            for key, inner in member.items():
                yield from _keyword_findings((*path, name, key), inner)


def _rule_findings(path: _Path, rules: Any) -> Iterator[Finding]:
    seen: set[str] = set()
    for index, rule in enumerate(rules or ()):
        if seen.intersection(rule["on"]):
            message = "names a cause that an earlier rule has"
            yield _finding((*path, "escalation", index, "on"), reasons.DUPLICATE, message)
        seen.update(rule["on"])


def _result_findings(spec: Mapping[str, Any]) -> Iterator[Finding]:
    if "result" in spec:
        step = next((step for step in spec["steps"] if step["id"] == spec["result"]), None)
        if step is None or "plan" in step or "forEach" in step:
            message = "must name a step with a job and without forEach: its artifact is the plan's"
            yield _finding(("result",), reasons.INVALID_RESULT, message)


def _graph_findings(steps: list[Mapping[str, Any]]) -> Iterator[Finding]:
    ids = [step["id"] for step in steps]
    for index, step in enumerate(steps):
        if step["id"] in ids[:index]:
            yield _finding(("steps", index, "id"), reasons.DUPLICATE, "is the id of another step")
        if step["id"] == "close":
            yield _finding(("steps", index, "id"), reasons.INVALID_FIELD, "must not be close, which ends every plan")
        for position, need in enumerate(step.get("dependsOn", ())):
            if need not in ids:
                path = ("steps", index, "dependsOn", position)
                yield _finding(path, reasons.UNKNOWN_STEP, "is the id of no step here")
        for position, each in enumerate(step.get("job", {}).get("inputs", ())):
            if "step" in each and each["step"] not in ids:
                place = ("steps", index, "job", "inputs", position, "step")
                yield _finding(place, reasons.UNKNOWN_STEP, "is the id of no step here")
    for index in _on_cycles(steps):
        yield _finding(("steps", index), reasons.DEPENDENCY_CYCLE, "waits for itself, by the steps that it needs")


def _on_cycles(steps: list[Mapping[str, Any]]) -> list[int]:
    """The positions of steps that are reached from themselves."""
    needs = {step["id"]: needs_of(step) for step in steps}
    on_cycles = []
    for index, step in enumerate(steps):
        reached: set[str] = set()
        waiting = list(needs[step["id"]])
        while waiting:
            need = waiting.pop()
            if need not in reached:
                reached.add(need)
                waiting += needs.get(need, ())
        if step["id"] in reached:
            on_cycles.append(index)
    return on_cycles


def _step_findings(spec: Mapping[str, Any], index: int, step: Mapping[str, Any]) -> Iterator[Finding]:
    path: _Path = ("steps", index)
    if "forEach" in step and _parameter(spec, step["forEach"]).get("type") != "array":
        message = "must name a parameter of type array"
        yield _finding((*path, "forEach"), reasons.UNKNOWN_PARAMETER, message)
    if "job" in step and "escalation" not in step and "escalation" not in spec:
        message = "is required here or for all steps: rules, or [] where nothing may be escalated"
        yield _finding((*path, "escalation"), reasons.NO_ESCALATION, message)
    yield from _rule_findings(path, step.get("escalation"))
    for position, sink in enumerate(step.get("authority", {}).get("sinks", ())):
        if not _SINK.fullmatch(sink):
            message = "must be a gate and the role of an output, like depotgate/output or depotgate/supporting"
            yield _finding((*path, "authority", "sinks", position), reasons.INVALID_SINK, message)
    yield from _job_findings(path, step.get("job", {}))
    plan = step.get("plan")
    if plan is not None and (problem := size_problem(plan.get("parameters", {}))) is not None:
        yield _finding((*path, "plan", "parameters"), reasons.TOO_LARGE, problem)
    for inner, text in _texts_of(step):
        problem = _reference_problem(spec, step, text)
        if problem is not None:
            yield _finding((*path, *inner), reasons.UNKNOWN_PARAMETER, problem)


def _job_findings(path: _Path, job: Mapping[str, Any]) -> Iterator[Finding]:
    if len(job.get("instruction", "").encode()) > _INSTRUCTION_BYTES:
        message = f"is longer than {_INSTRUCTION_BYTES // 1024} KiB"
        yield _finding((*path, "job", "instruction"), reasons.TOO_LARGE, message)
    if (problem := size_problem(job.get("settings", {}), MOST_SETTINGS_BYTES)) is not None:
        yield _finding((*path, "job", "settings"), reasons.TOO_LARGE, problem)
    if "schema" in job.get("output", {}):
        yield from _schema_findings((*path, "job", "output", "schema"), job["output"]["schema"])
    names: set[str] = set()
    for position, each in enumerate(job.get("inputs", ())):
        place = (*path, "job", "inputs", position)
        if each["name"] in names:
            yield _finding((*place, "name"), reasons.DUPLICATE, "is the name of another input")
        names.add(each["name"])
        pointer = each.get("pointer")
        if pointer is not None and not REFERENCE.search(pointer) and (problem := pointer_problem(pointer)) is not None:
            yield _finding((*place, "pointer"), reasons.INVALID_POINTER, problem)
        if "value" in each and (problem := size_problem(each["value"])) is not None:
            yield _finding((*place, "value"), reasons.TOO_LARGE, problem)


def _texts_of(step: Mapping[str, Any]) -> Iterator[tuple[_Path, str]]:
    """Every text in which `${…}` is replaced, with its path from the step."""
    job, plan = step.get("job", {}), step.get("plan", {})
    for position, each in enumerate(job.get("inputs", ())):
        for name in ("pointer", "value"):
            yield from _texts(("job", "inputs", position, name), each.get(name))
    yield from _texts(("job", "settings"), job.get("settings"))
    yield from _texts(("plan", "parameters"), plan.get("parameters"))


def _texts(path: _Path, value: Any) -> Iterator[tuple[_Path, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _texts((*path, key), member)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _texts((*path, index), item)


def _reference_problem(spec: Mapping[str, Any], step: Mapping[str, Any], text: str) -> str | None:
    if not REFERENCE.search(text):
        return None
    whole = REFERENCE.fullmatch(text)
    if whole is None:
        return "stands for a whole value: nothing is put together with the text around it"
    if whole[1] is None:
        return None if "forEach" in step else "is the item of forEach, which this step has not"
    return None if _parameter(spec, whole[1]) else "names no declared parameter"


def _parameter(spec: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The schema of a parameter; empty where there is none. A schema of no type is not empty: it has one member."""
    schema = spec.get("parameters")
    properties = schema.get("properties") if isinstance(schema, dict) else None
    member = properties.get(name) if isinstance(properties, dict) else None
    return {"declared": True, **member} if isinstance(member, dict) else {}
