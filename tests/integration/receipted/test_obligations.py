"""Obligations as blocks and as functions: how each end is recorded, whose child it is, and what is never recorded."""

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable

import pytest
from tests.canaries import canaries_in, canary
from tests.integration.receipted.relayed_ledger import LOST, REFUSED, RelayedLedger

from legivellum_worker import NotRecorded, Refused, current_obligation, receipted


class PaymentDeclinedError(Exception):
    pass


@pytest.mark.parametrize(
    ("raised", "ended", "reason"),
    [
        (None, "success", None),
        (PaymentDeclinedError, "failure", "PaymentDeclinedError"),
        (KeyboardInterrupt, "canceled", "KeyboardInterrupt"),
        (asyncio.CancelledError, "canceled", "CancelledError"),
        (concurrent.futures.CancelledError, "canceled", "CancelledError"),
        (SystemExit, "canceled", "SystemExit"),
    ],
)
async def test_how_a_block_ends(
    relayed: RelayedLedger, raised: type[BaseException] | None, ended: str, reason: str | None
) -> None:
    """The exception passes unchanged, whichever it is."""

    def fail(kind: type[BaseException] | None) -> None:
        if kind is not None:
            raise kind("a text that nobody asked for")

    def act() -> None:
        ledger = relayed.ledger()
        expected = contextlib.nullcontext() if raised is None else pytest.raises(raised)
        with expected, ledger.obligation(task_id=relayed.task("block"), task_type="refund") as work:
            assert current_obligation() is work
            fail(raised)
            work.text("refunded")
            work.artifact(
                {"artifact_pointer": "s3://a/b", "artifact_location": "s3://a/b", "artifact_mime": "text/plain"}
            )
            work.usage(calls=3)
        assert current_obligation() is None

    await asyncio.to_thread(act)
    accepted, completed = await relayed.stored("block")
    assert (accepted["obligation_id"], accepted["attempt"]) == (f"{relayed.task('block')}:1", 1)
    assert completed["status"] == ended
    assert completed["caused_by_receipt_id"] == accepted["receipt_id"]
    assert completed["metadata"] == ({"usage": {"calls": 3}} if reason is None else {"reason": reason})
    assert completed.get("outcome_text") == ("refunded" if reason is None else None)
    assert completed.get("artifact_pointer") == ("s3://a/b" if reason is None else None)


async def test_a_block_whose_every_first_answer_is_lost(relayed: RelayedLedger) -> None:
    """Accepted, asked, answered, completed: each call is made twice, each receipt is there once."""

    def act() -> None:
        ledger, lead = relayed.ledger(), relayed.ledger("lead")
        relayed.answers = [LOST, None, LOST, None, LOST, None, LOST, None]
        with ledger.obligation(task_id=relayed.task("twice")) as work:
            question = work.ask("lead", "Refund?")
            assert work.answer(question) is None
        assert relayed.answers == []
        assert len(relayed.calls) == 8
        assert len(lead.inbox(task_id=relayed.task("twice"))) == 1

    await asyncio.to_thread(act)
    assert await relayed.phases("twice") == ["accepted", "accepted", "complete success"]


