"""Policies that change while two processes of the gate decide: never an older one after a newer one (IG-06, §7.7)."""

import asyncio
from collections import Counter
from contextlib import AsyncExitStack

import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase
from tests.integration.interrogate.forked_gates import gate_forks
from tests.integration.interrogate.gate_fixture import PublishedWorld, Requesting
from tests.integration.interrogate.test_policies import allowing

CLIENTS = 6
"""Of each process."""
EDITIONS = [allowing("doc.write", f"edition.{number}") for number in range(1, 6)]


@pytest.mark.invariant("INV-107")
async def test_no_decision_under_an_older_policy_after_one_under_a_newer(admission_database: AdmissionDatabase) -> None:
    """One process polls fast, the other one once in a second: in the order of the ledger the revision never falls."""
    world = PublishedWorld(admission_database)
    principal = world.principal("alice")
    await world.publish(principal, policies={"strict": allowing("doc.*")})
    decided: Counter[int] = Counter()
    published = asyncio.Event()

    async def ask(alice: Requesting) -> None:
        while not published.is_set():
            answer = await alice.evaluate()
            assert answer.status_code == 200, answer.text
            decided[answer.json()["policy"]["revision"]] += 1

    async with gate_forks() as forks, AsyncExitStack() as stack:
        requesting = []
        for poll in (20, 1_000):
            forked = await stack.enter_async_context(forks.serving(world, identity_poll_ms=poll))
            requesting.append(await forked.gate.awaited(forked.gate.requesting(principal)))
        async with asyncio.TaskGroup() as group:
            for alice in requesting * CLIENTS:
                group.create_task(ask(alice))
            for edition in EDITIONS:
                revision = await world.publish(policies={"strict": edition})
                async with asyncio.timeout(30):
                    while decided[revision] < 4 * CLIENTS:
                        await asyncio.sleep(0.01)
            published.set()
        receipts = await forked.gate.receipts()
    revisions = [receipt["body"]["policy_revision"] for receipt in receipts]
    hashes = [receipt["body"]["policy_hash"] for receipt in receipts]
    assert revisions == sorted(revisions), "an older policy was used after a newer one"
    assert len(set(revisions)) == len(set(hashes)) == len(EDITIONS) + 1
    assert len(set(zip(revisions, hashes, strict=True))) == len(EDITIONS) + 1
    assert sum(decided.values()) == len(receipts)
