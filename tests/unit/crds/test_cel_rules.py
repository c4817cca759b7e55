"""CEL rules: what a rule may say, what it may cost, and that the same rule over the same values is the same result."""

import contextlib
import time
from typing import Any

import pytest

from metagate_crds.rules.cel_rules import LARGEST_WORK, CelRule, CelVariables, RuleFailure, RuleRefused, compile_rule
from metagate_crds.rules.cel_source import LONGEST_SOURCE, read_source

CANARY = "canary-7f3a"


def variables(payload: Any) -> CelVariables:
    return CelVariables(
        payload=payload,
        request={
            "surface": "public",
            "payload_kind": "task",
            "capability_id": "doc.summarize",
            "target": None,
            "artifact_bytes": 5,
        },
        caller={"principal_key": "alice", "type": "principal"},
        observed={"depth": 2, "descendants": 7, "repeats": 0, "budget": None},
    )


def result(source: str, payload: Any = None) -> bool | RuleFailure:
    return compile_rule(source).evaluate(variables(payload))


def refusal(source: str) -> str:
    with pytest.raises(RuleRefused) as refused:
        compile_rule(source)
    return refused.value.reason


@pytest.mark.parametrize(
    ("source", "payload", "expected"),
    [
        ("payload.size() < 3", "ab", True),
        ("size(payload.items) <= 2", {"items": [1, 2, 3]}, False),
        ("payload.items.all(item, item.amount <= payload.limit)", {"items": [{"amount": 3}], "limit": 3}, True),
        ("payload.items.exists(item, item in [4, 5])", {"items": [1, 4]}, True),
        ("has(payload.note) ? payload.note.startsWith('ok') : true", {}, True),
        ("!(caller.type == 'worker') || observed.depth < 2", None, True),
        ("request.capability_id.startsWith('doc.') && request.surface == \"public\"", None, True),
        ("request.target == null && observed.budget == null", None, True),
        ("request.artifact_bytes * 2 - 1 == 9 && 7 % 4 == 3 && 7 / 2 == 3 && -1 < 0", None, True),
        ("int('5') == 5 && uint(5) == 5u && double(1) == 1.0 && string(1) == '1'", None, True),
        ("bool(payload.flag) && bool('1') && !bool('false')", {"flag": "true"}, True),
        ("payload.name.contains('b') && payload.name.endsWith('c')", {"name": "abc"}, True),
        ("'a' in payload && payload['a'][0] == 1", {"a": [1]}, True),
        ("payload.a.all(x, x > 0) && payload.b.all(x, x > 0)", {"a": [1], "b": [0]}, False),
        ("// as it is written in a file\nobserved.descendants > 6", None, True),
        ("payload.all(name, name != 'forbidden')", {"allowed": 1}, True),
    ],
)
def test_a_rule_is_true_or_false(source: str, payload: Any, expected: bool) -> None:
    """What the documentation promises a rule may say, evaluates."""
    assert result(source, payload) is expected


def test_a_rule_says_what_it_reads() -> None:
    """Free variables are reported, those of `all` and `exists` are not."""
    rule = compile_rule("payload.items.all(item, item > observed.depth) && caller.type != 'worker'")
    assert (rule.variables, rule.reads_payload) == ({"payload", "observed", "caller"}, True)
    assert not compile_rule("observed.depth < 3").reads_payload


@pytest.mark.parametrize(
    ("source", "part"),
    [
        ("payload.matches('(a+)+$')", "`matches`"),
        ("matches(payload.text, 'a')", "`matches`"),
        ("payload.name + 'x' == 'ax'", "+"),
        ("payload.items.map(x, x).size() > 0", "`map`"),
        ("payload.items.filter(x, x > 1).size() > 0", "`filter`"),
        ("payload.items.exists_one(x, x > 1)", "`exists_one`"),
        ("payload.a.all(x, payload.a.all(y, y > x))", "within"),
        ("payload.a.exists(x, (true || payload.a.exists(y, y > x)))", "within"),
        ("payload.a.all(x, [payload.a.exists(y, y > 0)] == [true])", "within"),
        ("payload.a . all (x, payload.a. // hidden\n all(y, true))", "within"),
        ("payload.a.all(payload, payload > 0)", "name `payload`"),
        ("payload.a.all(x, x > 0) && x", "`x`"),
        ("payload.a.all(x.y, true)", "must name a variable"),
        ("secrets.token == ''", "`secrets`"),
        ("request.capabilty_id == 'a'", "`capabilty_id` of request, which has"),
        ("observed.lease == 'a'", "`lease` of observed"),
        (".payload == 1", "dot"),
        ("true && .payload == 1", "dot"),
        ("payload.Message{a: 1} == payload", ""),
        ("Message{a: 1} == payload", "messages"),
        ("timestamp('2020-01-01T00:00:00Z') == payload", "`timestamp`"),
        ("duration('1s') == payload", "`duration`"),
        ("type(payload) == int", "`type`"),
        ("dyn(1) == 1", "`dyn`"),
        ("lower(payload)", "`lower`"),
        ("payload.lowerAscii() == 'a'", "`lowerAscii`"),
        ("payload.a.all(x, bool(x))", "`bool`"),
        ("r'a' == payload", "text"),
        ("b'a' == payload", "text"),
        ("'''a' + payload + 'b''' == ''", "text"),
        ("payload == 'a", "character 12"),
        ("payload == \u0430", "character 12"),
        ("(payload == 1", "not closed"),
        ("payload == 1)", "closes nothing"),
        ("payload == [1)", "closes nothing"),
        ("payload ==", "CEL"),
        ("payload.?a", "`a`"),
        ("[payload.a.all(x, true)].all(y, y)", "over the result"),
        ("", "CEL"),
        ("(" * 200 + "true" + ")" * 200, "CEL"),
        ("true" + " " * LONGEST_SOURCE, "1024"),
    ],
)
def test_what_a_rule_may_not_say(source: str, part: str) -> None:
    """It is refused before it is ever evaluated, and the reason names what to change."""
    assert part in refusal(source)