async def test_attempts_are_counted(relayed: RelayedLedger) -> None:
    """Two threads and an earlier attempt that never ended: each block has an obligation of its own."""
    names: list[str] = []
    both = threading.Barrier(2)

    def attempt() -> None:
        both.wait(20)
        with relayed.ledger().obligation(task_id=relayed.task("counted")) as work:
            names.append(work.obligation_id)

    def act() -> None:
        first = relayed.ledger().obligation(task_id=relayed.task("counted"))
        first.__enter__()
        threads = [threading.Thread(target=attempt) for _ in range(2)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

    await asyncio.to_thread(act)
    assert sorted(names) == [f"{relayed.task('counted')}:{n}" for n in (2, 3)]


async def test_an_attempt_that_somebody_numbers(relayed: RelayedLedger) -> None:
    """Entered again, as after a restart of the program, it is the same obligation; closed it is not opened again."""

    def act() -> None:
        ledger = relayed.ledger()
        ledger.obligation(task_id=relayed.task("numbered"), attempt=7).__enter__()
        with ledger.obligation(task_id=relayed.task("numbered"), attempt=7):
            pass
        with pytest.raises(Refused) as raised, ledger.obligation(task_id=relayed.task("numbered"), attempt=7):
            pass
        assert raised.value.code == "OBLIGATION_ALREADY_TERMINATED"

    await asyncio.to_thread(act)
    assert {receipt["obligation_id"] for receipt in await relayed.stored("numbered")} == {
        f"{relayed.task('numbered')}:7"
    }


async def test_an_escalated_block_ends_nothing(relayed: RelayedLedger) -> None:
    def escalate_and_fail() -> None:
        with relayed.ledger().obligation(task_id=relayed.task("moved")) as work:
            work.escalate("lead", "beyond my limit")
            raise PaymentDeclinedError

    def act() -> None:
        with relayed.ledger().obligation(task_id=relayed.task("moved")) as work:
            work.escalate("lead", "beyond my limit", escalation_class="policy")
        with pytest.raises(PaymentDeclinedError):
            escalate_and_fail()

    await asyncio.to_thread(act)
    assert await relayed.phases("moved") == ["accepted", "escalate", "accepted", "escalate"]


async def test_calls_inside_calls_are_children(relayed: RelayedLedger) -> None:
    """Blocking functions inside coroutines, through `to_thread` and `gather`; a thread by hand begins a root."""
    ledger = relayed.async_ledger()
    roots: list[object] = []

    def task_id(name: str) -> str:
        return relayed.task(name)

    @receipted(ledger, task_type="leaf", task_id=task_id)
    def leaf(name: str) -> None:
        current = current_obligation()
        assert current is not None
        roots.append(current.task_id)

    @receipted(ledger, task_type="branch", task_id=task_id)
    async def branch(name: str) -> None:
        await asyncio.to_thread(leaf, f"{name}-leaf")

    @receipted(ledger, task_id=task_id)
    async def root(name: str) -> str:
        await asyncio.gather(branch("b1"), branch("b2"))
        by_hand = threading.Thread(target=leaf, args=("by-hand",))
        by_hand.start()
        inherited = contextvars.copy_context()
        await asyncio.to_thread(by_hand.join)
        await asyncio.to_thread(inherited.run, leaf, "inherited")
        return name

    assert await root("root") == "root"
    accepted = {
        receipt["task_id"].removesuffix(f"-{relayed.unique}"): receipt
        for receipt in await relayed.stored()
        if receipt["phase"] == "accepted"
    }
    parents = {name: receipt.get("parent_task_id") for name, receipt in accepted.items()}
    assert parents == {
        "root": None,
        "b1": relayed.task("root"),
        "b2": relayed.task("root"),
        "b1-leaf": relayed.task("b1"),
        "b2-leaf": relayed.task("b2"),
        "by-hand": None,
        "inherited": relayed.task("root"),
    }
    assert accepted["b1-leaf"]["caused_by_receipt_id"] == accepted["b1"]["receipt_id"]
    assert accepted["root"]["task_type"].endswith("root")
    assert (await relayed.phases()).count("complete success") == len(accepted)


async def test_nothing_is_recorded_that_nobody_gave(relayed: RelayedLedger) -> None:
    """Arguments, results, texts of exceptions, locals: in no byte that is sent."""
    canaries = {name: canary() for name in ("argument", "keyword", "result", "exception", "key")}
    canaries["key"] = relayed.served.principals["triage"].key

    @receipted(relayed.ledger(), task_type="secret")
    def charge(card: str, *, pin: str) -> str:
        if pin == "wrong":
            raise PaymentDeclinedError(canaries["exception"], card)
        return canaries["result"]

    def act() -> None:
        assert charge(canaries["argument"], pin=canaries["keyword"]) == canaries["result"]
        with pytest.raises(PaymentDeclinedError):
            charge(canaries["argument"], pin="wrong")

    await asyncio.to_thread(act)
    assert len(relayed.raw) == 4
    assert canaries_in(canaries, {"what was sent": b"\n".join(relayed.raw).decode()}) == []


async def test_what_is_given_is_recorded(relayed: RelayedLedger) -> None:
    @receipted(
        relayed.ledger(),
        task_type="ticket.triage",
        task_id=lambda ticket, **_: ticket["id"],
        inputs=lambda ticket, **_: {"ticket": ticket["id"]},
        summary="Triage a ticket",
        text=lambda result: f"priority {result}",
    )
    def triage(ticket: dict[str, str], *, mood: str) -> int:
        return 3

    assert await asyncio.to_thread(triage, {"id": relayed.task("given")}, mood="good") == 3
    accepted, completed = await relayed.stored("given")
    assert accepted["inputs"] == {"ticket": relayed.task("given")}
    assert (accepted["task_type"], accepted["task_summary"]) == ("ticket.triage", "Triage a ticket")
    assert completed["outcome_text"] == "priority 3"


def test_functions_keep_what_they_are(relayed: RelayedLedger) -> None:
    ledger = relayed.ledger()

    def named(value: int) -> int:
        """Says it."""
        return value

    def generator() -> object:
        yield 1

    async def coroutine() -> None:
        pass

    class Called:
        async def __call__(self) -> None:
            pass

        def method(self) -> None:
            pass

    wrapped = receipted(ledger)(named)
    assert (wrapped.__name__, wrapped.__doc__) == ("named", "Says it.")
    for awaited in (coroutine, functools.partial(coroutine), Called()):
        assert asyncio.iscoroutinefunction(receipted(ledger)(awaited))
    for blocking in (named, functools.partial(named, 1), Called().method, len):
        assert not asyncio.iscoroutinefunction(receipted(ledger)(blocking))
    with pytest.raises(TypeError, match="generator"):
        receipted(ledger)(generator)


# ── cancellation ─────────────────────────────────────────────────────────────────────────────────────────────────────


async def _cancelled_at(relayed: RelayedLedger, number: int, times: int = 1) -> None:
    """Cancel a block while its call of this number is on its way, before the ledger gets it."""
    arrived: asyncio.Event = asyncio.Event()
    loop = asyncio.get_running_loop()
    original: Callable[[], None] = relayed.arrived.set

    def on_arrival() -> None:
        if len(relayed.calls) == number:
            relayed.may_pass.clear()
            loop.call_soon_threadsafe(arrived.set)
        original()

    relayed.arrived.set = on_arrival  # type: ignore[method-assign]

    async def block() -> None:
        async with relayed.async_ledger().obligation(task_id=relayed.task("cancelled")) as work:
            await work.ask("lead", "Refund?")

    task = asyncio.create_task(block())
    await arrived.wait()
    for _ in range(times):
        task.cancel()
        await asyncio.sleep(0)
    relayed.may_pass.set()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [1, 2, 3])
