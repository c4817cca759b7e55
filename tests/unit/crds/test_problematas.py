"""Problematas: what they may say, what they need before they are served, and what becomes of a broken one."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.unit.crds.worlds import (
    GATEWAY_POLICY,
    PROBLEMATA,
    compiled,
    conditions_of,
    declared,
    gateway_objects,
    last_good_of,
    rows,
    verdict_of,
    world,
)

from metagate_crds import reasons
from metagate_crds.canonical_json import canonical, digest
from metagate_crds.compile.compiler import compile_world
from metagate_crds.crd_yaml import crd_documents
from metagate_crds.models.problemata import CAPABILITIES_BYTES, CAPABILITY_BYTES, MOST_CAPABILITIES
from metagate_crds.objects import ObjectKey
from metagate_crds.plan.planner import make_plan
from metagate_crds.rules.json_schema import DIALECT
from metagate_crds.validation import parse_spec, validate

ROOT = Path(__file__).resolve().parents[3]
KEY = ObjectKey("Problemata", "team", "mail")


def spec(**changes: Any) -> dict[str, Any]:
    return {**copy.deepcopy(PROBLEMATA), **changes}


def with_schema(schema: Any) -> dict[str, Any]:
    return spec(capabilities=[{"id": "doc.review", "inputSchema": schema}])


def with_tool(**changes: Any) -> dict[str, Any]:
    """With one tool, and these members of it or of its definition."""
    tool: dict[str, Any] = {"target": "mailserver", "definition": {"name": "send", "inputSchema": {"type": "object"}}}
    for name, value in changes.items():
        (tool if name in {"as", "idempotent", "target"} else tool["definition"])[name] = value
    return spec(capabilities=[{"id": "mail.send", "tool": tool}])


def findings(value: Any, name: str = "mail") -> list[tuple[str, str]]:
    return [(item.path, item.reason) for item in validate("Problemata", value, name=name)]


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"$schema": DIALECT, "$id": "https://example.com/a", "type": ["string", "null"], "default": None},
        {
            "$defs": {"a": {"type": "string"}},
            "properties": {"x": {"$ref": "#/$defs/a"}, "y": {"$ref": "#/properties/x"}},
        },
        {"$defs": {"node": {"$anchor": "node", "properties": {"next": {"$ref": "#node"}}}}, "$ref": "#node"},
        {"properties": {"children": {"type": "array", "items": {"$ref": "#"}}}},
        {"$defs": {"a/b": {}, "c~d": {}}, "anyOf": [{"$ref": "#/$defs/a~1b"}, {"$ref": "#/$defs/c~0d"}]},
        {"$defs": {"a b": True}, "not": {"$ref": "#/$defs/a%20b"}},
        {"properties": {"tasks": {"type": "array"}, "execute": {"const": True}}, "required": ["tasks"], "x-other": 1},
        {"pattern": "^[a-z]+$", "maxLength": 3.0, "multipleOf": 0.5, "enum": [1, None, {}], "examples": []},
        {"properties": {"password": {"type": "string"}, "$ref": {"type": "string"}}, "required": ["password"]},
    ],
)
def test_a_schema_of_2020_12(schema: dict[str, Any]) -> None:
    """What such a schema may say; its keys are somebody else's arguments and declare no work."""
    assert findings(with_schema(schema)) == []
    model, _ = parse_spec("Problemata", with_schema(schema))
    assert model is not None
    assert model.declared()["capabilities"][0]["inputSchema"] == schema, "nulls stay"


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"type": "text"}, ".type"),
        ({"type": []}, ".type"),
        ({"$schema": "http://json-schema.org/draft-07/schema#"}, '["$schema"]'),
        ({"$schema": ["x"]}, '["$schema"]'),
        ({"properties": {"a": 1}}, ".properties.a"),
        ({"properties": []}, ".properties"),
        ({"items": [{}]}, ".items"),
        ({"anyOf": []}, ".anyOf"),
        ({"allOf": [{}, {"minLength": -1}]}, ".allOf[1].minLength"),
        ({"minItems": 1.5}, ".minItems"),
        ({"multipleOf": 0}, ".multipleOf"),
        ({"maximum": True}, ".maximum"),
        ({"required": ["a", "a"]}, ".required"),
        ({"required": "a"}, ".required"),
        ({"pattern": "("}, ".pattern"),
        ({"patternProperties": {"(": {}}}, ".patternProperties"),
        ({"dependentRequired": {"a": "b"}}, ".dependentRequired"),
        ({"uniqueItems": 1}, ".uniqueItems"),
        ({"enum": "a"}, ".enum"),
        ({"title": 1}, ".title"),
        ({"$ref": "https://example.com/schema"}, '["$ref"]'),
        ({"$ref": "other.json#/a"}, '["$ref"]'),
        ({"$ref": "#/$defs/missing"}, '["$ref"]'),
        ({"$ref": "#/properties", "properties": {"a": {}}}, '["$ref"]'),
        ({"$dynamicRef": "https://example.com/#a"}, '["$dynamicRef"]'),
        ({"properties": {"a": {"$id": "https://example.com/b"}}}, '.properties.a["$id"]'),
        ({"$ref": "#"}, ""),
        ({"$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"anyOf": [{"$ref": "#/$defs/a"}]}}}, None),
        ({"if": {"$ref": "#"}}, None),
        ({"dependentSchemas": {"a": {"$ref": "#"}}}, None),
    ],
)
def test_no_other_schema(schema: dict[str, Any], path: str | None) -> None:
    """Refused with the path within it: another draft, what lies outside, what has no end."""
    for value, where in (
        (with_schema(schema), "spec.capabilities[0].inputSchema"),
        (with_tool(inputSchema=schema), "spec.capabilities[0].tool.definition.inputSchema"),
        (with_tool(outputSchema=schema), "spec.capabilities[0].tool.definition.outputSchema"),
    ):
        ((found, reason),) = findings(value)
        assert reason == reasons.SCHEMA_REFUSED
        assert found.startswith(where)
        if path is not None:
            assert found == f"{where}{path}"


