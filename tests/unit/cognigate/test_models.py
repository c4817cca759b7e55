"""One contract for every model client: over HTTP, built in, written down."""

import json
import time
from collections.abc import Callable, Iterator

import pytest
from tests.integration.cognigate.model_server import ModelServer, completion, cut, raw, replies
from tests.unit.cognigate.scripted import WrittenModel

from cognigate.extractive import NOTICE, ExtractiveModel
from cognigate.prompts import first_messages
from legivellum_worker.chat_completions import LARGEST_REPLY, ChatCompletions, parse_reply
from legivellum_worker.models import Ask, ModelAway, ModelClient, ModelGarbage, ModelRefused
from legivellum_worker.plan_step import StepJob
from metagate_client.errors import MisconfiguredError

TEXT = b"Gates keep receipts. The ledger keeps receipts of gates. The weather is fine."
MESSAGES = first_messages(StepJob({"instruction": "Summarise."}), {"document": TEXT})
ASK = Ask("scripted-1", MESSAGES)


@pytest.fixture(scope="module")
def model_server() -> Iterator[ModelServer]:
    with ModelServer().serving() as server:
        yield server


@pytest.fixture
def server(model_server: ModelServer) -> ModelServer:
    model_server.reset()
    return model_server


def soon() -> float:
    return time.monotonic() + 10


CLIENTS: dict[str, Callable[[ModelServer], ModelClient]] = {
    "chat completions": lambda server: ChatCompletions("scripted-1", server.url),
    "extractive": lambda _server: ExtractiveModel(),
    "scripted": lambda _server: WrittenModel(["done"]),
}


@pytest.mark.parametrize("name", CLIENTS)
def test_a_reply_has_all_that_is_promised(server: ModelServer, name: str) -> None:
    client = CLIENTS[name](server)
    reply = client.reply(ASK, soon())
    assert client.name
    assert reply.text
    assert reply.finish in {"stop", "length"}
    assert reply.usage is not None
    assert reply.usage.prompt > 0
    assert reply.usage.completion > 0
    assert len(reply.raw_sha256) == 64
    assert reply.tool_calls == ()


@pytest.mark.parametrize("name", CLIENTS)
def test_what_is_deterministic_says_the_same_again(server: ModelServer, name: str) -> None:
    client = CLIENTS[name](server)
    first, second = client.reply(ASK, soon()), client.reply(ASK, soon())
    assert not client.deterministic or (first.text, first.raw_sha256) == (second.text, second.raw_sha256)


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (raw(b"{}", status=503), ModelAway),
        (raw(b"{}", status=429), ModelAway),
        (raw(b"{}", status=401), ModelAway),
        (cut, ModelAway),
        (raw(b"{}", status=404), ModelRefused),
        (raw(b"{}", status=302, Location="/v1/elsewhere"), ModelGarbage),
        (raw(b"<html>"), ModelGarbage),
        (replies(completion("x" * LARGEST_REPLY)), ModelGarbage),
        (replies({"choices": [{"message": {"content": "x"}}]}), ModelGarbage),
    ],
)
def test_three_ways_to_have_no_reply(server: ModelServer, answer: object, error: type[Exception]) -> None:
    server.otherwise = answer  # type: ignore[assignment]
    with pytest.raises(error):
        ChatCompletions("scripted-1", server.url).reply(ASK, soon())
    assert len(server.asked) == 1


def test_nobody_there_was_not_asked(server: ModelServer) -> None:
    with pytest.raises(ModelAway) as away:
        ChatCompletions("scripted-1", "http://127.0.0.1:1/v1").reply(ASK, soon())
    assert not away.value.was_asked


def test_a_deadline_is_one_also_for_a_byte_now_and_then(server: ModelServer) -> None:
    server.otherwise = server.trickling()
    before = time.monotonic()
    with pytest.raises(ModelAway) as away:
        ChatCompletions("scripted-1", server.url).reply(ASK, before + 1)
    assert away.value.was_asked
    assert time.monotonic() - before < 3


