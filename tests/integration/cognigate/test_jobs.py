"""CogniGate's jobs from lease to receipt, on real gates and a scripted model."""

import json
import time
import urllib.error
from typing import Any

import pytest
from tests.integration.cognigate.cogni_process import (
    AUTHORITY,
    CogniProcess,
    cognition,
    reason,
    revoke,
    wait_for_call,
)
from tests.integration.cognigate.model_server import ModelServer, completion, cut, raw, replies


def test_an_output_is_stored_and_its_cost_is_on_the_receipt(cogni: CogniProcess, model: ModelServer) -> None:
    plan = cogni.plan()
    receipt = plan.wait_for("work")
    assert (receipt["status"], receipt["artifact_mime"]) == ("success", "text/markdown")
    assert cogni.gates.artifact(receipt["artifact_pointer"]) == (b"done", "text/markdown")
    usage = receipt["metadata"]["usage"]
    assert usage.pop("seconds") >= 0
    assert [len(digest) for digest in usage.pop("replies")] == [64]
    assert usage == {
        "model": "scripted-1", "alias": "default", "calls": 1, "prompt_tokens": 100, "cached_tokens": 7, "completion_tokens": 20, "tools": {},
    }  # fmt: skip
    [asked] = model.asked
    assert (asked["path"], asked["model"], asked["temperature"]) == ("/v1/chat/completions", "scripted-1", 0)
    assert isinstance(asked["seed"], int)
    assert 0 < asked["max_tokens"] < 4_000
    system, user = asked["messages"]
    assert "Summarise in five sentences." in system["content"]
    assert "A document." not in system["content"]
    assert "A document." in user["content"]


GARBAGE = {
    "no JSON": raw(b"{garbage"),
    "half JSON": raw(json.dumps(completion()).encode()[:40]),
    "HTML with 200": raw(b"<html><body>Welcome</body></html>", media="text/html"),
    "five megabytes": raw(json.dumps(completion("x" * 5_000_000)).encode()),
    "five megabytes without a length": raw(b" " * 5_000_000, Content_Length=""),
    "no choices": replies({"choices": []}),
    "no text": replies({"choices": [{"message": {"content": [1]}, "finish_reason": "stop"}]}),
    "deep": raw(b"[" * 100_000),
    "a finish of its own": replies(completion(finish="whatever")),
    "no HTTP": lambda handler, _: handler.wfile.write(b"SSH-2.0-OpenSSH\r\n\r\n"),
}


@pytest.mark.parametrize("name", GARBAGE)
def test_what_is_no_answer_of_the_protocol_is_a_call(cogni: CogniProcess, model: ModelServer, name: str) -> None:
    """It is asked again while a call is left; what comes then counts."""
    model.script = [GARBAGE[name]]
    assert reason(cogni.receipt()) is None
    assert len(model.asked) == 2
    model.otherwise = GARBAGE[name]
    receipt = cogni.receipt()
    assert reason(receipt) == "MODEL_GARBAGE"
    assert receipt["metadata"]["usage"]["calls"] == 3
    assert len(model.asked) == 5


def test_no_redirect_is_followed(cogni: CogniProcess, model: ModelServer) -> None:
    model.otherwise = raw(b"", status=307, Location=f"{model.url}/elsewhere")
    assert reason(cogni.receipt()) == "MODEL_GARBAGE"
    assert {asked["path"] for asked in model.asked} == {"/v1/chat/completions"}


AWAY = {
    "a rate limit for an hour": raw(b"{}", status=429, Retry_After="3600"),
    "a broken server": raw(b"oops", status=500),
    "cut in the middle": cut,
    "a refused credential": raw(b"{}", status=401),
}


@pytest.mark.parametrize("name", [*AWAY, "silence", "a byte now and then"])
@pytest.mark.invariant("INV-088")
def test_a_model_that_is_away_gives_the_job_back(cogni: CogniProcess, model: ModelServer, name: str) -> None:
    """No receipt says anything about the task; another lease may find the model again."""
    others = {"silence": model.silent, "a byte now and then": model.trickling}
    model.otherwise = AWAY[name] if name in AWAY else others[name]()
    plan = cogni.plan(authority=cognition(calls=2, seconds=5))
    wait_for_call(cogni.gates.asyncgate.calls, "POST /lease/release")
    assert not {"complete", "escalate"} & set(plan.phases("work"))
    assert len(model.asked) <= 2
    revoke(plan)


def test_a_refused_credential_is_counted_for_an_alert(cogni: CogniProcess, model: ModelServer) -> None:
    model.otherwise = raw(b"{}", status=403)
    plan = cogni.plan()
    wait_for_call(cogni.gates.asyncgate.calls, "POST /lease/release")
    assert 'cognigate_model_calls_total{outcome="unauthorized"}' in cogni.get("/metrics")
    revoke(plan)


