"""PolicyProfile: the ruleset of an admission boundary (INV-100, INV-101, INV-103)."""

import re
from typing import Annotated, Final, Literal, TypeVar

from pydantic import Field, field_validator

from metagate_crds import reasons
from metagate_crds.models.spec import (
    DNS_NAME,
    AsSet,
    Distinct,
    Duration,
    HttpUrl,
    Line,
    Reference,
    Spec,
    Word,
    by_key,
    narrowed,
    refuse,
)
from metagate_crds.rules.cel_rules import compile_rule
from metagate_crds.rules.cel_source import LONGEST_SOURCE, RuleRefused

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]

LARGEST_WINDOW: Final = 64
"""Each admitted task remembers as many ancestors (`AncestorWindow.size`)."""
MOST_RULES: Final = 16
GATE_EMITTERS: Final = ("svc:asyncgate", "svc:depotgate", "svc:interrogate")
"""The gates that receipts may be addressed to, beside principals."""
_RECIPIENT: Final = f"^({'|'.join(GATE_EMITTERS)}|{DNS_NAME[1:-1]})$"


def _check_window(size: int) -> None:
    if size > LARGEST_WINDOW:
        raise refuse(reasons.INVALID_FIELD, f"must be less than or equal to {LARGEST_WINDOW}")


def _check_rule(source: str) -> None:
    try:
        compile_rule(source)
    except RuleRefused as refused:
        raise refuse(reasons.RULE_REFUSED, refused.reason) from refused


def _check_rule_count(rules: list[T]) -> None:
    if len(rules) > MOST_RULES:
        raise refuse(reasons.INVALID_FIELD, f"must have at most {MOST_RULES} items")


_GLOB: Final = "^[^*\\x00-\\x1f\\x7f]*([^*\\x00-\\x20\\x7f]|[*])$"
WANTED: Final = {
    _RECIPIENT: f"the name of a Principal, or one of {', '.join(GATE_EMITTERS)}",
    _GLOB: "a name, the beginning of one with * behind it, or *",
}
"""As `spec.WANTED`."""


def _check_glob(glob: str) -> None:
    # A boundary that compares beginnings would take `*.delete` for a name, and so deny nothing by it.
    if not re.fullmatch(_GLOB, glob):
        raise refuse(reasons.INVALID_PATTERN, f"must be {WANTED[_GLOB]}")


Glob = Annotated[Line, Field(json_schema_extra={"pattern": _GLOB}), narrowed(_check_glob)]
Globs = Annotated[list[Glob], Field(max_length=256, json_schema_extra=AsSet), Distinct]


class AncestorWindow(Spec):
    """How often a capability may occur among the nearest ancestors of a request."""

    size: Annotated[
        int, Field(ge=1, le=1024, json_schema_extra={"maximum": LARGEST_WINDOW}), narrowed(_check_window)
    ] = Field(description="The number of nearest ancestors that are counted. Example: 8.")
    max_repeats: Count = Field(
        description="How often the requested capability may occur among them; one more is rejected."
    )


class TreeLimits(Spec):
    """Hard limits of every tree of requests. Only the depth is mandatory."""

    max_spawn_depth: Annotated[int, Field(ge=0, le=1024)] = Field(
        description="The greatest depth of a request in its tree, where the root has depth 0. Deeper ones are rejected."
    )
    max_total_descendants: Count | None = Field(
        default=None,
        description="The greatest number of requests below one root. When it is absent no such limit applies, and the"
        " object has a warning, because a budget and a depth bound each branch and not the whole tree.",
    )
    max_repeats_per_capability: Count | None = Field(
        default=None,
        description="How often one capability may be requested below one root. Unlimited when it is absent.",
    )
    ancestor_window: AncestorWindow | None = Field(
        default=None,
        description="How often a capability may repeat among the nearest ancestors. Unlimited when it is absent.",
    )


class Budget(Spec):
    """A budget that a root request starts with and that every request below it uses up."""

    required: bool = Field(default=False, description="Whether requests without a budget are rejected.")
    initial: Count | None = Field(
        default=None, description="The budget that a root request starts with, counted in requests. Example: 32."
    )


