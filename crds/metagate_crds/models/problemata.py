"""Problemata: what agents may ask of one deployment, through an MCP gateway (INV-119)."""

import re
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, Field, field_validator, model_validator

from metagate_crds import reasons
from metagate_crds.canonical_json import canonical
from metagate_crds.models.spec import (
    LABEL,
    AsSet,
    Distinct,
    FreeForm,
    Line,
    ObjectName,
    Reference,
    Spec,
    Word,
    by_key,
    refuse,
)
from metagate_crds.rules.findings import Finding, Step, render_path
from metagate_crds.rules.json_schema import schema_problems

RESERVED_NAME: Final = "problemata"
"""The gate's own tools begin with it: `problemata.status`."""
LONGEST_LABEL: Final = 63
MOST_CAPABILITIES: Final = 128
CAPABILITY_BYTES: Final = 16 * 1024
CAPABILITIES_BYTES: Final = 192 * 1024
"""`kubectl apply` stores a spec a second time in an annotation, of which Kubernetes takes 256 KiB."""
LONGEST_TOOL_NAME: Final = 128
SAFE_TOOL_NAME: Final = 64
"""Some agents refuse a longer name."""

_TOOL_NAME: Final = f"^[A-Za-z0-9_.-]{{1,{LONGEST_TOOL_NAME}}}$"
_CAPABILITY: Final = "^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$"
_POINTER: Final = "^[A-Za-z0-9]([A-Za-z0-9._:/-]*[A-Za-z0-9])?$"
WANTED: Final = {
    _TOOL_NAME: f"1 to {LONGEST_TOOL_NAME} letters, digits, _, . and -, like send_email",
    _CAPABILITY: "letters, digits, _, . and -, beginning and ending with a letter or digit, like doc.review",
    _POINTER: "the name of a component or service, like delegate",
}
"""As `spec.WANTED`."""

# Nobody sees them on a screen, and a model reads them: controls but for the ends of lines and tabs, characters that
# turn the direction of text, and the tag characters.
_UNSEEN: Final = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\U000e0000-\U000e007f]")


class Gateway(Spec):
    """By which rules the requests of agents are admitted, and who runs the gateways."""

    policy_profile_ref: Reference = Field(
        description="The PolicyProfile that decides about every request to this Problemata."
    )
    surface_id: Word = Field(
        description="The surface of that PolicyProfile, of kind McpGateway, with at least one target. Example: mail."
    )
    principals: Annotated[list[ObjectName], Field(min_length=1, max_length=64, json_schema_extra=AsSet), Distinct] = (
        Field(
            description="The Principals that may announce instances of this Problemata: those of its gateways."
            " Example: mail-gateway."
        )
    )


class ToolDefinition(Spec):
    """A tool as its MCP server lists it. What is declared here is what agents are shown."""

    name: Annotated[str, Field(min_length=1, max_length=256)] = Field(
        description="The name of the tool at its MCP server. Example: send_email."
    )
    title: Annotated[str, Field(max_length=1024)] | None = Field(
        default=None, description="The name of the tool as people are shown it."
    )
    description: Annotated[str, Field(max_length=16_384)] | None = Field(
        default=None,
        description="What the tool does, for models to read. Calls are refused when the server changes it.",
    )
    input_schema: FreeForm = Field(
        description="The JSON Schema (2020-12) of the arguments, as the MCP server lists it."
    )
    output_schema: FreeForm | None = Field(
        default=None, description="The JSON Schema (2020-12) of the structured result, as the MCP server lists it."
    )
    annotations: FreeForm | None = Field(
        default=None,
        description="Hints of the MCP server about the tool, as it lists them. They are its claims and grant nothing.",
    )