def test_a_large_schema_costs_little() -> None:
    """A chain of a thousand references is walked, not recursed into."""
    definitions = {f"d{number}": {"$ref": f"#/$defs/d{number + 1}"} for number in range(400)}
    assert findings(with_schema({"$defs": {**definitions, "d400": {}}})) == []
    looped = {"$defs": {**definitions, "d400": {"$ref": "#/$defs/d0"}}}
    assert [reason for _, reason in findings(with_schema(looped))] == [reasons.SCHEMA_REFUSED]


@pytest.mark.parametrize(
    ("name", "sound"),
    [
        ("mail", True),
        ("m", True),
        ("a" * 63, True),
        ("problemata", False),
        ("mail.box", False),
        ("a" * 64, False),
        ("-mail", False),
    ],
)
def test_the_name_is_a_label(name: str, sound: bool) -> None:
    """It stands before the dot of each tool, and the gate's own tools have the one that is kept."""
    value = spec(exposeTools=False)
    assert findings(value, name) == ([] if sound else [("metadata.name", reasons.NAME_REFUSED)])


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"gateway": {**PROBLEMATA["gateway"], "principals": []}}, "spec.gateway.principals"),
        ({"gateway": {"policyProfileRef": {"name": "a"}, "surfaceId": "s"}}, "spec.gateway.principals"),
        ({"version": 3}, "spec.version"),
        ({"payloadKind": "tool_call"}, "spec.payloadKind"),
        ({"capabilities": []}, "spec.capabilities"),
        ({"capabilities": [{"id": "a"}, {"id": "a"}]}, "spec.capabilities"),
        ({"capabilities": [{"id": "-a"}]}, "spec.capabilities[0].id"),
        ({"capabilities": [{"id": "a", "estimatedDurationMs": 0}]}, "spec.capabilities[0].estimatedDurationMs"),
        ({"capabilities": [{"id": f"c{number}"} for number in range(MOST_CAPABILITIES + 1)]}, "spec.capabilities"),
        ({"topology": [{"from": "a", "to": "b", "payloads": []}]}, "spec.topology[0].payloads"),
        ({"topology": [{"from": "a"}]}, "spec.topology[0].to"),
        ({"topology": [{"from": "http://a:b@c", "to": "b"}]}, "spec.topology[0].from"),
    ],
)
def test_what_a_field_may_not_be(changes: dict[str, Any], path: str) -> None:
    assert path in {found for found, _ in findings(spec(**changes))}