def test_a_cancelled_question_ends_within_a_second(server: ModelServer) -> None:
    server.otherwise = server.silent()
    before = time.monotonic()
    with pytest.raises(ModelAway):
        ChatCompletions("scripted-1", server.url).reply(
            Ask("scripted-1", MESSAGES, is_cancelled=lambda: len(server.asked) > 0), before + 30
        )
    assert time.monotonic() - before < 3


@pytest.mark.parametrize(
    ("structured", "schema", "expected"),
    [
        ("json_schema", {"type": "object"}, {"type": "json_schema", "json_schema": {"name": "output", "schema": {"type": "object"}}}),
        ("json_object", {"type": "object"}, {"type": "json_object"}),
        ("none", {"type": "object"}, None),
        ("json_schema", None, None),
    ],
)  # fmt: skip
def test_how_a_schema_is_asked_for(server: ModelServer, structured: str, schema: object, expected: object) -> None:
    client = ChatCompletions("scripted-1", server.url, structured=structured)  # type: ignore[arg-type]
    client.reply(Ask("scripted-1", MESSAGES, output_schema=schema), soon())  # type: ignore[arg-type]
    assert server.asked[0].get("response_format") == expected


def test_the_key_is_sent_and_read_anew(server: ModelServer) -> None:
    keys = iter(["first", "second"])
    client = ChatCompletions("scripted-1", server.url, key=lambda: next(keys))
    client.reply(ASK, soon())
    client.reply(ASK, soon())
    assert [headers["Authorization"] for headers in server.headers] == ["Bearer first", "Bearer second"]


def test_a_key_that_cannot_be_read_is_a_refused_credential(server: ModelServer) -> None:
    def unreadable() -> str:
        raise MisconfiguredError("no file")

    with pytest.raises(ModelAway) as away:
        ChatCompletions("scripted-1", server.url, key=unreadable).reply(ASK, soon())
    assert (away.value.is_unauthorized, away.value.was_asked) == (True, False)
    assert server.asked == []


def test_half_a_character_becomes_a_question_mark() -> None:
    """JSON can spell it, and no file can hold it."""
    body = b'{"choices": [{"message": {"content": "a\\ud800b"}, "finish_reason": "stop"}]}'
    assert parse_reply(body).text == "a?b"


def test_the_built_in_one_obeys_its_tokens() -> None:
    """Fewer sentences, then the word that it was cut."""
    model = ExtractiveModel()
    whole = model.reply(ASK, soon())
    assert whole.text.startswith(NOTICE)
    assert whole.usage is not None
    fewer = model.reply(Ask("x", MESSAGES, max_tokens=whole.usage.completion - 1), soon())
    assert fewer.usage is not None
    assert fewer.usage.completion < whole.usage.completion
    assert model.reply(Ask("x", MESSAGES, max_tokens=1), soon()).finish == "length"


def test_the_built_in_one_does_not_take_the_instruction_for_text() -> None:
    counts = {"type": "object", "properties": {"counts": {}}}
    reply = ExtractiveModel().reply(Ask("x", MESSAGES, output_schema=counts), soon())
    assert json.loads(reply.text)["counts"] == {"inputs": 1, "sentences": 3, "words": 13}


def test_the_built_in_one_merges_its_own_summaries() -> None:
    """What they say of themselves is no sentence of a document, and a list item is one without its mark."""
    summaries = {
        name: ExtractiveModel().reply(Ask("x", first_messages(StepJob({}), {"document": text})), soon()).text.encode()
        for name, text in {"one": TEXT, "two": b"Boats need harbours. Harbours need boats."}.items()
    }
    merged = ExtractiveModel().reply(Ask("x", first_messages(StepJob({}), summaries)), soon()).text
    assert merged.count(NOTICE) == merged.count("Key words: ") == 1
    assert "- - " not in merged
    assert "- Boats need harbours.\n" in merged
    assert "5 sentences, 19 words, 2 inputs." in merged