class Tool(Spec):
    """A tool of an MCP server behind this Problemata, pinned to its definition."""

    target: Word = Field(description="The target of the surface, of kind Mcp, that has the tool. Example: mailserver.")
    idempotent: bool = Field(
        default=False,
        description="Whether a call may be sent once more when the connection broke. When false it never is.",
    )
    exposed_as: Annotated[str, Field(min_length=1, max_length=LONGEST_TOOL_NAME, pattern=_TOOL_NAME)] | None = Field(
        default=None,
        alias="as",
        description="The name under which agents see the tool, behind the name of the Problemata. When absent, the name"
        " of the definition. Needed when that has other characters than letters, digits, _, . and -.",
    )
    definition: ToolDefinition = Field(
        description="The definition of the tool that was reviewed. A call is refused while the server lists another."
    )


class Capability(Spec):
    """One thing that may be asked: a request that is forwarded, or a tool of an MCP server."""

    id: Annotated[str, Field(min_length=1, max_length=128, pattern=_CAPABILITY)] = Field(
        description="The name by which policies admit it and agents ask for it. Example: doc.review."
    )
    input_schema: FreeForm | None = Field(
        default=None,
        description="The JSON Schema (2020-12) that the input of a request must meet. When absent, any input. A tool"
        " has its own in its definition.",
    )
    estimated_duration_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(
        default=None,
        description="Milliseconds that a request is expected to take; the surface decides by it whether to answer at"
        " once.",
    )
    tool: Tool | None = Field(
        default=None,
        description="The tool that is called. When absent, requests are forwarded to the surface's targets.",
    )

    @model_validator(mode="after")
    def _one_schema(self) -> "Capability":
        if self.tool is not None and self.input_schema is not None:
            raise refuse(reasons.INVALID_FIELD, "must not have inputSchema beside tool, whose definition has one")
        return self


class Connection(Spec):
    """Who speaks to whom within the deployment, and what for."""

    source: Annotated[str, Field(min_length=1, max_length=128, pattern=_POINTER)] = Field(
        alias="from", description="The name of the component or service that begins. Example: gateway."
    )
    to: Annotated[str, Field(min_length=1, max_length=128, pattern=_POINTER)] = Field(
        description="The name of the component or service that is spoken to. Example: delegate."
    )
    purpose: Line | None = Field(default=None, description="What for, in one line. Example: plan.")


class ProblemataSpec(Spec):
    """What agents may ask of one deployment, and by which gateways."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "!has(self.capabilities) || self.capabilities.all(c, !has(c.tool) || !has(c.inputSchema))",
                    "message": "a capability with tool has its inputSchema in the tool's definition",
                }
            ]
        }
    )

    version: Word = Field(
        description="The version of what is declared here. Gateways announce it, and are refused with another."
        ' Example: "3".'
    )
    gateway: Gateway = Field(description="By which rules requests are admitted, and who runs the gateways.")
    payload_kind: Word = Field(
        description="The kind of payload that forwarded requests have; policies may read it. Example: plan_request."
    )
    expose_tools: bool = Field(
        default=False,
        description="Whether agents also see each tool under its own name, beside the four tools of every gateway.",
    )
    capabilities: Annotated[
        list[Capability], Field(min_length=1, max_length=MOST_CAPABILITIES, json_schema_extra=by_key("id"))
    ] = Field(description="What may be asked. Each must be admitted by the surface.")
    topology: Annotated[list[Connection], Field(max_length=64)] = Field(
        default_factory=list,
        description="Who speaks to whom behind the gateway. Names only: nothing here describes work, and no secret.",
    )

    @field_validator("capabilities")
    @classmethod
    def _distinct_capabilities(cls, capabilities: list[Capability]) -> list[Capability]:
        if len({capability.id for capability in capabilities}) != len(capabilities):
            raise refuse(reasons.DUPLICATE, "has the same id twice")
        return capabilities

    @field_validator("payload_kind")
    @classmethod
    def _forwarded_kind(cls, kind: str) -> str:
        if kind == "tool_call":
            raise refuse(reasons.INVALID_FIELD, "must not be tool_call, which is the kind of calls of tools")
        return kind


def name_findings(name: str) -> list[Finding]:
    """What is wrong with the object's own name."""
    if name == RESERVED_NAME or len(name) > LONGEST_LABEL or not re.fullmatch(LABEL, name):
        message = f"must be a DNS label of at most {LONGEST_LABEL} characters, and not {RESERVED_NAME}"
        return [Finding("metadata.name", reasons.NAME_REFUSED, message)]
    return []