def test_no_work_and_no_secret() -> None:
    """D-15 and D-17, at any depth and in the topology."""
    assert ("spec.topology[0].Work-Items", reasons.FORBIDDEN_KEY) in findings(
        spec(topology=[{"from": "a", "to": "b", "Work-Items": []}])
    )
    hints = {"x": [{"deploy": True}]}
    path = "spec.capabilities[0].tool.definition.annotations.x[0].deploy"
    assert (path, reasons.FORBIDDEN_KEY) in findings(with_tool(annotations=hints))
    key = "AKIA" + "ABCDEFGHIJKLMNOP"
    purpose = findings(spec(topology=[{"from": "a", "to": "b", "purpose": f"use {key}"}]))
    assert purpose == [("spec.topology[0].purpose", reasons.SECRET_VALUE)]
    secret = findings(with_schema({"properties": {"x": {"default": key}}}))
    assert [reason for _, reason in secret] == [reasons.SECRET_VALUE]
    assert key not in str(validate("Problemata", with_schema({"default": key})))


def sized(size: int) -> dict[str, Any]:
    """A capability of so many bytes as canonical JSON."""
    empty = {"id": "c00", "inputSchema": {"description": ""}}
    return {"id": "c00", "inputSchema": {"description": "ab " * 6000}} | {
        "inputSchema": {"description": ("ab " * 6000)[: size - len(canonical(empty))]}
    }


def test_bounds_of_size() -> None:
    """Each capability, and all of them: `kubectl apply` keeps a second copy in an annotation of 256 KiB."""
    assert len(canonical(sized(CAPABILITY_BYTES))) == CAPABILITY_BYTES
    assert findings(spec(capabilities=[sized(CAPABILITY_BYTES)])) == []
    assert findings(spec(capabilities=[sized(CAPABILITY_BYTES + 1)])) == [("spec.capabilities[0]", reasons.TOO_LARGE)]
    each = CAPABILITIES_BYTES // 16 - 1
    full = [{**sized(each), "id": f"c{number:02d}"} for number in range(16)]
    assert findings(spec(capabilities=full)) == []
    full[0] = {**sized(each + 1), "id": "c00"}
    assert findings(spec(capabilities=full)) == [("spec.capabilities", reasons.TOO_LARGE)]


@pytest.mark.parametrize("text", ["a\x07b", "a\u202eb", "a\u2066b", "a\U000e0041b", "a\x85b"])
def test_what_nobody_sees_is_refused_in_a_definition(text: str) -> None:
    """A model reads it all the same."""
    assert findings(with_tool(description=text)) == [
        ("spec.capabilities[0].tool.definition.description", reasons.INVALID_VALUE)
    ]
    inner = findings(with_tool(inputSchema={"properties": {"a": {"enum": ["x", text]}}}))
    assert inner == [("spec.capabilities[0].tool.definition.inputSchema.properties.a.enum[1]", reasons.INVALID_VALUE)]
    assert findings(with_tool(description="one\n\ttwo\r\nthree, größer, 你好")) == []


def test_names_that_agents_see() -> None:
    """Their characters, their length, and no two alike; only where tools are shown."""
    tool = "spec.capabilities[0].tool"
    assert findings(with_tool(name="send email")) == [(tool, reasons.INVALID_FIELD)]
    assert findings(with_tool(name="send email", **{"as": "send_email"})) == []
    assert findings(with_tool(name="send email") | {"exposeTools": False}) == []
    assert findings(with_tool(name="n" * 123)) == []
    assert findings(with_tool(name="n" * 124)) == [(tool, reasons.INVALID_FIELD)]
    two = with_tool()["capabilities"] + [{**with_tool()["capabilities"][0], "id": "mail.other"}]
    assert findings(spec(capabilities=two)) == [("spec.capabilities[1].tool", reasons.DUPLICATE)]
    both = {**with_tool()["capabilities"][0], "inputSchema": {}}
    assert findings(spec(capabilities=[both])) == [("spec.capabilities[0]", reasons.INVALID_FIELD)]


@pytest.mark.invariant("INV-119")
def test_it_is_served_with_its_hash() -> None:
    result = compiled(*gateway_objects())
    (row,) = rows(result, "problemata")
    assert (row["name"], row["tenant"], row["generation"]) == ("mail", "tenant-team", 1)
    assert row["body"] == {**row["body"], **PROBLEMATA}
    assert row["content_hash"] == digest(canonical(row["body"]))
    verdict = verdict_of(result, "Problemata", "mail")
    assert verdict.ready
    assert verdict.condition("Warning") is None
    references = [(item["path"], item["kind"], item["name"]) for item in rows(result, "reference")]
    assert references == [
        ("spec.gateway.policyProfileRef", "PolicyProfile", "front-desk"),
        ("spec.gateway.principals[0]", "Principal", "mail-gateway"),
    ]


