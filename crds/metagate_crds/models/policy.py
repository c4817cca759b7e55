"""PolicyProfile: the ruleset of an admission boundary (INV-100, INV-101, INV-103)."""

from typing import Annotated, Literal, TypeVar

from pydantic import Field, field_validator

from metagate_crds import reasons
from metagate_crds.models.spec import AsSet, Distinct, Duration, Endpoint, Line, Spec, Word, by_key, refuse

T = TypeVar("T")

Count = Annotated[int, Field(ge=0, le=1_000_000_000)]
Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Globs = Annotated[list[Line], Field(max_length=256, json_schema_extra=AsSet), Distinct]


class AncestorWindow(Spec):
    """How often a capability may occur among the nearest ancestors."""

    size: Annotated[int, Field(ge=1, le=1024)] = Field(description="How many ancestors are looked at.")
    max_repeats: Count = Field(description="How often the capability may occur among them.")


class Limits(Spec):
    """Hard limits. Only the depth is mandatory."""

    max_spawn_depth: Annotated[int, Field(ge=0, le=1024)] = Field(description="The root has depth 0.")
    max_total_descendants: Count | None = Field(default=None, description="Per root; not applied when absent.")
    max_repeats_per_capability: Count | None = Field(default=None, description="Per root; not applied when absent.")
    ancestor_window: AncestorWindow | None = Field(default=None, description="Not applied when absent.")


class Budget(Spec):
    """Recursion fuel."""

    required: bool = Field(default=False, description="Refuse requests that carry none.")
    initial: Count | None = Field(default=None, description="What a root starts with.")


class Rule(Spec):
    """One invariant as a CEL expression over the request."""

    name: Word = Field(description="What receipts call it.")
    cel: Annotated[str, Field(min_length=1, max_length=4096)] = Field(description="Must be true.")
    message: Line | None = Field(default=None, description="Said when it is not.")


class Invariants(Spec):
    """Further checks; each binds only when set."""

    can_spawn: bool | None = Field(default=None, description="Whether spawning is allowed at all.")
    allowed_targets: Globs | None = Field(default=None, description="Targets that may be named.")
    max_artifact_bytes: Count | None = Field(default=None, description="The largest artifact that may be declared.")
    rules: Annotated[list[Rule], Field(max_length=64, json_schema_extra=by_key("name"))] = Field(
        default_factory=list, description="CEL rules."
    )

    @field_validator("rules")
    @classmethod
    def _distinct_rules(cls, rules: list[Rule]) -> list[Rule]:
        return _distinct_by([rule.name for rule in rules], rules)


class CapabilityLists(Spec):
    """Which capabilities may be asked for; deny wins."""

    allow: Globs = Field(default_factory=list, description="Names or globs.")
    deny: Globs = Field(default_factory=list, description="Names or globs.")


class RateLimit(Spec):
    """A token bucket per principal."""

    requests: Positive = Field(description="How many.")
    per: Duration = Field(description="In which time.")
    burst: Positive | None = Field(default=None, description="How many at once.")


class Target(Spec):
    """A place to forward to: static configuration, never from a request."""

    name: Word = Field(description="What rules and receipts call it.")
    url: Endpoint = Field(description="Where it is.")


class Surface(Spec):
    """One door of this domain."""

    surface_id: Word = Field(description="What envelopes call it.")
    kind: Literal["Internal", "McpGateway"] = Field(default="Internal", description="What stands behind it.")
    principals: Globs = Field(default_factory=list, description="Who may use it; `*` any, nobody by default.")
    capabilities: CapabilityLists = Field(default_factory=CapabilityLists, description="What may be asked for.")
    rate_limit: RateLimit | None = Field(default=None, description="Not applied when absent.")
    targets: Annotated[list[Target], Field(max_length=64, json_schema_extra=by_key("name"))] = Field(
        default_factory=list, description="Where to forward."
    )
    sync_timeout_ms: Annotated[int, Field(ge=1, le=600_000)] | None = Field(
        default=None, description="After this, an answer becomes asynchronous."
    )
    force_async: Globs = Field(default_factory=list, description="Capabilities that are always asynchronous.")
    estimated_duration_threshold_ms: Annotated[int, Field(ge=1, le=86_400_000)] | None = Field(
        default=None, description="Expected to take longer: asynchronous at once."
    )

    @field_validator("targets")
    @classmethod
    def _distinct_targets(cls, targets: list[Target]) -> list[Target]:
        return _distinct_by([target.name for target in targets], targets)


class PolicyProfileSpec(Spec):
    """The ruleset of an admission boundary."""

    limits: Limits = Field(description="Hard limits.")
    budget: Budget = Field(default_factory=Budget, description="Recursion fuel.")
    invariants: Invariants = Field(default_factory=Invariants, description="Further checks.")
    surfaces: Annotated[list[Surface], Field(max_length=64, json_schema_extra=by_key("surfaceId"))] = Field(
        default_factory=list, description="The doors."
    )

    @field_validator("surfaces")
    @classmethod
    def _distinct_surfaces(cls, surfaces: list[Surface]) -> list[Surface]:
        return _distinct_by([surface.surface_id for surface in surfaces], surfaces)


def _distinct_by(names: list[str], items: list[T]) -> list[T]:
    if len(set(names)) != len(names):
        raise refuse(reasons.DUPLICATE, "has the same name twice")
    return items
