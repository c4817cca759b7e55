"""Which ledger a program writes to and as whom, and what it says where that cannot be."""

import re
from pathlib import Path

import pytest

from legivellum_worker import AsyncLedger, Ledger
from legivellum_worker.ledger_connection import LedgerConnection
from legivellum_worker.receipts import accepted, complete, question_id
from legivellum_worker.ulids import derived_ulid, new_ulid
from metagate_client.errors import MisconfiguredError
from metagate_client.packet import Packet

PACKET = Packet(
    b"",
    {
        "startup": {"startup_id": "x"},
        "principal_key": "welcomed",
        "services": {"ledger": {"type": "memorygate", "endpoint": "http://ledger:8001/base"}},
    },
)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    (tmp_path / "key").write_text("mgk_of_a_file\n")
    return tmp_path / "key"


def made(credential: object) -> LedgerConnection:
    return Ledger("http://ledger:8001", credential, principal="triage")  # type: ignore[arg-type]


def test_a_credential_is_a_text_a_file_or_a_function(key: Path) -> None:
    """A token is what has the parts of one. A file is read anew, as tokens are renewed in place."""
    assert made("mgk_of_a_text").calls.access.credential() == ("X-API-Key", "mgk_of_a_text")
    assert made("eyJ.eyJ.sig").calls.access.credential() == ("Authorization", "Bearer eyJ.eyJ.sig")
    assert made(lambda: "mgk_of_a_function").calls.access.credential() == ("X-API-Key", "mgk_of_a_function")
    ledger = made(key)
    assert ledger.calls.access.credential() == ("X-API-Key", "mgk_of_a_file")
    key.write_text("eyJ.renewed.sig")
    assert ledger.calls.access.credential() == ("Authorization", "Bearer eyJ.renewed.sig")


def test_nothing_that_is_printed_holds_the_credential() -> None:
    assert repr(made("mgk_secret")) == "<Ledger http://ledger:8001 as triage>"
    assert "mgk_secret" not in repr(made("mgk_secret").calls.access)


@pytest.mark.parametrize(
    ("credential", "words"),
    [
        ("", "no API key or token"),
        ("two words", "no API key or token"),
        ("line\nbreak", "no API key or token"),
        (Path("/no/such/key"), "cannot read the credential file /no/such/key"),
    ],
)
def test_what_can_never_be_a_credential_is_an_error_at_once(credential: object, words: str) -> None:
    with pytest.raises(MisconfiguredError, match=re.escape(words)):
        made(credential)
    with pytest.raises(MisconfiguredError, match="url must be like"):
        Ledger("ledger:8001", "k", principal="p")


def test_from_a_packet(key: Path) -> None:
    """The ledger that it names, as the principal that it welcomes; settings win over it, arguments over both."""
    ledger = Ledger.from_packet(PACKET, environ={"METAGATE_API_KEY_FILE": str(key)})
    assert (ledger.calls.principal, ledger.calls.access.url) == ("welcomed", "http://ledger:8001/base")
    assert ledger.calls.access.credential() == ("X-API-Key", "mgk_of_a_file")
    environ = {"METAGATE_API_KEY_FILE": str(key), "METAGATE_MEMORYGATE_URL": "http://set:1"}
    assert Ledger.from_packet(PACKET, environ=environ).calls.access.url == "http://set:1"
    given = AsyncLedger.from_packet(PACKET, url="http://given:2", api_key_file=str(key), principal="me", environ={})
    assert isinstance(given, AsyncLedger)
    assert (given.calls.principal, given.calls.access.url) == ("me", "http://given:2")
    shared = Ledger.sharing(given)
    assert isinstance(shared, Ledger)
    assert shared.calls is given.calls


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "whose receipts are these?"),
        ({"principal": "p"}, "The ledger's address is not known: set METAGATE_MEMORYGATE_URL"),
        ({"principal": "p", "url": "http://ledger:8001"}, "there is no credential for memorygate"),
        ({"principal": "p", "url": "u", "token_file": "t", "api_key_file": "k"}, "choose one"),
    ],
)
def test_what_is_missing_is_named(options: dict[str, str], words: str) -> None:
    with pytest.raises(MisconfiguredError, match=re.escape(words)):
        Ledger.from_packet(environ={}, **options)


def test_ids() -> None:
    """Of the moment or of a text, always 26 characters of Crockford's alphabet; the first says the time alone."""
    assert re.fullmatch(r"[0-7][0-9A-HJKMNP-TV-Z]{25}", new_ulid())
    assert derived_ulid("a", 5) == derived_ulid("a", 5) != derived_ulid("b", 5)
    assert derived_ulid("a", 0)[:10] == "0" * 10
    assert derived_ulid("\ud800", 2**48 - 1).startswith("7ZZZZZZZZZ")


def test_a_question_is_named_by_task_person_and_text() -> None:
    names = {
        question_id(*words)
        for words in (("t", "a", "b"), ("t", "b", "b"), ("t", "a", "c"), ("u", "a", "b"), ("t", "a\0b", ""))
    }
    assert len(names) == 5
    assert question_id("t", "a", "b") == question_id("t", "a", "b")


def test_a_text_that_no_receipt_holds_is_an_error_of_the_program() -> None:
    """Counted in bytes; before anything is sent."""

    class Named:
        task_id = obligation_id = "t"
        principal_ai, receipt_id = "p", ""

    assert complete(Named(), text="é" * 32_768)["outcome_kind"] == "response_text"
    with pytest.raises(ValueError, match="65536 bytes"):
        complete(Named(), text="é" * 32_769)
    opened = accepted("t", owner="p")
    assert "recipient_ai" not in opened
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", opened["created_at"])
