"""PlanTemplate: a plan that people declare once and callers ask for by its capability (DELEGATE.md §2).

What a template says of its own steps beyond the types and bounds of its fields is in `rules.plan_rules`.
"""

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from metagate_crds import reasons
from metagate_crds.models.spec import AsSet, Distinct, FreeForm, ObjectName, Reference, Spec, Word, by_key, refuse

MOST_STEPS: Final = 64
MOST_RULES: Final = 8

_CAPABILITY: Final = "^[a-z0-9][a-z0-9._-]{0,62}$"
_STEP_ID: Final = "^[a-z][a-z0-9-]{0,40}$"
_TOOL_GLOB: Final = "^[A-Za-z0-9*?][A-Za-z0-9*?._/-]{0,252}$"
_GATE: Final = "^[A-Za-z0-9][A-Za-z0-9._/-]{0,252}$"
_MEDIA_TYPE: Final = "^[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}/[A-Za-z0-9][A-Za-z0-9!#$&^_.+-]{0,126}$"
WANTED: Final = {
    _CAPABILITY: "lower-case letters, digits, ., _ and -, like document.summarise",
    _STEP_ID: "at most 41 lower-case letters, digits and -, beginning with a letter, like read",
    _TOOL_GLOB: "the name of a tool or a glob, like mail/send_*",
    _GATE: "a name like depotgate/output",
    _MEDIA_TYPE: "a media type, like text/markdown",
}
"""As `spec.WANTED`."""

Capability = Annotated[str, Field(min_length=1, max_length=63, pattern=_CAPABILITY)]
StepId = Annotated[str, Field(min_length=1, max_length=41, pattern=_STEP_ID)]
GateName = Annotated[str, Field(min_length=1, max_length=253, pattern=_GATE)]
_ANYTHING: Final = Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})


class EscalationRule(Spec):
    """Who takes over a step, and when."""

    on: Annotated[
        list[Literal["failure", "limit", "dependency"]],
        Field(min_length=1, max_length=3, json_schema_extra=AsSet),
        Distinct,
    ] = Field(
        description="When the rule holds: failure is an error of the work, limit is the end of what it may spend,"
        " dependency is a step before it that did not succeed."
    )
    escalation_class: Literal["owner", "capability", "trust", "policy", "scope", "other"] = Field(
        default="other", alias="class", description="What kind of help is needed, as receipts say it."
    )
    to: ObjectName = Field(description="The Principal that takes over. Example: operator-on-call.")