def gateway(**changes: Any) -> dict[str, Any]:
    return {"gateway": {**PROBLEMATA["gateway"], **changes}}


NOT_SERVED = [
    (gateway(policyProfileRef={"name": "other"}), reasons.POLICY_PROFILE_NOT_FOUND, "spec.gateway.policyProfileRef"),
    (gateway(principals=["mail-gateway", "b"]), reasons.PRINCIPAL_NOT_FOUND, "spec.gateway.principals[1]"),
    (gateway(surfaceId="unknown"), reasons.SURFACE_NOT_FOUND, "spec.gateway.surfaceId"),
    (gateway(surfaceId="inside"), reasons.SURFACE_NOT_GATEWAY, "spec.gateway.surfaceId"),
    (gateway(surfaceId="nowhere"), reasons.SURFACE_NOT_GATEWAY, "spec.gateway.surfaceId"),
    ({"capabilities": [{"id": "other"}]}, reasons.CAPABILITY_NOT_ADMITTED, "spec.capabilities[0].id"),
    ({"capabilities": [{"id": "mail.delete"}]}, reasons.CAPABILITY_NOT_ADMITTED, "spec.capabilities[0].id"),
    (
        {"capabilities": with_tool(target="delegate")["capabilities"]},
        reasons.TARGET_NOT_FOUND,
        "spec.capabilities[0].tool.target",
    ),
]


@pytest.mark.invariant("INV-119")
@pytest.mark.parametrize(("changes", "reason", "path"), NOT_SERVED)
def test_nothing_is_served_of_what_cannot_be_admitted(changes: dict[str, Any], reason: str, path: str) -> None:
    """All of it or nothing; the condition says why."""
    result = compiled(*gateway_objects(**changes))
    assert rows(result, "problemata") == []
    conditions = conditions_of(verdict_of(result, "Problemata", "mail"))
    assert conditions["Ready"] == conditions["ResolvedRefs"] == ("False", reason)
    assert conditions["Compiled"] == ("False", reasons.NOTHING_SERVED)
    condition = verdict_of(result, "Problemata", "mail").condition("ResolvedRefs")
    assert condition is not None
    assert condition.message.startswith(f"{path}: ")


def test_names_of_another_namespace_do_not_count() -> None:
    policy, principal, problemata = gateway_objects()
    there = declared("PolicyProfile", "front-desk", GATEWAY_POLICY, namespace="other")
    result = compiled(there, principal, problemata)
    assert rows(result, "problemata") == []
    assert rows(compiled(policy, principal, problemata), "problemata") != []


def test_it_follows_its_policy() -> None:
    """A PolicyProfile that changes compiles it again, and a Principal that leaves takes it along."""
    there = world(*gateway_objects())
    assert compile_world(there, {}).verdicts[KEY].ready
    narrower = copy.deepcopy(GATEWAY_POLICY)
    narrower["surfaces"][0]["capabilities"]["allow"] = ["doc.review"]
    affected = there.put(declared("PolicyProfile", "front-desk", narrower, generation=2))
    assert KEY in affected
    result = compile_world(there, {}, affected)
    assert rows(result, "problemata") == []
    assert conditions_of(result.verdicts[KEY])["Ready"] == ("False", reasons.CAPABILITY_NOT_ADMITTED)
    affected = there.put(declared("PolicyProfile", "front-desk", GATEWAY_POLICY, generation=3))
    assert rows(compile_world(there, {}, affected), "problemata") != []
    affected = there.remove(ObjectKey("Principal", "team", "mail-gateway"))
    assert KEY in affected
    assert rows(compile_world(there, {}, affected), "problemata") == []