class Rule(Spec):
    """An expression that must hold for every request that is admitted."""

    name: Word = Field(description="The name under which receipts report this rule. Example: small-payload.")
    cel: Annotated[
        str,
        Field(min_length=1, max_length=4096, json_schema_extra={"maxLength": LONGEST_SOURCE}),
        narrowed(_check_rule),
    ] = Field(
        description="A CEL expression over payload, request, caller and observed. A request is rejected unless it is"
        " true. Example: payload.items.all(item, item.amount <= 100)."
    )
    message: Line | None = Field(
        default=None,
        description="What the caller is told when the rule rejects a request. When absent, the name of the rule.",
    )


class Invariants(Spec):
    """Further checks of every request. Each applies only when it is set."""

    can_spawn: bool | None = Field(
        default=None,
        description="Whether requests may begin or continue work. When false, all are rejected but leases, queries and"
        " tool calls.",
    )
    allowed_targets: Globs | None = Field(
        default=None, description="The targets that requests may name: names, or globs like doc.*. When absent, any."
    )
    max_artifact_bytes: Count | None = Field(
        default=None,
        description="The size in bytes of the largest artifact that a request may declare. Example: 1048576.",
    )
    lease_authority: Literal["Optional", "Required"] | None = Field(
        default=None,
        description="Whether workers, services and components must act under a lease. With Required, what they request"
        " without one is rejected unless it is a query. When absent, Optional.",
    )
    rules: Annotated[
        list[Rule],
        Field(max_length=64, json_schema_extra={**by_key("name"), "maxItems": MOST_RULES}),
        narrowed(_check_rule_count),
    ] = Field(default_factory=list, description="Expressions that must all be true for a request to be admitted.")

    @field_validator("rules")
    @classmethod
    def _distinct_rules(cls, rules: list[Rule]) -> list[Rule]:
        return _distinct_by([rule.name for rule in rules], rules)


class CapabilityLists(Spec):
    """Which capabilities may be requested. What is on both lists is denied."""

    allow: Globs = Field(
        default_factory=list,
        description="The capabilities that may be requested: names, or globs like doc.*. An empty list allows none.",
    )
    deny: Globs = Field(
        default_factory=list,
        description="The capabilities that are denied although allow lists them: names, or globs like doc.*.",
    )


class RateLimit(Spec):
    """How many requests each principal may make in a time."""

    requests: Positive = Field(
        description="The number of requests that one principal may make in the time of per. Example: 100."
    )
    per: Duration = Field(
        description="The time in which that many requests are admitted, as a duration. Examples: 1s, 1m."
    )
    burst: Positive | None = Field(
        default=None,
        description="How many requests may come at once before the rate applies. When absent, as many as requests.",
    )


class CapabilityRate(RateLimit):
    """A rate of its own for some capabilities, beside the rate of the surface."""

    name: Word = Field(description="The name of this limit; its count goes on when the rest of it changes.")
    capabilities: Globs = Field(
        description="The capabilities that share this rate: names, or globs like mail.*. An empty list limits none."
    )


class Target(Spec):
    """A service that admitted requests are forwarded to. Requests name it and never bring an address."""

    name: Word = Field(description="The name under which rules and receipts refer to this target. Example: delegate.")
    url: HttpUrl = Field(
        description="The absolute http or https URL that requests are forwarded to, without user info. A host without a"
        " dot is a service of this namespace. Example: http://delegate:8004/plans."
    )
    kind: Literal["Http", "Mcp"] | None = Field(
        default=None,
        description="What answers at the URL: Http takes the payload by POST, Mcp is an MCP server. When absent, Http.",
    )
    forward: bool | None = Field(
        default=None,
        description="Whether admitted requests are sent there; they are when it is absent. When false the target is"
        " named in the receipt and never called, because the caller goes there itself with the admission.",
    )
    audience: Line | None = Field(
        default=None,
        description="The audience of the token that the gate signs for this target. No token is sent when it is"
        " absent. Example: delegate.",
    )
    secret_ref: Word | None = Field(
        default=None,
        description="The name of the credential that the gate sends to this target, a file among the gate's credentials"
        " for this namespace. Never the credential itself. Example: mail-token.",
    )
    timeout_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        default=None,
        description="Milliseconds that the gate waits for the target's whole answer. When absent, as the gate is set.",
    )
    max_result_bytes: Annotated[int, Field(ge=1, le=4_194_304)] | None = Field(
        default=None,
        description="The size in bytes of the largest result that is taken from an MCP server. Example: 1048576.",
    )