class JobInput(Spec):
    """One input of a job, from one of three places."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    # A field of any type is not seen by such a rule; the webhook and the operator judge it.
                    "rule": "!has(self.pointer) || !has(self.step)",
                    "message": "an input has exactly one of pointer, step and value",
                }
            ]
        }
    )

    name: Word = Field(description="The name under which the worker gets it. Example: document.")
    pointer: Annotated[str, Field(min_length=1, max_length=2048)] | None = Field(
        default=None,
        description="The address of an artifact, or ${parameters.name} or ${item} for one that the caller gives."
        " Example: ${item}.",
    )
    step: StepId | None = Field(
        default=None,
        description="The step whose artifact it is; this step then waits for that one. A step with forEach gives as"
        " many inputs as it has items. Example: read.",
    )
    value: Annotated[Any, _ANYTHING] = Field(
        default=None,
        description="The value itself, of at most 16 KiB as JSON, or ${parameters.name} or ${item} for one that the"
        " caller gives.",
    )
    max_bytes: Annotated[int, Field(ge=1, le=2**30)] = Field(
        default=2**20, description="The size in bytes of the largest artifact that is taken."
    )

    @model_validator(mode="after")
    def _one_source(self) -> "JobInput":
        if sum(source is not None for source in (self.pointer, self.step, self.value)) != 1:
            raise refuse(reasons.INVALID_FIELD, "must have exactly one of pointer, step and value")
        return self


class JobOutput(Spec):
    """What a job makes."""

    mime: Annotated[str, Field(min_length=3, max_length=255, pattern=_MEDIA_TYPE)] | None = Field(
        default=None, description="The media type of the output. Example: text/markdown."
    )
    max_bytes: Annotated[int, Field(ge=1, le=2**30)] | None = Field(
        default=None, description="The size in bytes of the largest output."
    )
    output_schema: FreeForm | None = Field(
        default=None,
        alias="schema",
        description="A schema that the output meets as JSON, of at most 8 KiB, with the keywords that parameters may"
        " use.",
    )


class Job(Spec):
    """The work of one step, as its worker reads it."""

    instruction: Annotated[str, Field(min_length=1, max_length=16_384)] | None = Field(
        default=None,
        description="What to do, in words. Nothing is replaced in it: what callers give reaches a model as data only.",
    )
    inputs: Annotated[list[JobInput], Field(max_length=64, json_schema_extra=by_key("name"))] | None = Field(
        default=None, description="What the work starts from, by name."
    )
    output: JobOutput | None = Field(default=None, description="What the work makes.")
    settings: FreeForm | None = Field(
        default=None,
        description="Settings of the worker's own, of at most 8 KiB, passed on as they are; ${parameters.name} and"
        " ${item} stand for whole values.",
    )


class SpawnLimit(Spec):
    """How many tasks may be opened."""

    max: Annotated[int, Field(ge=0, le=200)] = Field(
        description="The number of tasks that the work may open. Example: 4."
    )


class CognitionLimits(Spec):
    """What may be spent on models."""

    models: Annotated[list[GateName], Field(max_length=8, json_schema_extra=AsSet), Distinct] | None = Field(
        default=None, description="The models that may be asked, by the names that the Manifest gives them."
    )
    calls: Annotated[int, Field(ge=1, le=1_000)] | None = Field(
        default=None, description="How many times a model may be asked."
    )
    tokens: Annotated[int, Field(ge=1, le=10_000_000)] | None = Field(
        default=None, description="How many tokens may be used, those of questions and answers."
    )
    seconds: Annotated[int, Field(ge=1, le=7_200)] | None = Field(
        default=None, description="How many seconds the work may take."
    )


class StepAuthority(Spec):
    """What the work of a step may do beside its receipt. What is absent is denied."""

    spawn: SpawnLimit | None = Field(default=None, description="How many tasks the work may open.")
    invoke_cognigate: bool | None = Field(default=None, description="Whether CogniGate may do the work.")
    expose_tools: (
        Annotated[
            list[Annotated[str, Field(min_length=1, max_length=253, pattern=_TOOL_GLOB)]],
            Field(max_length=64, json_schema_extra=AsSet),
            Distinct,
        ]
        | None
    ) = Field(default=None, description="The tools that may be called: Problemata and tool, or globs like mail/*.")
    write_beyond_receipts: bool | None = Field(
        default=None, description="Whether the work may write anything beside receipts, like an artifact."
    )
    max_depth: Annotated[int, Field(ge=0, le=1024)] | None = Field(
        default=None, description="How deep below the first task the work may open tasks."
    )
    asyncgates: Annotated[list[GateName], Field(max_length=8, json_schema_extra=AsSet), Distinct] | None = Field(
        default=None, description="The AsyncGates that tasks may be given to."
    )
    sinks: Annotated[list[GateName], Field(max_length=8, json_schema_extra=AsSet), Distinct] | None = Field(
        default=None, description="Where outputs may go: a gate and a role. Example: depotgate/output."
    )
    cognition: CognitionLimits | None = Field(default=None, description="What may be spent on models.")


class SubPlan(Spec):
    """Another template that stands in place of the step."""

    template_ref: Reference = Field(description="The PlanTemplate whose steps take the place of this one.")
    parameters: FreeForm | None = Field(
        default=None,
        description="Its parameters, of at most 16 KiB; ${parameters.name} and ${item} stand for whole values.",
    )


class PlanStep(Spec):
    """A task, or a plan within the plan."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.plan) ? !has(self.capability) && !has(self.job)"
                    " : has(self.capability) && has(self.job)",
                    "message": "a step has capability and job, or plan",
                }
            ]
        }
    )

    id: StepId = Field(description="The name of the step in this plan. Example: read.")
    for_each: Annotated[str, Field(min_length=1, max_length=253)] | None = Field(
        default=None,
        description="A parameter of type array: each item makes one step, id-0, id-1 and on. Example: documents.",
    )
    depends_on: Annotated[list[StepId], Field(max_length=64, json_schema_extra=AsSet), Distinct] | None = Field(
        default=None,
        description="The steps that must be over before this one; those whose artifacts are inputs need not be named.",
    )
    capability: Capability | None = Field(
        default=None, description="The mailbox in which a worker finds the task. Example: document.summarise."
    )
    job: Job | None = Field(default=None, description="The work of the task.")
    plan: SubPlan | None = Field(default=None, description="Another template in place of a task.")
    escalation: Annotated[list[EscalationRule], Field(max_length=MOST_RULES)] | None = Field(
        default=None,
        description="Who takes over and when. When absent, the rules for all steps; an empty list permits nobody.",
    )
    authority: StepAuthority | None = Field(
        default=None,
        description="What the work may do beside its receipt. It grants nothing that admission and ceilings do not.",
    )

    @model_validator(mode="after")
    def _task_or_plan(self) -> "PlanStep":
        work = self.capability is not None and self.job is not None and self.plan is None
        if not work and (self.plan is None or self.capability is not None or self.job is not None):
            raise refuse(reasons.INVALID_FIELD, "must have capability and job, or plan")
        return self


class PlanTemplateSpec(Spec):
    """A plan that callers ask for by its capability, with parameters."""

    capability: Capability = Field(
        description="The name by which callers ask for this plan; one template of a namespace has it, the oldest."
        " Example: review."
    )
    parameters: FreeForm | None = Field(
        default=None,
        description="The JSON Schema of what callers give, of type object and at most 8 KiB. It knows type, properties,"
        " required, items, enum, const, lengths and bounds, additionalProperties, title and description. When absent,"
        " callers give nothing.",
    )
    dispatch: Literal["Now", "Held"] = Field(
        default="Now", description="Whether the tasks are handed out at once, or when the approver approved the plan."
    )
    approver: ObjectName | None = Field(
        default=None, description="The Principal that approves each plan; required with dispatch: Held, else absent."
    )
    escalate_to: ObjectName | None = Field(
        default=None,
        description="The Principal that takes over a plan that cannot be made or handed out. When absent, the one that"
        " asked for it.",
    )
    escalation: Annotated[list[EscalationRule], Field(max_length=MOST_RULES)] | None = Field(
        default=None, description="Who takes over steps without rules of their own; an empty list permits nobody."
    )
    result: StepId | None = Field(
        default=None, description="The step whose artifact is the plan's result. Example: merge."
    )
    deadline_seconds: Annotated[int, Field(ge=1, le=31_536_000)] | None = Field(
        default=None, description="How many seconds a plan is expected to take at most, as it says itself."
    )
    steps: Annotated[list[PlanStep], Field(min_length=1, max_length=MOST_STEPS, json_schema_extra=by_key("id"))] = (
        Field(description="What is to be done. The order is that of their needs.")
    )

    @field_validator("capability")
    @classmethod
    def _own_capability(cls, capability: str) -> str:
        if capability in {"plan.submit", "plan.close"}:
            raise refuse(reasons.INVALID_FIELD, "must be another: this one is DeleGate's own")
        return capability