def test_a_refusal_repeats_no_secret() -> None:
    """People paste credentials anywhere; findings are shown and logged."""
    for pasted in ("mgk_0123456789_abcdefghijklmnopqrstuvwxyz", "AKIAIOSFODNN7EXAMPLE", "x" * 100):
        for source in (pasted, f"{pasted}(1)", f"request.{pasted} == 1"):
            assert pasted not in refusal(source)


@pytest.mark.parametrize(
    ("source", "payload", "part"),
    [
        ("payload.name == 'a'", {"other": CANARY}, "member"),
        ("payload[3] == 'a'", [CANARY], "list"),
        ("1 / payload.n == 1", {"n": 0, "text": CANARY}, "zero"),
        ("payload < 3", CANARY, "types"),
        ("int(payload) == 3", CANARY, "fails"),
        ("bool(payload)", CANARY, "fails"),
        ("payload * 9223372036854775807 > 0", 2, "range"),
        ("payload", CANARY, "neither"),
        ("payload.size()", CANARY, "neither"),
        ("payload > 1", 10**400, "fails"),
        ("payload == 'a'", "\ud800", "fails"),
        ("payload.all(key, payload[key] > 1)", {CANARY: "x", "b": None}, "types"),
    ],
)
def test_a_rule_that_fails_says_no_value(source: str, payload: Any, part: str, capfd: Any) -> None:
    """A failure is a fixed text; nothing of the payload is in it, nor on standard error."""
    failure = result(source, payload)
    assert isinstance(failure, RuleFailure)
    assert part in failure.reason
    assert CANARY not in failure.reason
    assert CANARY not in "".join(capfd.readouterr())


def test_a_large_payload_fails_only_what_reads_it() -> None:
    """2,000 values at every depth are evaluated, one more is not; a rule that does not read them goes on."""
    fits, exceeds = [0] * 1_999, [[0] * 1_000, [0] * 998]
    assert result("payload.size() == 1999", fits) is True
    assert result("payload.size() == 2", exceeds) == RuleFailure("reads a payload of too many values")
    assert result("observed.depth == 2", exceeds) is True


def test_a_deep_payload_fails_what_reads_it() -> None:
    """However deep: neither Python's recursion nor the library's is reached."""
    nested: Any = 1
    for _ in range(100_000):
        nested = [nested]
    assert result("payload == 1", nested) == RuleFailure("reads a payload that is nested too deeply")
    while isinstance(nested, list):  # taken apart by hand: freeing it at once would recurse
        nested = nested.pop()


def test_a_rule_that_costs_too_much_for_a_payload_fails() -> None:
    """Reading the payload again within a loop costs its square: right for a short list, too much for a long one."""
    source = "payload.items.all(item, item in payload.allowed)"
    short, long = list(range(200)), list(range(900))
    assert result(source, {"items": short, "allowed": short}) is True
    assert result(source, {"items": long, "allowed": long}) == RuleFailure(
        "would cost too much over a payload of this size"
    )
    assert result("payload.items.all(item, item >= 0)", {"items": long, "allowed": long}) is True


