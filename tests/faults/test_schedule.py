"""The random schedule: the same for the same seed, every fault in it, and nothing that leaks passes for flat."""

from dataclasses import replace
from itertools import islice

import pytest
from tests.faults import endurance, holding, table
from tests.faults.endurance import PlayedTurn, excused, judged
from tests.faults.history import BROKEN, RecordedCall, RequestHistory
from tests.faults.holding import ResourceReading
from tests.faults.repertoire import REPERTOIRE
from tests.faults.schedule import ScheduledTurn, draw_turns

HOLDS = {name: fault.holds for name, fault in REPERTOIRE.items()}


def test_a_seed_is_a_schedule() -> None:
    """The same seed draws the same turns with the same numbers, another one others; each round plays every fault."""
    drawn = list(islice(draw_turns(7, HOLDS), 60))
    again = list(islice(draw_turns(7, HOLDS), 60))
    assert drawn == again
    assert [item.random("crash").random() for item in drawn] == [item.random("crash").random() for item in again]
    assert drawn != list(islice(draw_turns(8, HOLDS), 60))
    assert len({item.seed for item in drawn}) == 60
    for first in range(0, 60, len(HOLDS)):
        assert {item.faults[0] for item in drawn[first : first + len(HOLDS)]} == set(HOLDS)


def test_faults_of_a_turn_can_meet() -> None:
    """One to three at once, and never two that take hold of the same thing."""
    drawn = list(islice(draw_turns(1, HOLDS), 500))
    assert {len(item.faults) for item in drawn} == {1, 2, 3}
    assert all(len({HOLDS[name] for name in item.faults}) == len(item.faults) for item in drawn)


def test_the_repertoire_is_of_the_table() -> None:
    """Each fault that is composed is one of the table's rows."""
    assert {fault.row for fault in REPERTOIRE.values()} <= {row.name for row in table.ROWS}


def readings(grow: int = 0, files: int = 0, connections: int = 0) -> list[ResourceReading]:
    return [
        ResourceReading(
            float(at), at % 3 != 0, 2 * (80 << 20), (80 << 20) + grow * at, 40 + files * at // 600, 8 + connections * at // 600
        )
        for at in range(600)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("read", "grown"),
    [
        (readings(), []),
        (readings(grow=50_000), ["bytes of the oldest worker"]),
        (readings(files=30), ["files of the oldest worker"]),
        (readings(connections=12), ["connections to the database"]),
    ],
    ids=["flat", "memory", "files", "connections"],
)
def test_what_grows_is_noticed(read: list[ResourceReading], grown: list[str]) -> None:
    """Thirty megabytes, thirty files or twelve connections in ten minutes are a leak."""
    assert [item.what for item in holding.growth(read) if not item.flat] == grown


def crowd(more: int, since: float, until: float = 601) -> list[ResourceReading]:
    """So many megabytes more between two moments."""
    return [
        replace(reading, oldest_rss=reading.oldest_rss + (more << 20)) if since <= reading.at < until else reading
        for reading in readings()
    ]


@pytest.mark.parametrize(
    ("read", "flat"),
    [(crowd(20, 250), True), (crowd(20, 430), True), (crowd(200, 590, 600), True), (crowd(60, 430), False)],
    ids=["in the middle", "at the end", "still there", "too large"],
)
def test_a_crowd_is_no_leak(read: list[ResourceReading], *, flat: bool) -> None:
    """A heap that grew once stays grown, and what goes again was no leak."""
    assert all(item.flat for item in holding.growth(read)) is flat


def turn(*faults: str) -> ScheduledTurn:
    return ScheduledTurn(0, faults, "0/0")


def asked(at: float, status: int = 200) -> RecordedCall:
    return RecordedCall("list", "t/a", "", at, at + 0.01, status, {"retry_after": 1})


def test_each_turn_must_recover() -> None:
    """Success that comes back only six seconds after the second turn breaks I5, although all is well in the end."""
    played = [PlayedTurn(turn("crash"), 1.0, 2.0, 3.0), PlayedTurn(turn("drip"), 10.0, 11.0, 20.0)]
    good = [asked(2 + n / 50) for n in range(400)] + [asked(18 + n / 50) for n in range(400)]
    bad = [asked(11 + n / 10, 503) for n in range(65)]
    assert "I5" not in judged(RequestHistory(good), played, [])
    assert judged(RequestHistory(good + bad), played, [])["I5"] == ["turn 0 (drip): 6.1 s"]
    assert played[0].recovery == 0.0


def test_only_a_killed_worker_may_break_connections() -> None:
    """A connection that breaks in the turn of such a fault is excused, one that breaks in another is not."""
    played = [PlayedTurn(turn("worker killed"), 1.0, 2.0, 3.0), PlayedTurn(turn("drip"), 10.0, 11.0, 12.0)]
    assert excused(asked(1.5, BROKEN), played)
    assert not excused(asked(10.5, BROKEN), played)
    assert not excused(asked(1.5, 500), played)


def test_a_starved_machine_says_nothing_about_time() -> None:
    """What broke only in time is unclear where the machine had none; what was lost is lost."""
    fields = {"broken": {"I4": ["x"]}, "machine_kept_away": 0.5}
    assert endurance.unclear(fields)
    assert not endurance.unclear(fields | {"machine_kept_away": 0.1})
    assert not endurance.unclear(fields | {"broken": {"I1": ["x"]}})