async def test_a_coroutine_that_is_cancelled_leaves_nothing_open(
    relayed: RelayedLedger, number: int, times: int
) -> None:
    """While it is accepted, while it works, while it is completed; once, and again while it still waits for that."""
    await _cancelled_at(relayed, number, times)
    ended = "success" if number == 3 else "canceled"
    async with asyncio.timeout(20):
        while await _ends(relayed) != [ended]:
            await asyncio.sleep(0.02)


async def _ends(relayed: RelayedLedger) -> list[str]:
    """How the block's obligation ended; its question may be stored after that."""
    receipts = [receipt for receipt in await relayed.stored("cancelled") if ":ask:" not in receipt["obligation_id"]]
    return [receipt["status"] for receipt in receipts if receipt["phase"] == "complete"]


async def test_a_timeout_around_a_block(relayed: RelayedLedger) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2), relayed.async_ledger().obligation(task_id=relayed.task("timeout")):
            await asyncio.Event().wait()
    assert await relayed.phases("timeout") == ["accepted", "complete canceled"]


# ── the ledger is away ───────────────────────────────────────────────────────────────────────────────────────────────


async def test_work_that_cannot_be_accepted_does_not_begin(relayed: RelayedLedger) -> None:
    relayed.always = REFUSED
    began = []

    @receipted(relayed.ledger(seconds=0.3))
    def work() -> None:
        began.append(1)

    with pytest.raises(NotRecorded):
        await asyncio.to_thread(work)
    assert began == []


async def test_a_result_is_not_lost_with_its_receipt(relayed: RelayedLedger) -> None:
    """The completion could not be recorded: the exception has the result and the receipt, which is sent later."""
    relayed.answers = [None]
    relayed.always = REFUSED

    @receipted(relayed.ledger(seconds=0.3), task_id=relayed.task)
    def work(name: str) -> str:
        return "valuable"

    with pytest.raises(NotRecorded) as raised:
        await asyncio.to_thread(work, "kept")
    assert raised.value.result == "valuable"
    relayed.always = None
    await relayed.async_ledger().send(raised.value.receipt)
    assert await relayed.phases("kept") == ["accepted", "complete success"]