REFUSALS = {
    "a filter": replies(completion(finish="content_filter")),
    "a refusal": replies({"choices": [{"message": {"refusal": "no"}, "finish_reason": "stop"}]}),
    "a bad request": raw(b"{}", status=400),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_ends_the_job(cogni: CogniProcess, model: ModelServer, name: str) -> None:
    model.otherwise = REFUSALS[name]
    assert reason(cogni.receipt()) == "MODEL_REFUSED"
    assert len(model.asked) == 1


# ── limits ───────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.invariant("INV-089")
@pytest.mark.parametrize(("calls", "ended"), [(2, "LIMIT_CALLS"), (3, None), (4, None)])
def test_calls_end_at_their_limit(cogni: CogniProcess, model: ModelServer, calls: int, ended: str | None) -> None:
    """A job that needs three: two answers ask for a tool that there is not."""
    wants = replies(completion(None, calls=[("no__tool", {})]))
    model.script = [wants, wants]
    receipt = cogni.receipt(authority=cognition(calls=calls))
    assert reason(receipt) == ended
    assert len(model.asked) == receipt["metadata"]["usage"]["calls"] == min(calls, 3)


def counted(prompt: int, completed: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": completed}


@pytest.mark.invariant("INV-089")
@pytest.mark.parametrize(("used", "ended"), [(1_999, None), (2_000, None), (2_001, "LIMIT_TOKENS")])
def test_tokens_end_at_their_limit(cogni: CogniProcess, model: ModelServer, used: int, ended: str | None) -> None:
    model.otherwise = replies(completion(usage=counted(500, used - 500)))
    receipt = cogni.receipt(authority=cognition(tokens=2_000))
    assert reason(receipt) == ended
    usage = receipt["metadata"]["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == min(used, 2_000)


LIES = {
    "negative": counted(100, -1),
    "of a text": {"prompt_tokens": "100", "completion_tokens": "1"},
    "true": {"prompt_tokens": True, "completion_tokens": True},
    "none": None,
    "far too small": counted(1, 0),
    "of another kind": [1, 2],
}


@pytest.mark.invariant("INV-089")
@pytest.mark.parametrize("name", LIES)
def test_a_lying_usage_counts_as_the_maximum(cogni: CogniProcess, model: ModelServer, name: str) -> None:
    """The answer is taken; a further question is not asked."""
    long = "word " * 40
    model.otherwise = replies(completion(long, usage=LIES[name]))
    usage = cogni.receipt()["metadata"]["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 4_000
    model.script = [replies(completion(None, calls=[("no__tool", {"text": long})], usage=LIES[name]))]
    model.asked.clear()
    assert reason(cogni.receipt()) == "LIMIT_TOKENS"
    assert len(model.asked) == 1


def test_a_billion_tokens_end_the_job(cogni: CogniProcess, model: ModelServer) -> None:
    model.otherwise = replies(completion(usage=counted(10**9, 10**9)))
    receipt = cogni.receipt()
    assert reason(receipt) == "LIMIT_TOKENS"
    usage = receipt["metadata"]["usage"]
    assert usage["prompt_tokens"] + usage["completion_tokens"] == 4_000


@pytest.mark.invariant("INV-089")
def test_a_question_that_cannot_be_paid_is_not_asked(cogni: CogniProcess, model: ModelServer) -> None:
    assert reason(cogni.receipt(authority=cognition(tokens=20))) == "LIMIT_TOKENS"
    assert model.asked == []


@pytest.mark.invariant("INV-089")
def test_seconds_end_at_their_limit(cogni: CogniProcess, model: ModelServer) -> None:
    """A model that answers, slowly: two seconds are enough for one answer, and not for two."""
    slow = replies(completion(None, calls=[("no__tool", {})]), seconds=1.2)
    model.script = [slow]
    assert reason(cogni.receipt(authority=cognition(seconds=2))) is None
    model.script = [slow, slow]
    assert reason(cogni.receipt(authority=cognition(seconds=2))) == "LIMIT_SECONDS"


@pytest.mark.parametrize(("size", "ended"), [(9, None), (10, None), (11, "OUTPUT_TOO_LARGE")])
def test_outputs_end_at_their_limit(cogni: CogniProcess, model: ModelServer, size: int, ended: str | None) -> None:
    model.otherwise = replies(completion("x" * size))
    plan = cogni.plan({"output": {"mime": "text/plain", "maxBytes": 10}})
    receipt = plan.wait_for("work")
    assert reason(receipt) == ended
    assert len(cogni.gates.artifacts_of(plan.task_id("work"))) == (ended is None)


def test_an_answer_that_was_cut_is_no_output(cogni: CogniProcess, model: ModelServer) -> None:
    model.otherwise = replies(completion("half of", finish="length"))
    assert reason(cogni.receipt()) == "OUTPUT_TRUNCATED"


# ── the output ───────────────────────────────────────────────────────────────────────────────────────────────────────

SCHEMA = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
SCHEMED = {"output": {"mime": "application/json", "schema": SCHEMA}}


def test_an_output_is_mended_once(cogni: CogniProcess, model: ModelServer) -> None:
    """The model is told what is wrong with it; the second try counts."""
    model.script = [replies(completion('{"n": "one"}')), replies(completion('{"n": 1}'))]
    receipt = cogni.receipt(SCHEMED)
    assert cogni.gates.artifact(receipt["artifact_pointer"])[0] == b'{"n": 1}'
    first, second = model.asked
    assert first["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "$.n" in second["messages"][-1]["content"]


@pytest.mark.parametrize(("calls", "asked"), [(1, 1), (3, 2)])
def test_an_output_that_stays_wrong_is_a_failure(
    cogni: CogniProcess, model: ModelServer, calls: int, asked: int
) -> None:
    model.otherwise = replies(completion("no JSON"))
    assert reason(cogni.receipt(SCHEMED, authority=cognition(calls=calls))) == "OUTPUT_INVALID"
    assert len(model.asked) == asked


# ── authority ────────────────────────────────────────────────────────────────────────────────────────────────────────


def without(*path: str) -> dict[str, Any]:
    authority = json.loads(json.dumps(AUTHORITY))
    *parents, last = path
    holder = authority
    for parent in parents:
        holder = holder[parent]
    del holder[last]
    return authority


REFUSED_AUTHORITIES = {
    "nothing": {},
    "no invokeCognigate": without("invokeCognigate"),
    "no cognition": without("cognition"),
    "no models": without("cognition", "models"),
    "no calls": without("cognition", "calls"),
    "no tokens": without("cognition", "tokens"),
    "no seconds": without("cognition", "seconds"),
    "no writeBeyondReceipts": without("writeBeyondReceipts"),
    "no sinks": without("sinks"),
    "another role": {**AUTHORITY, "sinks": ["depotgate/supporting"]},
    "another gate": {**AUTHORITY, "sinks": ["elsewhere/output"]},
    "a model that is not declared": cognition(models=["other"]),
}


@pytest.mark.invariant("INV-124", "INV-090")
@pytest.mark.parametrize("name", REFUSED_AUTHORITIES)
def test_what_is_absent_is_denied(cogni: CogniProcess, model: ModelServer, name: str) -> None:
    """Nothing is asked and nothing is written; the receipt says so."""
    plan = cogni.plan(authority=REFUSED_AUTHORITIES[name])
    assert reason(plan.wait_for("work")) == "AUTHORITY_INSUFFICIENT"
    assert model.asked == []
    assert cogni.gates.artifacts_of(plan.task_id("work")) == []
    assert not [call for call in cogni.gates.depotgate.calls if call.startswith("POST")]


@pytest.mark.invariant("INV-090")
@pytest.mark.parametrize("sink", ["../output", "http://elsewhere/output", "depotgate/../output", "/depotgate/output"])
def test_a_sink_that_leads_elsewhere_is_no_sink(cogni: CogniProcess, sink: str) -> None:
    """AsyncGate takes no such authority, so no lease has one."""
    with pytest.raises(urllib.error.HTTPError) as refused:
        cogni.plan(authority={**AUTHORITY, "sinks": [sink]})
    refused.value.close()
    assert refused.value.code in {403, 422}


@pytest.mark.invariant("INV-091", "INV-124")
def test_a_tool_that_is_not_exposed_is_not_called(cogni: CogniProcess, model: ModelServer) -> None:
    """Fifty calls of it in one answer are as many as three."""
    model.otherwise = replies(completion(None, calls=[("mail__send", {"to": "somebody"})] * 50))
    receipt = cogni.receipt()
    assert reason(receipt) == "TOOL_NOT_GRANTED"
    assert receipt["metadata"]["usage"]["tools"] == {}
    assert "tools" not in model.asked[0]


def test_an_input_that_is_no_text_is_refused(cogni: CogniProcess, model: ModelServer) -> None:
    pointer = cogni.gates.deposit("principal", b"\xff\xfe\x00", "input", "application/octet-stream")
    assert reason(cogni.receipt({"inputs": [{"name": "image", "pointer": pointer}]})) == "INPUT_REFUSED"
    assert model.asked == []


def test_views_say_numbers_and_nothing_else(cogni: CogniProcess) -> None:
    """Without a credential, because they name nobody."""
    before = cogni.get("/v1/interview")
    assert cogni.receipt()["status"] == "success"
    until = time.monotonic() + 10
    while (after := cogni.get("/v1/interview"))["counts"]["jobs_success"] == before["counts"]["jobs_success"]:
        assert time.monotonic() < until
    assert set(after) == {"gate", "version", "as_of", "counts"}
    assert all(type(count) is int for count in after["counts"].values())
    assert after["counts"]["completion_tokens"] - before["counts"]["completion_tokens"] == 20
    assert cogni.get("/")["service"] == "CogniGate"
    assert set(cogni.get("/openapi.json")["paths"]) == {
        "/", "/health", "/livez", "/readyz", "/metrics", "/openapi.json", "/v1/interview",
    }  # fmt: skip