@pytest.mark.parametrize(
    ("source", "reads"),
    [
        ("payload.a.all(x, true)", 1),
        ("[payload.a, payload.b].all(x, true)", 2),
        ("payload.a == payload.b && payload.c[payload.i].d.all(x, true)", 2),
        ("(true ? payload.a : payload.b).all(x, true)", 2),
        ("1 in [payload.a] && [1, 2].all(x, true)", 0),
        ("{1: payload, 2: payload}.all(x, true)", 2),
        ("!payload.a['b'].all(x, true)", 1),
    ],
)
def test_what_a_loop_goes_over_is_counted(source: str, reads: int) -> None:
    """The target of a loop is found however it is written: what it reads bounds how often the loop runs."""
    (loop,) = read_source(source).loops
    assert loop.target_reads == reads


HOSTILE_PAYLOADS = {
    "numbers": {"a": list(range(1_990)), "s": "x" * 250_000},
    "texts": {"a": [f"{'k' * 120}{index:06d}" for index in range(1_990)]},
    "members": {f"k{index}": index for index in range(1_990)},
    "one map": {"a": [{f"k{index}": index for index in range(1_980)}]},
    "one text": {"a": ["x" * 250_000], "s": "x" * 250_000},
    "some": {"a": list(range(250)), "s": "x" * 250_000},
}
BODIES = (
    "x == x",
    "x in payload.a",
    "payload.a == payload.a",
    "payload == payload",
    "!payload.s.contains('xxxxxxxxxy')",
    "size(payload.s) > 0",
    "payload.a[0] == payload.a[0]",
    "observed.depth > 0",
    "[1, 2, 3, 4, 5] != []",
    "[payload, payload] != []",
    "1.5 / 2.0 > 0.1",
)
TARGETS = ("payload.a", "payload", "[payload.a[0], payload.a[0], payload.a[0]]", "[1, 2, 3, 4, 5, 6, 7, 8, 9]")


@pytest.mark.parametrize("payload", HOSTILE_PAYLOADS.values(), ids=HOSTILE_PAYLOADS)
def test_a_hostile_rule_is_refused_or_short(payload: Any) -> None:
    """Whatever 1,024 characters are filled with: 50 ms of processor time at most, by the estimate or by refusal."""
    slow = []
    for target in TARGETS:
        for body in BODIES:
            rule = compile_rule(_filled(f"{target}.all(x, ", body, ")"))
            seconds = min(_processor_seconds(rule, payload) for _ in range(3))
            if seconds > 0.05:
                slow.append((target, body, seconds))
    assert slow == []


def _compile_seconds(source: str) -> float:
    began = time.thread_time()
    with contextlib.suppress(RuleRefused):
        compile_rule(source)
    return time.thread_time() - began


@pytest.mark.parametrize(
    ("opening", "middle", "closing"),
    [
        ("(", "true", ")"),
        ("[", "1", "]"),
        ("{1:", "1", "}"),
        ("!", "true", ""),
        ("true?1:", "1", ""),
        ("size(", "1", ")"),
    ],
)
def test_hostile_sources_are_read_quickly(opening: str, middle: str, closing: str) -> None:
    """Compiling is bounded too: brackets and chains to the last character, closed or not."""
    compile_rule("true")
    for end in (closing, ""):
        count = (LONGEST_SOURCE - 10) // len(opening + end)
        # another source each time, because what was compiled is remembered
        sources = [f"{opening * count}{middle}{end * count}//{attempt}" for attempt in range(3)]
        assert min(map(_compile_seconds, sources)) < 0.05


def test_the_estimate_bounds_what_is_evaluated() -> None:
    """The limit itself: a rule just below it runs, and what is above it does not."""
    source = "payload.a.all(x, x in payload.a)"
    work = read_source(source).work
    fits = max(n for n in range(1, 2_000) if work(n + 2, 1) <= LARGEST_WORK)
    assert result(source, {"a": list(range(fits))}) is True
    assert isinstance(result(source, {"a": list(range(fits + 1))}), RuleFailure)


def test_the_same_values_give_the_same_result() -> None:
    """Also where a loop goes through a map, in which one key is false and another fails: by the order of its keys."""
    rule = compile_rule("payload.all(key, payload[key] > 1)")
    assert {rule.evaluate(variables({"a": 0, "b": "x", "c": 2})) for _ in range(50)} == {False}
    failure = RuleFailure("combines values of different types")
    assert {rule.evaluate(variables({"a": "x", "b": 0, "c": 2})) for _ in range(50)} == {failure}
    literal = compile_rule("{'b': 1, 1: 2, 'a': 3}.exists(key, key == 1 || key < 'b')")
    assert {literal.evaluate(variables(None)) for _ in range(50)} == {True}


def _processor_seconds(rule: CelRule, payload: Any) -> float:
    request = variables(payload)
    began = time.thread_time()
    rule.evaluate(request)
    return time.thread_time() - began


def _filled(before: str, body: str, after: str) -> str:
    """As many bodies as fit into the longest source."""
    count = 1 + (LONGEST_SOURCE - len(before + body + after)) // len(f" && {body}")
    return before + " && ".join([body] * count) + after
