"""Sixty faults on the whole system while fifty stories run: nothing is lost, twice, or against the receipts (CO-03).

`make chaos KILLS=1000` plays as many as one likes; docs/faults.md says what was found.
"""

from collections import Counter
from pathlib import Path

import pytest
from tests.integration.whole.chaos import play_piece
from tests.integration.whole.fault_plan import DATABASES, MOMENTS, PARTS, STEPS, TURNS, planned_faults

KILLS = 60
SEED = 2


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.invariant("INV-128")
async def test_nothing_is_lost_or_twice_whatever_is_killed(tmp_path: Path) -> None:
    """Each story that the system took ends once, with success; every gate can be made anew from receipts."""
    faults = planned_faults(SEED, KILLS)
    verdict, played, _ = await play_piece(faults, tmp_path / "piece")
    assert (verdict.lost, verdict.double, verdict.contradicting) == ([], [], [])
    assert played.total() == KILLS
    assert verdict.stories >= 50
    assert verdict.receipts > 33 * verdict.stories


def test_a_seed_plans_the_same_faults() -> None:
    """From any number on: what a piece plays does not depend on the pieces before it."""
    assert planned_faults(7, 100) == planned_faults(7, 40) + planned_faults(7, 60, 40)
    assert planned_faults(7, 100) != planned_faults(8, 100)


def test_every_fault_has_its_turn() -> None:
    """Databases are killed, every process at once and at each of its points; one of ten faults is a long stop."""
    faults = planned_faults(SEED, len(TURNS))
    assert {fault.part for fault in faults} == {*PARTS}
    assert 0.09 < Counter(fault.how for fault in faults)["stop"] / len(faults) < 0.11
    assert {fault.part for fault in faults if fault.how == "stop"} == {*STEPS}
    assert all(fault.how == "kill" for fault in faults if fault.part in DATABASES)
    points = {(fault.part, fault.point) for fault in faults if fault.how == "point"}
    assert points == {(part, f"{moment} {step}") for part in STEPS for step in STEPS[part] for moment in MOMENTS}
