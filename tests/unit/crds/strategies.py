"""Random worlds: believable enough to conflict, refer, break and be repaired."""

from datetime import timedelta
from typing import Any

from hypothesis import strategies as st
from tests.unit.crds.worlds import START

from metagate_crds.objects import CompileSettings, DeclaredObject, Namespace, ObjectKey

CANARY = "canary-value-that-is-nowhere-else"
NAMESPACES = ("team", "other", "metagate-system")
NAMES = ("a", "b")

words = st.sampled_from(["alpha", "beta", "gamma", "region", "mode", "deployment", "job"])
forbidden = st.sampled_from(["deploy", "Tasks", "work-items", "workItems", "EXECUTE"])
scalars = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(-5, 5), st.just(CANARY), words)
names = st.sampled_from(NAMES)


def free() -> st.SearchStrategy[dict[str, Any]]:
    leaves = st.recursive(
        scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3), max_leaves=6
    )
    return st.dictionaries(words, leaves, max_size=3)


def optional(
    fields: dict[str, st.SearchStrategy[Any]], **needed: st.SearchStrategy[Any]
) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(needed, optional=fields)


services = st.dictionaries(
    words,
    optional({"type": words, "metadata": free()}, endpoint=st.sampled_from(["http://a:1", "http://b:2"])),
    max_size=3,
)
polling = st.dictionaries(words, optional({"interval": st.just("5s")}, endpoint=st.just("http://a/inbox")), max_size=2)
patches = st.dictionaries(
    words,
    st.none() | optional({"endpoint": st.none() | st.just("http://z"), "type": st.none() | words, "metadata": free()}),
    max_size=2,
)
key_digests = st.builds(lambda number: {"id": f"{number:010d}", "sha256": f"{number:064x}"}, st.integers(1, 4))
claims = st.one_of(
    st.builds(lambda name: {"serviceAccount": {"name": name}}, names),
    st.builds(
        lambda issuer, subject: {"issuer": issuer, "subject": subject},
        st.sampled_from(["https://one", "https://two", "https://cluster", "metagate"]),
        st.sampled_from(["team:x", "other:x", "y"]),
    ),
)


GATEWAY = {
    "surfaceId": "g",
    "kind": "McpGateway",
    "capabilities": {"allow": ["x"]},
    "targets": [{"name": "t", "url": "http://a"}],
}


def distinct(items: st.SearchStrategy[Any], size: int) -> st.SearchStrategy[list[Any]]:
    return st.lists(
        items, max_size=size, unique_by=lambda item: item.get("sha256") or str(item) if isinstance(item, dict) else item
    )


VALID: dict[str, st.SearchStrategy[Any]] = {
    "TokenIssuer": st.one_of(
        optional(
            {"issuer": st.sampled_from(["https://cluster", "https://one"])},
            audiences=st.just(["m"]),
            jwks=st.just({"source": "Cluster"}),
        ),
        optional(
            {"namespaces": st.sampled_from([[], ["team"], ["other"], ["*"], ["team", "other"]])},
            issuer=st.sampled_from(["https://one", "https://two", "metagate"]),
            subjectPattern=st.just("{namespace}:*"),
            audiences=st.just(["m"]),
            jwks=st.just({"source": "URL", "url": "https://one/jwks"}),
        ),
    ),
    "Principal": optional(
        {
            "type": st.sampled_from(["component", "admin", "delegate"]),
            "suspended": st.booleans(),
            "subjects": distinct(claims, 3),
            "apiKeys": distinct(key_digests, 3),
        }
    ),
    "Profile": optional(
        {
            "capabilities": free(),
            "policy": free(),
            "startup": optional({"slaSeconds": st.integers(1, 9)}),
            "secretRefs": st.just([{"name": "db", "ref": "DB"}]),
        }
    ),
    "Manifest": optional({"environment": free(), "services": services, "memoryMap": free(), "polling": polling}),
    "PrincipalBinding": optional(
        {
            "active": st.booleans(),
            "overrides": optional({"policy": free(), "services": patches, "polling": patches, "environment": free()}),
        },
        principalRef=st.fixed_dictionaries({"name": names}),
        profileRef=st.fixed_dictionaries({"name": names}),
        manifestRef=st.fixed_dictionaries({"name": names}),
        components=distinct(st.sampled_from(["x", "y*", "*"]), 3),
    ),
    "PolicyProfile": optional(
        {
            "shadow": st.builds(lambda name: {"policyProfileRef": {"name": name}}, names),
            "surfaces": st.builds(lambda name: [{"surfaceId": "s", "escalateTo": name}], names) | st.just([GATEWAY]),
        },
        limits=st.builds(lambda depth: {"maxSpawnDepth": depth}, st.integers(0, 5)),
    ),
    "Problemata": st.builds(
        lambda policy, principal, surface, capability: {
            "version": "1",
            "gateway": {"policyProfileRef": {"name": policy}, "surfaceId": surface, "principals": [principal]},
            "payloadKind": "plan",
            "capabilities": [{"id": capability}],
        },
        names,
        names,
        st.sampled_from(["s", "g"]),
        st.sampled_from(["x", "y"]),
    ),
    "PlanTemplate": st.builds(
        lambda capability, principal, template: {
            "capability": capability,
            "escalation": [{"on": ["failure"], "to": principal}],
            "steps": [
                {"id": "a", "capability": "x", "job": {}},
                *([] if template is None else [{"id": "b", "plan": {"templateRef": {"name": template}}}]),
            ],
        },
        st.sampled_from(["x", "y"]),
        names,
        st.none() | names,
    ),
}
KIND_NAMES = tuple(VALID)


def broken(kind: str) -> st.SearchStrategy[Any]:
    """A spec that is not valid, mostly near a valid one."""
    return st.one_of(
        st.none(),
        st.just([CANARY]),
        st.builds(lambda spec, key: {**spec, key: CANARY}, VALID[kind], words),
        st.builds(
            lambda spec, section, key: {**spec, section: {"x": [[{key: CANARY}]]}},
            VALID[kind],
            st.sampled_from(["environment", "capabilities", "overrides"]),
            forbidden,
        ),
    )


@st.composite
def objects(draw: st.DrawFn, *, generations: tuple[int, int] = (1, 1), wrong: int = 4) -> DeclaredObject:
    """One object; about one in `wrong` is not valid."""
    kind = draw(st.sampled_from((*KIND_NAMES, "PrincipalBinding", "Principal", "TokenIssuer", "PrincipalBinding")))
    namespace = "" if kind == "TokenIssuer" else draw(st.sampled_from(("team", *NAMESPACES)))
    name = draw(names)
    spec = draw(broken(kind) if draw(st.integers(0, wrong - 1)) == 0 else VALID[kind])
    created = START + timedelta(seconds=draw(st.integers(0, 3)))
    return DeclaredObject(
        ObjectKey(kind, namespace, name), f"{kind}/{namespace}/{name}", draw(st.integers(*generations)), created, spec
    )


def worlds(**more: Any) -> st.SearchStrategy[list[DeclaredObject]]:
    """Objects with distinct keys."""
    return st.lists(objects(**more), max_size=14, unique_by=lambda item: item.key)


settings_of_worlds = st.builds(
    CompileSettings,
    cluster_issuer=st.sampled_from([None, "https://cluster"]),
    jwt_issuer=st.sampled_from([None, "metagate"]),
    jwt_namespaces=st.sampled_from([("*",), ("team",), ()]),
)


def spaces(*known: str) -> list[Namespace]:
    return [Namespace(name, f"tenant-{name}", START) for name in (known or NAMESPACES)]
