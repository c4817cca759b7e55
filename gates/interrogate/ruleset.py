"""A PolicyProfile in the form in which requests are decided by it: sets, numbers and compiled rules.

The body is the normalized spec that MetaGate serves: its defaults are filled in and its fields were judged when it was
declared. It is read once for each revision of a profile; a request only looks things up here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from interrogate.envelope import Envelope
from metagate_crds.canonical_json import canonical
from metagate_crds.models.spec import milliseconds
from metagate_crds.rules.cel_rules import CelRule, CelVariables, RuleFailure, compile_rule
from metagate_crds.rules.cel_source import RuleRefused

SEPARATOR: Final = "/"
"""Between the parts of a rate key. No name of a profile, a surface, a principal or a rate contains it."""

TOOL_TIMEOUT_MS: Final = 30_000
"""How long a tool may take whose target declares no `timeoutMs`."""
TOOL_RESULT_BYTES: Final = 1_048_576
"""How large a result may be where the target declares no `maxResultBytes`."""


@dataclass(frozen=True, slots=True)
class GlobSet:
    """Names and `prefix*` patterns (D-16). An empty set admits nothing."""

    names: frozenset[str]
    prefixes: tuple[str, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> GlobSet:
        listed = tuple(patterns)
        return cls(
            frozenset(pattern for pattern in listed if not pattern.endswith("*")),
            tuple(pattern[:-1] for pattern in listed if pattern.endswith("*")),
        )

    def matches(self, name: str) -> bool:
        return name in self.names or name.startswith(self.prefixes)


@dataclass(frozen=True, slots=True)
class RateRule:
    """A rate in the terms of GCRA (IG-11). `name` is empty for the surface's `rateLimit`."""

    name: str
    capabilities: GlobSet | None
    """None: every request counts, also one that names no capability."""
    interval: int
    """Microseconds between two requests at the full rate."""
    tolerance: int
    """How far the theoretical arrival time may lie ahead of the clock, this request included (µs)."""

    @classmethod
    def of(cls, limit: Mapping[str, Any]) -> RateRule:
        requests = limit["requests"]
        # Rounded up: a rate is never faster than declared.
        interval = -(-milliseconds(limit["per"]) * 1000 // requests)
        capabilities = limit.get("capabilities")
        return cls(
            name=limit.get("name", ""),
            capabilities=None if capabilities is None else GlobSet.of(capabilities),
            interval=interval,
            tolerance=interval * (limit.get("burst") or requests),
        )

    def matches(self, capability_id: str | None) -> bool:
        if self.capabilities is None:
            return True
        return capability_id is not None and self.capabilities.matches(capability_id)


@dataclass(frozen=True, slots=True)
class TargetRule:
    """A target as declared. Only `Http` targets with `forward` are called after an admission (IG-09)."""

    name: str
    url: str
    kind: str = "Http"
    forward: bool = True
    audience: str | None = None
    timeout_ms: int | None = None
    secret_ref: str | None = None
    """The file among the credentials of the tenant's namespace that is sent as Bearer (GW-16)."""
    max_result_bytes: int | None = None
    """Of an MCP server's result; None: the gate's default."""

    @property
    def is_called(self) -> bool:
        return self.forward and self.kind == "Http"

    @property
    def tool_timeout_ms(self) -> int:
        """Within which a tool of this target must have answered (GW-11)."""
        return TOOL_TIMEOUT_MS if self.timeout_ms is None else self.timeout_ms

    @property
    def tool_result_bytes(self) -> int:
        return TOOL_RESULT_BYTES if self.max_result_bytes is None else self.max_result_bytes

    @classmethod
    def of(cls, target: Mapping[str, Any]) -> TargetRule:
        return cls(
            name=target["name"],
            url=target["url"],
            kind=target.get("kind", "Http"),
            forward=target.get("forward", True),
            audience=target.get("audience"),
            timeout_ms=target.get("timeoutMs"),
            secret_ref=target.get("secretRef"),
            max_result_bytes=target.get("maxResultBytes"),
        )


@dataclass(frozen=True, slots=True)
class SurfaceRules:
    """The rules of one surface of a profile."""

    surface_id: str
    principals: GlobSet
    may_begin: GlobSet
    checks_custody: bool
    """Whether only the custodian of a parent may add to it (`parentage: Custodian`)."""
    allowed_capabilities: GlobSet
    denied_capabilities: GlobSet
    rates: tuple[RateRule, ...]
    targets: Mapping[str, TargetRule]
    open_targets: tuple[str, ...]
    """The targets of a request that names none: those of the surface that `allowedTargets` admits."""
    escalate_to: str | None
    sync_timeout_ms: int | None
    """How long a caller of the MCP gateway waits for an outcome by the ledger; None: not at all (GW-06)."""
    forced_async: GlobSet
    """The capabilities that the MCP gateway always answers asynchronously."""
    async_threshold_ms: int | None
    """A request that is expected to take so long or longer is answered asynchronously."""

    @classmethod
    def of(cls, surface: Mapping[str, Any], allowed_targets: GlobSet | None) -> SurfaceRules:
        capabilities = surface.get("capabilities", {})
        limits = [surface["rateLimit"]] if surface.get("rateLimit") else []
        targets = {target["name"]: TargetRule.of(target) for target in surface.get("targets", ())}
        return cls(
            surface_id=surface["surfaceId"],
            principals=GlobSet.of(surface.get("principals", ())),
            may_begin=GlobSet.of(surface.get("mayBegin", ())),
            checks_custody=surface.get("parentage", "Custodian") == "Custodian",
            allowed_capabilities=GlobSet.of(capabilities.get("allow", ())),
            denied_capabilities=GlobSet.of(capabilities.get("deny", ())),
            rates=tuple(RateRule.of(limit) for limit in (*limits, *surface.get("rateLimits", ()))),
            targets=targets,
            open_targets=tuple(name for name in targets if allowed_targets is None or allowed_targets.matches(name)),
            escalate_to=surface.get("escalateTo"),
            sync_timeout_ms=surface.get("syncTimeoutMs"),
            forced_async=GlobSet.of(surface.get("forceAsync", ())),
            async_threshold_ms=surface.get("estimatedDurationThresholdMs"),
        )

    def rates_of(self, capability_id: str | None) -> Sequence[RateRule]:
        """The rates that count a request for this capability, in the order of their keys."""
        return [rate for rate in self.rates if rate.matches(capability_id)]


@dataclass(frozen=True, slots=True)
class InvariantRule:
    """A CEL rule. `compiled` is None where the expression is refused: nothing passes such a rule."""

    name: str
    message: str
    source: str
    compiled: CelRule | None

    @classmethod
    def of(cls, rule: Mapping[str, Any]) -> InvariantRule:
        name, source = rule["name"], rule["cel"]
        try:
            compiled = compile_rule(source)
        except RuleRefused:
            # A profile that was declared before expressions were judged. To let everything pass would be worse.
            compiled = None
        return cls(name, rule.get("message") or f"the rule {name} does not hold", source, compiled)

    @property
    def reads_payload(self) -> bool:
        return self.compiled is not None and self.compiled.reads_payload

    def evaluate(self, variables: CelVariables) -> bool | RuleFailure:
        return RuleFailure("is refused") if self.compiled is None else self.compiled.evaluate(variables)


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The rules of one revision of a PolicyProfile."""

    profile: str
    policy_hash: str
    revision: int
    canonical_body: str
    """RFC 8785 of the normalized spec: what `policy_hash` is the digest of."""
    max_depth: int
    max_descendants: int | None
    max_repeats: int | None
    window_size: int
    """How many ancestors are looked at; 0: none."""
    window_repeats: int
    budget_required: bool
    initial_budget: int | None
    can_spawn: bool
    lease_required: bool
    allowed_targets: GlobSet | None
    max_artifact_bytes: int | None
    rules: tuple[InvariantRule, ...]
    surfaces: Mapping[str, SurfaceRules]
    shadow_profile: str | None
    """The name of the profile that is only compared with this one."""
    shadow: Ruleset | None = None

    @classmethod
    def from_policy(
        cls, body: Mapping[str, Any], *, profile: str, policy_hash: str, revision: int, shadow: Ruleset | None = None
    ) -> Ruleset:
        """The rules of a normalized spec. Raises KeyError, TypeError or ValueError for what is none."""
        limits, budget, invariants = body["limits"], body.get("budget", {}), body.get("invariants", {})
        window = limits.get("ancestorWindow") or {"size": 0, "maxRepeats": 0}
        allowed = invariants.get("allowedTargets")
        allowed_targets = None if allowed is None else GlobSet.of(allowed)
        return cls(
            profile=profile,
            policy_hash=policy_hash,
            revision=revision,
            canonical_body=canonical(body).decode(),
            max_depth=limits["maxSpawnDepth"],
            max_descendants=limits.get("maxTotalDescendants"),
            max_repeats=limits.get("maxRepeatsPerCapability"),
            window_size=window["size"],
            window_repeats=window["maxRepeats"],
            budget_required=budget.get("required", False),
            initial_budget=budget.get("initial"),
            can_spawn=invariants.get("canSpawn", True),
            lease_required=invariants.get("leaseAuthority", "Optional") == "Required",
            allowed_targets=allowed_targets,
            max_artifact_bytes=invariants.get("maxArtifactBytes"),
            rules=tuple(InvariantRule.of(rule) for rule in invariants.get("rules", ())),
            surfaces={
                surface["surfaceId"]: SurfaceRules.of(surface, allowed_targets) for surface in body.get("surfaces", ())
            },
            shadow_profile=body.get("shadow", {}).get("policyProfileRef", {}).get("name"),
            shadow=shadow,
        )

    def rate_keys(self, surface_id: str, principal_key: str, capability_id: str | None) -> tuple[str, ...]:
        """The keys under which the rates that count this request are stored, in the order of `Observed.rate_tats`."""
        surface = self.surfaces.get(surface_id)
        if surface is None or not surface.rates:
            return ()
        stem = SEPARATOR.join((self.profile, surface_id, principal_key))
        return tuple(f"{stem}{SEPARATOR}{rate.name}" if rate.name else stem for rate in surface.rates_of(capability_id))

    def rate_keys_of(self, envelope: Envelope, principal_key: str) -> tuple[str, ...]:
        return self.rate_keys(envelope.surface_id, principal_key, envelope.capability_id)
