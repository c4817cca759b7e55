"""Observe and record: what a decision may look at, what it changes, and that the two are one commit with the receipt."""

from dataclasses import replace

import pytest
from tests.integration.interrogate.conftest import AdmissionDatabase, AdmissionTree, begin, decide_one, record_of
from tests.integration.memorygate.conftest import new_id, rows

from interrogate.database import InterrogateDatabase
from interrogate.observation import Observed, ParentTask


async def test_nothing_is_known_of_a_new_root(admissions: InterrogateDatabase):
    """Every mark is at its beginning; only the clock runs."""
    tree = AdmissionTree()
    [answer] = await admissions.observe([tree.request(tree.root, rate_keys=("a", "b"))])
    assert answer.observed == Observed(at=answer.observed.at, rate_tats=(0, 0))
    assert (answer.replay, answer.conflict) == (None, False)


async def test_an_admission_counts_and_its_children_see_its_lineage(admissions: InterrogateDatabase):
    """The root, a child, then what a grandchild of the root observes."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    child = tree.request()
    recorded = await decide_one(admissions, child)
    assert recorded.outcome == "STORED"
    [answer] = await admissions.observe(
        [tree.request(parent_task_id=child.task_id, caused_by_receipt_id=child.receipt_id)]
    )
    observed = answer.observed
    assert (observed.version, observed.descendants, observed.repeats) == (2, 1, 2)
    assert observed.cause_task_id == child.task_id
    assert observed.parent == ParentTask(
        root_task_id=tree.root, depth=1, budget=None, recent=("code.write", "code.write"), admitted_by=child.receipt_id,
        custodian=None, open=False,
    )  # fmt: skip


async def test_a_batch_is_recorded_in_the_order_in_which_it_was_folded(admissions: InterrogateDatabase):
    """Each request was decided on what those before it leave; all are stored in one commit."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    requests = [tree.request(rate_keys=("bucket",)) for _ in range(5)]
    answers = await admissions.observe(requests)
    records = [
        record_of(
            request,
            replace(answer.observed, version=1 + place, rate_tats=(place * 10,)),
            rate_tats=(place * 10 + 10,),
        )
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True))
    ]
    assert [recorded.outcome for recorded in await admissions.record(records)] == ["STORED"] * 5
    [answer] = await admissions.observe([tree.request(rate_keys=("bucket",))])
    assert (answer.observed.version, answer.observed.rate_tats) == (6, (50,))


async def test_what_was_decided_on_a_request_that_fell_out_falls_out_with_it(admissions: InterrogateDatabase):
    """The second of three is behind its policy: the third, which counted on it, moved; another root is stored."""
    tree, other = AdmissionTree(), AdmissionTree()
    await begin(admissions, tree)
    await decide_one(admissions, tree.request(profile="newer"), policy_revision=9)
    requests = [tree.request(), tree.request(profile="newer"), tree.request(), other.request(other.root)]
    answers = await admissions.observe(requests)
    records = [
        record_of(
            request,
            replace(answer.observed, version=answer.observed.version + place * (request.tenant == tree.tenant)),
        )
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True))
    ]
    outcomes = [recorded.outcome for recorded in await admissions.record(records)]
    assert outcomes == ["STORED", "POLICY_BEHIND", "MOVED", "STORED"]


@pytest.mark.invariant("INV-105")
async def test_the_right_number_of_admissions_is_not_enough(admissions: InterrogateDatabase):
    """The first of a batch falls out, and another process admitted one meanwhile: the second counted on a tree that is not there."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    requests = [tree.request(idempotency_key="key"), tree.request()]
    answers = await admissions.observe(requests)
    await decide_one(admissions, tree.request(idempotency_key="key", digest=b"o" * 32, capability_id="mail.send"))
    records = [
        record_of(request, replace(answer.observed, version=1 + place))
        for place, (request, answer) in enumerate(zip(requests, answers, strict=True))
    ]
    assert [recorded.outcome for recorded in await admissions.record(records)] == ["KEY_CONFLICT", "MOVED"]


async def test_a_moved_mark_stores_nothing(admissions: InterrogateDatabase, admission_database: AdmissionDatabase):
    """Of two decisions on the same observation the second is MOVED, and no row and no receipt of it are there."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    first, second = tree.request(), tree.request(idempotency_key="k", rate_keys=("bucket",))
    answers = await admissions.observe([first, second])
    assert [r.outcome for r in await admissions.record([record_of(first, answers[0].observed)])] == ["STORED"]
    late = record_of(second, answers[1].observed, rate_tats=(10,), forwards=("t",))
    assert [(r.outcome, r.stored) for r in await admissions.record([late])] == [("MOVED", None)]
    counts = await rows(
        admission_database.superuser,
        """SELECT (SELECT count(*) FROM memorygate.receipt WHERE tenant = $1), (SELECT count(*) FROM interrogate.admitted WHERE tenant = $1),
                  (SELECT count(*) FROM interrogate.request WHERE tenant = $1), (SELECT count(*) FROM interrogate.rate WHERE tenant = $1),
                  (SELECT count(*) FROM interrogate.forward WHERE tenant = $1)""",
        tree.tenant,
    )  # fmt: skip
    assert counts == [(2, 2, 0, 0, 0)]


async def test_a_rejection_counts_nothing_but_its_key_and_its_rate(admissions: InterrogateDatabase):
    """A token is spent by whatever passed the limit; no task is admitted."""
    tree = AdmissionTree()
    await begin(admissions, tree)
    request = tree.request(idempotency_key="again", rate_keys=("bucket",))
    recorded = await decide_one(admissions, request, allowed=False, rate_tats=(77,))
    assert recorded.outcome == "STORED"
    [answer] = await admissions.observe([replace(request, receipt_id=new_id())])
    assert (answer.observed.version, answer.observed.rate_tats, answer.observed.task_admitted) == (1, (77,), False)
    assert answer.replay == recorded.stored