def test_a_broken_one_keeps_what_it_does_not_take_away() -> None:
    """The last good version stays served (D-20), without the capabilities and gateways that are no longer listed (D-33)."""
    policy, principal, good = gateway_objects()
    other = declared("Principal", "second", {"type": "service"})
    good = declared("Problemata", "mail", spec(**gateway(principals=["mail-gateway", "second"])))
    broken = spec(
        version=7, exposeTools=False, capabilities=PROBLEMATA["capabilities"][1:], **gateway(principals=["second"])
    )
    bad = declared("Problemata", "mail", broken, generation=2)
    result = compiled(policy, principal, other, bad, last_good=last_good_of(good))
    (row,) = rows(result, "problemata")
    assert (row["generation"], row["body"]["version"], row["body"]["exposeTools"]) == (1, "3", False)
    assert [item["id"] for item in row["body"]["capabilities"]] == ["mail.send"]
    assert row["body"]["gateway"]["principals"] == ["second"]
    assert row["content_hash"] == digest(canonical(row["body"]))
    conditions = conditions_of(verdict_of(result, "Problemata", "mail"))
    assert conditions["Ready"] == ("False", reasons.INVALID_FIELD)
    assert conditions["Compiled"] == ("False", reasons.LAST_GOOD_SERVED)
    assert rows(compiled(policy, principal, other, bad), "problemata") == [], "never valid, never served"


def test_a_long_name_is_a_warning() -> None:
    """Some agents refuse more than 64 characters."""
    for length, warned in ((59, False), (60, True)):
        changes = with_tool(name="n" * length)
        verdict = verdict_of(compiled(*gateway_objects(**changes)), "Problemata", "mail")
        assert verdict.ready
        assert (("Warning" in conditions_of(verdict)), warned) in {(True, True), (False, False)}


def test_a_plan_shows_it() -> None:
    """As what no principal's packet shows."""
    plan = make_plan(world(*gateway_objects()), world(*gateway_objects(version="4")))
    assert plan.objects["changed"] == (KEY,)
    assert plan.others == (KEY,)
    plan = make_plan(world(*gateway_objects()), world(*gateway_objects(**gateway(surfaceId="unknown"))))
    ((issue),) = plan.issues
    assert (issue.key, issue.state) == (KEY, "Unresolved")


def test_the_crd_says_what_it_can() -> None:
    """The API server refuses a name, a list too long and two schemas by itself."""
    (document,) = [item for item in crd_documents() if item["spec"]["names"]["kind"] == "Problemata"]
    assert document["spec"]["names"]["shortNames"] == ["pm"]
    schema = document["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert "problemata" in schema["x-kubernetes-validations"][0]["message"]
    capabilities = schema["properties"]["spec"]["properties"]["capabilities"]
    assert (capabilities["maxItems"], capabilities["x-kubernetes-list-map-keys"]) == (MOST_CAPABILITIES, ["id"])


def test_the_example_is_ready() -> None:
    """Files that people copy: everything in them is served."""
    documents = list(yaml.safe_load_all((ROOT / "examples/problemata/mail.yaml").read_text()))
    result = compiled(*(declared(item["kind"], item["metadata"]["name"], item["spec"]) for item in documents))
    assert {key.kind for key in result.verdicts} == {"Principal", "PolicyProfile", "Problemata"}
    assert all(verdict.ready and verdict.condition("Warning") is None for verdict in result.verdicts.values())


@pytest.mark.invariant("INV-119")
@pytest.mark.parametrize(
    ("invariants", "changes", "path"),
    [
        ({"allowedTargets": ["delegate", "other-*"]}, {}, "spec.capabilities[1].tool.target"),
        ({"allowedTargets": []}, {}, "spec.capabilities[1].tool.target"),
        ({"allowedTargets": ["mail*"]}, {}, None),
        ({"canSpawn": False}, {}, "spec.capabilities[0].id"),
        ({"canSpawn": False}, {"payloadKind": "query"}, None),
        ({"canSpawn": False}, {"capabilities": with_tool()["capabilities"]}, None),
        ({"canSpawn": True}, {}, None),
    ],
)
def test_what_the_invariants_of_its_policy_never_admit_is_not_served(
    invariants: dict[str, Any], changes: dict[str, Any], path: str | None
) -> None:
    """A call of a tool begins no work, so canSpawn does not matter to it; every other request is judged by it."""
    _, principal, problemata = gateway_objects(**changes)
    policy = declared("PolicyProfile", "front-desk", {**GATEWAY_POLICY, "invariants": invariants})
    result = compiled(policy, principal, problemata)
    assert bool(rows(result, "problemata")) is (path is None)
    condition = verdict_of(result, "Problemata", "mail").condition("ResolvedRefs")
    assert condition is not None
    if path is not None:
        assert condition.reason == reasons.CAPABILITY_NOT_ADMITTED
        assert condition.message.startswith(f"{path}: ")
