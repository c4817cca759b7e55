"""CogniGate's client and its loop with a real model behind llama.cpp's server: what is asked, counted, refused and cut off."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.cognigate.cogni_process import CogniProcess, cognition
from tests.integration.worker.plan_fixture import PlanGates

from legivellum_worker.chat_completions import ChatCompletions
from legivellum_worker.models import Ask, ModelAway, ModelRefused

pytestmark = pytest.mark.timeout(300)

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 20}},
    "required": ["city"],
    "additionalProperties": False,
}


def ask(text: str, **more: Any) -> Ask:
    return Ask("smollm2", ({"role": "user", "content": text},), **{"max_tokens": 8, **more})


def test_a_reply_says_what_it_cost(model_url: str) -> None:
    """Text, how it ended, real counts; the same question again is partly cached, and says so."""
    model = ChatCompletions("smollm2", model_url)
    first = model.reply(ask("Count from one to one hundred."), time.monotonic() + 120)
    assert first.finish == "length"
    assert first.text
    assert first.usage is not None
    assert (first.usage.completion, first.usage.prompt > 8) == (8, True)
    again = model.reply(ask("Count from one to one hundred."), time.monotonic() + 120)
    assert again.usage is not None
    assert again.usage.cached > 0
    assert (again.text, again.usage.prompt) == (first.text, first.usage.prompt)


def test_a_schema_is_obeyed(model_url: str) -> None:
    """Which city it is, is the model's affair."""
    model = ChatCompletions("smollm2", model_url)
    reply = model.reply(ask("Name a city.", output_schema=SCHEMA, max_tokens=60), time.monotonic() + 120)
    assert reply.finish == "stop"
    assert list(json.loads(reply.text)) == ["city"]


def test_what_the_server_does_not_take_is_a_refusal(model_url: str) -> None:
    """More tokens than its context holds."""
    with pytest.raises(ModelRefused, match="400"):
        ChatCompletions("smollm2", model_url).reply(ask("word " * 4_000), time.monotonic() + 120)


def test_a_deadline_ends_the_wait_and_not_the_server(model_url: str) -> None:
    model = ChatCompletions("smollm2", model_url)
    began = time.monotonic()
    with pytest.raises(ModelAway) as raised:
        model.reply(ask("Tell a very long story.", max_tokens=1_000), began + 1)
    assert raised.value.was_asked
    assert time.monotonic() - began < 5
    assert model.reply(ask("Say hello."), time.monotonic() + 120).text


def test_a_job_ends_with_what_the_model_really_used(cogni_gates: PlanGates, model_url: str, tmp_path: Path) -> None:
    """Lease, model, check, deposit, one end: success, or the limit that the job has, and the tokens that the server counted."""
    settings = {"LLM_URL": model_url, "LLM_MODEL": "smollm2", "COGNIGATE_ASK_SECONDS": "120"}
    process = CogniProcess(cogni_gates, tmp_path, settings)
    process.start()
    try:
        job = {
            "instruction": "Repeat the document.",
            "inputs": [{"name": "document", "value": "The harbour is closed."}],
        }
        receipt = process.receipt(job, authority=cognition(calls=1, tokens=600, seconds=240))
    finally:
        process.stop()
    assert receipt["phase"] == "complete"
    usage = receipt["metadata"]["usage"]
    assert usage["calls"] == 1
    assert usage["prompt_tokens"] > 20
    assert usage["completion_tokens"] > 0
    if receipt["status"] == "success":
        assert receipt["artifact_size_bytes"] > 0
    else:
        assert receipt["metadata"]["reason"].startswith("LIMIT_")
