"""PolicyProfiles: what they may say, what they refer to, and what becomes of those of an earlier release."""

import pytest
from tests.unit.crds.worlds import POLICY, compiled, conditions_of, declared, last_good_of, rows, verdict_of, world

from metagate_crds import reasons
from metagate_crds.compile.compiler import compile_world
from metagate_crds.crd_yaml import crd_documents
from metagate_crds.objects import ObjectKey
from metagate_crds.plan.planner import make_plan
from metagate_crds.structural_schema import with_defaults
from metagate_crds.validation import parse_spec, validate

BOUNDED = {"limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 100}}
TARGET = {"name": "delegate", "url": "http://delegate:8004/plans"}


def surface(**fields):
    return {**BOUNDED, "surfaces": [{"surfaceId": "public", **fields}]}


def target(**fields):
    return surface(targets=[{**TARGET, **fields}])


def rule(cel):
    return {**BOUNDED, "invariants": {"rules": [{"name": "a", "cel": cel}]}}


def window(size):
    return {"limits": {"maxSpawnDepth": 5, "ancestorWindow": {"size": size, "maxRepeats": 1}}}


def findings(spec):
    return [(item.path, item.reason) for item in validate("PolicyProfile", spec)]


VALID = [
    surface(principals=["*"], capabilities={"allow": ["doc.*", "mail send", "x"], "deny": ["d*"]}),
    surface(mayBegin=["team-*"], parentage="Tenant", escalateTo="operator-on-call"),
    surface(escalateTo="svc:asyncgate"),
    surface(rateLimits=[{"name": "mail", "capabilities": ["mail.*"], "requests": 5, "per": "1h", "burst": 1}]),
    target(kind="Mcp", forward=False, audience="mail", secretRef="mail-token", timeoutMs=30000, maxResultBytes=1048576),
    target(url="https://user-service.example.com:8443/a/b?c=d&e=@x"),
    target(url="http://[::1]:80/"),
    {**BOUNDED, "shadow": {"policyProfileRef": {"name": "next"}}, "invariants": {"leaseAuthority": "Required"}},
    window(64),
    rule("payload.items.all(item, item.amount <= 100)"),
    {**BOUNDED, "invariants": {"rules": [{"name": f"r{n}", "cel": "true"} for n in range(16)]}},
]


@pytest.mark.parametrize("spec", VALID)
def test_what_the_boundary_needs_can_be_declared(spec):
    """Every field, with the values at its bounds."""
    assert findings(spec) == []


SURFACE = "spec.surfaces[0]"
INVALID = [
    (surface(parentage="Anybody"), f"{SURFACE}.parentage"),
    (surface(escalateTo="svc:nobody"), f"{SURFACE}.escalateTo"),
    (surface(escalateTo="Upper"), f"{SURFACE}.escalateTo"),
    (surface(rateLimits=[{"name": "a", "requests": 5, "per": "1h"}]), f"{SURFACE}.rateLimits[0].capabilities"),
    (
        surface(rateLimits=[{"name": "a", "capabilities": ["x"], "requests": 5, "per": "1h"}] * 2),
        f"{SURFACE}.rateLimits",
    ),
    (
        surface(rateLimits=[{"name": f"a{n}", "capabilities": ["x"], "requests": 1, "per": "1s"} for n in range(17)]),
        f"{SURFACE}.rateLimits",
    ),
    (surface(mayBegin="*"), f"{SURFACE}.mayBegin"),
    *(
        (surface(capabilities={"deny": [glob]}), f"{SURFACE}.capabilities.deny[0]")
        for glob in ("*.delete", "doc.*.delete", "**", "doc.* ", "doc*\n", "")
    ),
    (surface(principals=["*-team"]), f"{SURFACE}.principals[0]"),
    (target(kind="Grpc"), f"{SURFACE}.targets[0].kind"),
    (target(forward="no"), f"{SURFACE}.targets[0].forward"),
    (target(secretRef="../key"), f"{SURFACE}.targets[0].secretRef"),
    (target(timeoutMs=600_001), f"{SURFACE}.targets[0].timeoutMs"),
    (target(maxResultBytes=4_194_305), f"{SURFACE}.targets[0].maxResultBytes"),
    *(
        (target(url=url), f"{SURFACE}.targets[0].url")
        for url in (
            "delegate:8004",
            "//delegate/plans",
            "/plans",
            "ftp://delegate/plans",
            "http://",
            "http:///plans",
            "http://name:word@delegate/plans",
            "http://name@delegate/plans",
            "http://delegate/plans#part",
            "http://delegate:0/plans",
            "http://delegate:99999/plans",
            "http://delegate:x/plans",
            "http://dele gate/plans",
            "http://delegate\\@evil/plans",
        )
    ),
    ({**BOUNDED, "shadow": {}}, "spec.shadow.policyProfileRef"),
    (
        {**BOUNDED, "shadow": {"policyProfileRef": {"name": "n", "namespace": "other"}}},
        "spec.shadow.policyProfileRef.namespace",
    ),
    ({**BOUNDED, "invariants": {"leaseAuthority": "Never"}}, "spec.invariants.leaseAuthority"),
    (window(65), "spec.limits.ancestorWindow.size"),
    (
        {**BOUNDED, "invariants": {"rules": [{"name": f"r{n}", "cel": "true"} for n in range(17)]}},
        "spec.invariants.rules",
    ),
    (rule("true" + " " * 1021), "spec.invariants.rules[0].cel"),
]


@pytest.mark.parametrize(("spec", "path"), INVALID)
def test_what_is_out_of_bounds_is_refused_by_path(spec, path):
    """Exactly there, and nowhere else."""
    assert {item for item, _ in findings(spec)} == {path}


@pytest.mark.parametrize(
    "cel", ["payload.matches('x')", "payload.a.all(x, x.all(y, y))", "secret == 1", "payload +", "payload.a + 1 > 2"]
)
def test_a_rule_that_may_not_be_evaluated_is_refused_where_it_is_declared(cel):
    """Not when the first request comes."""
    assert findings(rule(cel)) == [("spec.invariants.rules[0].cel", reasons.RULE_REFUSED)]


def test_the_crd_has_the_narrower_bounds():
    """The API server refuses what the webhook would refuse, where a schema can say it."""
    (document,) = [item for item in crd_documents() if item["spec"]["names"]["kind"] == "PolicyProfile"]
    spec = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    rules = spec["invariants"]["properties"]["rules"]
    assert spec["limits"]["properties"]["ancestorWindow"]["properties"]["size"]["maximum"] == 64
    assert (rules["maxItems"], rules["items"]["properties"]["cel"]["maxLength"]) == (16, 1024)
    url = spec["surfaces"]["items"]["properties"]["targets"]["items"]["properties"]["url"]["pattern"]
    assert url.startswith("^https?://")


WIDE = {
    "limits": {"maxSpawnDepth": 5, "ancestorWindow": {"size": 1024, "maxRepeats": 1}},
    "invariants": {"rules": [{"name": f"r{n}", "cel": f"payload.x{n}.matches('a')" + " " * 2000} for n in range(64)]},
    "surfaces": [
        {"surfaceId": "public", "principals": ["*-team"], "targets": [{"name": "a", "url": "concierge:8000"}]}
    ],
}


def test_what_an_earlier_release_accepted_stays_served():
    """An upgrade narrows what may be declared, and takes away nothing that is served; status says what to change."""
    stored = declared("PolicyProfile", "p", WIDE)
    result = compiled(stored, last_good=last_good_of(stored))
    (row,) = rows(result, "policy_profile")
    assert row["body"]["limits"] == WIDE["limits"]
    assert [item["cel"] for item in row["body"]["invariants"]["rules"]] == [
        item["cel"] for item in WIDE["invariants"]["rules"]
    ]
    verdict = verdict_of(result, "PolicyProfile", "p")
    assert (verdict.generation, verdict.served_generation) == (1, 1)
    conditions = conditions_of(verdict)
    assert conditions["Ready"][0] == conditions["Accepted"][0] == "False"
    assert conditions["Compiled"] == ("False", reasons.LAST_GOOD_SERVED)
    assert verdict.uid not in result.good


def test_what_was_never_served_is_not_served_with_wider_bounds():
    """New objects have the bounds of this release; so has an update of an old one, whose last good version stays."""
    assert rows(compiled(declared("PolicyProfile", "p", WIDE)), "policy_profile") == []
    first = declared("PolicyProfile", "p", BOUNDED)
    result = compiled(declared("PolicyProfile", "p", WIDE, generation=2), last_good=last_good_of(first))
    (row,) = rows(result, "policy_profile")
    assert (row["generation"], row["body"]["limits"]) == (1, BOUNDED["limits"])


def test_only_narrowed_bounds_are_forgiven():
    """What no release accepted is no last good version either."""
    for spec in ({**WIDE, "limits": {"maxSpawnDepth": -1}}, {**WIDE, "unknown": 1}, window(1025), rule("x" * 4097)):
        assert parse_spec("PolicyProfile", spec, stored=True)[0] is None
    assert parse_spec("PolicyProfile", WIDE, stored=True)[1] == ()


REFERRING = {
    **surface(escalateTo="on-call"),
    "shadow": {"policyProfileRef": {"name": "next"}},
}


def test_references_are_reported_and_stand_in_the_way_of_nothing():
    """A boundary without rules would admit nothing, so they are served while what they name does not exist."""
    result = compiled(declared("PolicyProfile", "p", REFERRING))
    verdict = verdict_of(result, "PolicyProfile", "p")
    conditions = conditions_of(verdict)
    assert conditions["ResolvedRefs"][0] == conditions["Ready"][0] == "False"
    assert conditions["Compiled"] == ("True", reasons.IN_SNAPSHOT)
    message = verdict.condition("ResolvedRefs").message
    assert "spec.surfaces[0].escalateTo: Principal on-call does not exist" in message
    assert "spec.shadow.policyProfileRef: PolicyProfile next does not exist" in message
    assert len(rows(result, "policy_profile")) == 1
    assert {(row["path"], row["kind"], row["name"]) for row in rows(result, "reference")} == {
        ("spec.surfaces[0].escalateTo", "Principal", "on-call"),
        ("spec.shadow.policyProfileRef", "PolicyProfile", "next"),
    }


def test_references_resolve_as_soon_as_what_they_name_is_there():
    """In either order, by the closure alone; a namesake of another namespace is not it."""
    there = world(declared("PolicyProfile", "p", REFERRING), declared("Principal", "on-call", {}, namespace="other"))
    key = ObjectKey("PolicyProfile", "team", "p")
    compile_world(there, {})
    affected = there.put(declared("Principal", "on-call", {}))
    assert key in affected
    compile_world(there, {}, affected)
    affected = there.put(declared("PolicyProfile", "next", BOUNDED))
    assert key in affected
    verdict = compile_world(there, {}, affected).verdicts[key]
    assert verdict.ready
    affected = there.remove(ObjectKey("PolicyProfile", "team", "next"))
    assert not compile_world(there, {}, affected).verdicts[key].ready


def test_a_plan_shows_what_would_not_resolve():
    """Before it is applied: the issue by its path, and that something else would be served."""
    current = world(declared("PolicyProfile", "p", BOUNDED))
    plan = make_plan(current, world(declared("PolicyProfile", "p", REFERRING, generation=2)))
    (issue,) = plan.issues
    assert (issue.key, issue.state) == (ObjectKey("PolicyProfile", "team", "p"), "Unresolved")
    assert "spec.shadow.policyProfileRef" in issue.message
    assert plan.others == (issue.key,)


def test_a_gate_needs_no_principal():
    """Gates have no Principal in the namespace."""
    result = compiled(declared("PolicyProfile", "p", surface(escalateTo="svc:asyncgate")))
    assert verdict_of(result, "PolicyProfile", "p").ready
    assert rows(result, "reference") == []


def test_a_policy_profile_is_no_use_by_a_binding():
    """`uses` counts Bindings, whoever else names a Principal."""
    result = compiled(declared("PolicyProfile", "p", REFERRING), declared("Principal", "on-call", {}))
    assert verdict_of(result, "Principal", "on-call").uses == 0


def test_a_tree_that_nothing_bounds_is_a_warning():
    """Served, ready, and said in status."""
    verdict = verdict_of(compiled(declared("PolicyProfile", "p", POLICY)), "PolicyProfile", "p")
    assert verdict.ready
    assert conditions_of(verdict)["Warning"] == ("True", reasons.TREE_NOT_BOUNDED)
    assert "spec.limits.maxTotalDescendants" in verdict.condition("Warning").message
    bounded = verdict_of(compiled(declared("PolicyProfile", "p", BOUNDED)), "PolicyProfile", "p")
    assert "Warning" not in conditions_of(bounded)


OF_THE_FIRST_RELEASE = {
    "limits": {"maxSpawnDepth": 5},
    "budget": {"required": False},
    "invariants": {"rules": []},
    "surfaces": [
        {
            "surfaceId": "public",
            "kind": "Internal",
            "principals": [],
            "capabilities": {"allow": [], "deny": []},
            "targets": [TARGET],
            "forceAsync": [],
        }
    ],
}


def test_what_is_served_of_an_earlier_spec_stays_the_same():
    """Fields that came later are absent unless declared: no hash changes by an upgrade, and a rollback finds nothing that
    the release before does not know.
    """
    spec = {"limits": {"maxSpawnDepth": 5}, "surfaces": [{"surfaceId": "public", "targets": [TARGET]}]}
    (row,) = rows(compiled(declared("PolicyProfile", "p", spec)), "policy_profile")
    assert row["body"] == OF_THE_FIRST_RELEASE
    assert with_defaults("PolicyProfile", OF_THE_FIRST_RELEASE) == OF_THE_FIRST_RELEASE
