"""CogniGate's jobs from lease to receipt, on real gates and a scripted model."""

from tests.integration.cognigate.cogni_process import CogniProcess
from tests.integration.cognigate.model_server import ModelServer


def test_an_output_is_stored_and_its_cost_is_on_the_receipt(cogni: CogniProcess, model: ModelServer) -> None:
    plan = cogni.plan()
    receipt = plan.wait_for("work")
    assert (receipt["status"], receipt["artifact_mime"]) == ("success", "text/markdown")
    assert cogni.gates.artifact(receipt["artifact_pointer"]) == (b"done", "text/markdown")
    usage = receipt["metadata"]["usage"]
    assert usage.pop("seconds") >= 0
    assert [len(digest) for digest in usage.pop("replies")] == [64]
    assert usage == {
        "model": "scripted-1", "calls": 1, "prompt_tokens": 100, "cached_tokens": 7, "completion_tokens": 20, "tools": {},
    }  # fmt: skip
    [asked] = model.asked
    assert (asked["path"], asked["model"], asked["temperature"]) == ("/v1/chat/completions", "scripted-1", 0)
    assert isinstance(asked["seed"], int)
    assert 0 < asked["max_tokens"] < 4_000
    system, user = asked["messages"]
    assert "Summarise in five sentences." in system["content"]
    assert "A document." not in system["content"]
    assert "A document." in user["content"]