class AdmissionSurface(Spec):
    """An entrance of the admission boundary, with rules of its own."""

    surface_id: Word = Field(description="The name by which requests choose this surface. Example: public.")
    kind: Literal["Internal", "McpGateway"] = Field(
        default="Internal",
        description="What is behind the surface: Internal is services of this deployment, McpGateway is MCP servers.",
    )
    principals: Globs = Field(
        default_factory=list,
        description="The principals that may use the surface: names, globs like team-*, or * for any."
        " An empty list admits none.",
    )
    capabilities: CapabilityLists = Field(
        default_factory=CapabilityLists, description="Which capabilities may be requested at this surface."
    )
    rate_limit: RateLimit | None = Field(
        default=None,
        description="How many requests each principal may make at this surface. Unlimited when it is absent.",
    )
    rate_limits: Annotated[list[CapabilityRate], Field(max_length=16, json_schema_extra=by_key("name"))] | None = Field(
        default=None,
        description="Further rates for some capabilities. A request must be within all that it matches.",
    )
    may_begin: Globs | None = Field(
        default=None,
        description="The principals that may begin a tree of requests here, beside those of type principal: names, or"
        " globs like team-*. When absent, nobody else.",
    )
    parentage: Literal["Custodian", "Tenant"] | None = Field(
        default=None,
        description="Whose tasks a request may name as its parent. With Custodian, those that the caller has custody of"
        " or a lease on; with Tenant, any task of this namespace. When absent, Custodian.",
    )
    escalate_to: Annotated[str, Field(min_length=1, max_length=253, pattern=_RECIPIENT)] | None = Field(
        default=None,
        description="The Principal or gate that is told when an admitted request could not be delivered. When absent,"
        " the caller. Examples: operator-on-call, svc:asyncgate.",
    )
    targets: Annotated[list[Target], Field(max_length=64, json_schema_extra=by_key("name"))] = Field(
        default_factory=list, description="The services that admitted requests may be forwarded to."
    )
    sync_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        default=None,
        description="Milliseconds that a caller waits for an answer; after that the request goes on asynchronously.",
    )
    force_async: Globs = Field(
        default_factory=list,
        description="The capabilities that are always answered asynchronously: names, or globs like doc.*.",
    )
    estimated_duration_threshold_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(
        default=None,
        description="Milliseconds; a request that is expected to take longer is made asynchronous at once.",
    )

    @field_validator("rate_limits")
    @classmethod
    def _distinct_rates(cls, rates: list[CapabilityRate] | None) -> list[CapabilityRate] | None:
        return None if rates is None else _distinct_by([rate.name for rate in rates], rates)

    @field_validator("targets")
    @classmethod
    def _distinct_targets(cls, targets: list[Target]) -> list[Target]:
        return _distinct_by([target.name for target in targets], targets)


class Shadow(Spec):
    """Another PolicyProfile that decides the same requests, is recorded, and never takes effect."""

    policy_profile_ref: Reference = Field(
        description="The PolicyProfile that would take the place of this one. What it would decide is recorded with"
        " each decision and counted where it differs; its own shadow is not asked."
    )


class PolicyProfileSpec(Spec):
    """The rules by which an admission boundary admits, rejects or forwards requests."""

    # Fields that came after the first release have no default here: the API server would fill it in for an operator of
    # the release before, which refuses what it does not know, and the hash of every PolicyProfile would change.

    limits: TreeLimits = Field(description="The hard limits of every tree of requests.")
    budget: Budget = Field(
        default_factory=Budget,
        description="The budget that requests use up, so that no tree of requests grows for ever.",
    )
    invariants: Invariants = Field(
        default_factory=Invariants, description="Further checks that every request must pass."
    )
    surfaces: Annotated[list[AdmissionSurface], Field(max_length=64, json_schema_extra=by_key("surfaceId"))] = Field(
        default_factory=list, description="The entrances of the boundary. A request names one of them."
    )

    shadow: Shadow | None = Field(
        default=None,
        description="Another PolicyProfile that decides the same requests without effect, to see what it would change.",
    )

    @field_validator("surfaces")
    @classmethod
    def _distinct_surfaces(cls, surfaces: list[AdmissionSurface]) -> list[AdmissionSurface]:
        return _distinct_by([surface.surface_id for surface in surfaces], surfaces)


def _distinct_by(names: list[str], items: list[T]) -> list[T]:
    if len(set(names)) != len(names):
        raise refuse(reasons.DUPLICATE, "has the same name twice")
    return items