async def test_the_blocks_own_exception_wins(relayed: RelayedLedger) -> None:
    relayed.answers = [None]
    relayed.always = REFUSED
    work = relayed.async_ledger(seconds=0.3).obligation(task_id=relayed.task("both"))
    with pytest.raises(PaymentDeclinedError) as raised:
        async with work:
            raise PaymentDeclinedError
    assert "is not recorded" in raised.value.__notes__[0]
    assert isinstance(work.not_recorded, NotRecorded)
    relayed.always = None
    await relayed.async_ledger().send(work.not_recorded.receipt)
    assert await relayed.phases("both") == ["accepted", "complete failure"]


async def test_working_offline(relayed: RelayedLedger) -> None:
    """With `on_not_recorded` work goes on without a ledger; the receipts are sent later, by another process, in order."""
    relayed.always = LOST
    spool: list[str] = []
    ledger = relayed.ledger(seconds=0.1, on_not_recorded=lambda receipt: spool.append(json.dumps(receipt)))

    def act() -> None:
        with ledger.obligation(task_id=relayed.task("outer")), ledger.obligation(task_id=relayed.task("inner")) as work:
            work.ask("lead", "Refund?")

    await asyncio.to_thread(act)
    relayed.always = None
    for line in spool + spool:
        await relayed.async_ledger().send(json.loads(line))
    assert await relayed.phases("outer") == ["accepted", "complete success"]
    assert await relayed.phases("inner") == ["accepted", "accepted", "complete success"]
    inner = await relayed.stored("inner")
    assert inner[0]["parent_task_id"] == relayed.task("outer")


KILLED = """
import sys, time
from legivellum_worker import Ledger
ledger = Ledger(sys.argv[1], sys.argv[2], principal="triage")
with ledger.obligation(task_id=sys.argv[3]) as work:
    print(work.obligation_id, flush=True)
    time.sleep(0 if sys.argv[4] == "ends" else 600)
"""


async def test_a_program_that_is_killed_and_started_again(relayed: RelayedLedger) -> None:
    """The attempt that died stays open in its inbox, where it is seen and closed; the next one is another."""

    def start(how: str) -> subprocess.Popen[str]:
        key = relayed.served.principals["triage"].key
        command = [sys.executable, "-c", KILLED, relayed.url, key, relayed.task("dies"), how]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def act() -> None:
        with start("never") as died:
            assert died.stdout is not None
            assert died.stdout.readline().strip() == f"{relayed.task('dies')}:1"
            died.send_signal(signal.SIGKILL)
        with start("ends") as again:
            assert again.stdout is not None
            assert again.stdout.readline().strip() == f"{relayed.task('dies')}:2"
            assert again.wait(30) == 0
        [left] = relayed.ledger().inbox(task_id=relayed.task("dies"))
        assert left.obligation_id == f"{relayed.task('dies')}:1"
        relayed.ledger().complete(left, status="canceled", reason="KILLED")

    await asyncio.to_thread(act)
    assert await relayed.phases("dies") == ["accepted", "accepted", "complete success", "complete canceled"]


FORKED = """
import asyncio, os, sys
from legivellum_worker import AsyncLedger
ledger = AsyncLedger(sys.argv[1], sys.argv[2], principal="triage")
asyncio.run(ledger.accept(sys.argv[3]))
if os.fork() == 0:
    asyncio.run(ledger.accept(sys.argv[4]))
    os._exit(0)
sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


async def test_a_ledger_goes_on_in_a_forked_child(relayed: RelayedLedger) -> None:
    """As servers do that load their application and then fork."""
    key = relayed.served.principals["triage"].key
    words = [FORKED, relayed.url, key, relayed.task("parent"), relayed.task("child")]
    child = await asyncio.create_subprocess_exec(sys.executable, "-c", *words)
    try:
        assert await asyncio.wait_for(child.wait(), 30) == 0
    finally:
        if child.returncode is None:
            child.kill()
    assert await relayed.phases("child") == ["accepted"]