def content_findings(spec: ProblemataSpec, name: str) -> list[Finding]:
    """What the schema of the kind cannot say of a spec that meets it; `name` is the object's, empty if not known."""
    findings = list(_size_findings(spec))
    for index, capability in enumerate(spec.capabilities):
        path: tuple[Step, ...] = ("capabilities", index)
        if capability.input_schema is not None:
            findings += _schema_findings((*path, "inputSchema"), capability.input_schema)
        if capability.tool is not None:
            definition = capability.tool.definition
            path = (*path, "tool", "definition")
            findings += _schema_findings((*path, "inputSchema"), definition.input_schema)
            if definition.output_schema is not None:
                findings += _schema_findings((*path, "outputSchema"), definition.output_schema)
            findings += unseen_findings(path, definition.declared())
    return findings + (_tool_name_findings(spec, name) if spec.expose_tools else [])


def exposed_names(body: dict[str, Any], name: str) -> Iterator[tuple[str, str]]:
    """The path of each tool that agents see, and the name under which they see it; `body` as `Spec.declared` has it."""
    for index, capability in enumerate(body["capabilities"] if body["exposeTools"] else ()):
        if (tool := capability.get("tool")) is not None:
            exposed = tool.get("as") or tool["definition"]["name"]
            yield f"spec.capabilities[{index}].tool", f"{name}.{exposed}"


def _size_findings(spec: ProblemataSpec) -> Iterator[Finding]:
    total = 0
    for index, capability in enumerate(spec.capabilities):
        size = len(canonical(capability.declared()))
        total += size + 1
        if size > CAPABILITY_BYTES:
            message = f"is larger than {CAPABILITY_BYTES} bytes"
            yield Finding(render_path(("capabilities", index)), reasons.TOO_LARGE, message)
    if total > CAPABILITIES_BYTES:
        yield Finding("spec.capabilities", reasons.TOO_LARGE, f"are larger than {CAPABILITIES_BYTES} bytes in all")


def _schema_findings(path: tuple[Step, ...], schema: dict[str, Any]) -> Iterator[Finding]:
    for inner, message in schema_problems(schema):
        yield Finding(render_path((*path, *inner)), reasons.SCHEMA_REFUSED, message)


def unseen_findings(path: tuple[Step, ...], value: Any) -> Iterator[Finding]:
    """Where a definition holds characters that nobody who reviews it sees, in its values and its members' names."""
    if isinstance(value, str) and _UNSEEN.search(value):
        message = "holds control, direction or tag characters, which nobody sees"
        yield Finding(render_path(path), reasons.INVALID_VALUE, message)
    elif isinstance(value, dict):
        for key, member in value.items():
            if _UNSEEN.search(key):
                message = "has a member whose name holds control, direction or tag characters, which nobody sees"
                yield Finding(render_path(path), reasons.INVALID_VALUE, message)
            yield from unseen_findings((*path, key), member)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from unseen_findings((*path, index), item)


def _tool_name_findings(spec: ProblemataSpec, name: str) -> list[Finding]:
    findings: list[Finding] = []
    seen: set[str] = set()
    for path, exposed in exposed_names(spec.declared(), name or "x"):
        if not re.fullmatch(_TOOL_NAME, exposed):
            message = f"is shown to agents under a name that is not {WANTED[_TOOL_NAME]}; declare another with `as`"
            findings.append(Finding(path, reasons.INVALID_FIELD, message))
        elif exposed in seen:
            findings.append(Finding(path, reasons.DUPLICATE, "has the name of another tool; declare another with `as`"))
        seen.add(exposed)
    return findings
