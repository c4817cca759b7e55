"""Parameters against schemas: what a library for the whole of JSON Schema says too, in a time that callers cannot choose."""

import time

from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from metagate_crds.plans.schema_check import SchemaCheck
from metagate_crds.rules.plan_rules import plan_findings

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.0, 1.0, -1.5, 2.5]), st.sampled_from(["", "a", "é€", "abc"])
)  # fmt: skip
names = st.sampled_from(["a", "b", "c"])
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=8
)
kinds = st.sampled_from(["array", "boolean", "integer", "null", "number", "object", "string"])
counts = st.integers(0, 3)
numbers = st.sampled_from([-1, 0, 1, 1.5, 2])


def schemas_with(inner):
    return st.fixed_dictionaries(
        {},
        optional={
            "type": kinds | st.lists(kinds, min_size=1, max_size=3, unique=True),
            "enum": st.lists(values, max_size=4),
            "const": values,
            "properties": st.dictionaries(names, inner, max_size=3),
            "required": st.lists(names, max_size=2, unique=True),
            "items": inner,
            "additionalProperties": st.booleans(),
            **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems"), counts),
            **dict.fromkeys(("minProperties", "maxProperties"), counts),
            **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), numbers),
        },
    )


schemas = st.recursive(schemas_with(st.just({})), schemas_with, max_leaves=5)


def violations(schema, value):
    return list(SchemaCheck().violations(schema, value, ()))


@settings(max_examples=250, deadline=None)
@given(schemas, values)
def test_a_library_for_json_schema_says_the_same(schema, value):
    """Valid for one is valid for the other, for every schema that may be declared."""
    declared = {"type": "object", "properties": {"x": schema}}
    assert plan_findings({"capability": "a", "escalation": [], "parameters": declared, "steps": []}) == []
    assert (violations(schema, value) == []) == Draft202012Validator(schema).is_valid(value)


def test_an_enum_is_a_look_up():
    """The largest schema that may be declared, beside the largest request."""
    schema = {"type": "array", "items": {"enum": list(range(1_600))}}
    value = [1_599] * 9_000
    started = time.process_time()
    assert violations(schema, value) == []
    assert time.process_time() - started < 1
