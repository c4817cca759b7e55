"""A process of racers: at each line of its input its clients try at once, in one of the forms, and it says what they got.

Run by `race` as `python -m tests.integration.interrogate.racers DSN CLIENTS`. The naive forms are kept to show that the races are hard:
a test that they pass would prove nothing (`test_never_one_more.py`).
"""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
from tests.databases import patient
from tests.integration.interrogate.conftest import AdmissionTree, record_of
from tests.integration.interrogate.workload import KnownTask, Workload
from tests.integration.memorygate.conftest import new_id

from interrogate.database import InterrogateDatabase, LockedAdmissions, ObservedRequest
from interrogate.observation import ObservationRequest, ObservedLease
from legivellum.postgres.errors import Unavailable

ROOT = Path(__file__).parents[3]
PER_TOKEN = 3_600_000_000
"""Microseconds: no token comes back during a test."""


class RacingClients:
    """The clients of one process, and the forms in which they try."""

    def __init__(self, dsn: str, clients: int) -> None:
        self.dsn = dsn
        self.clients = clients
        self.forms: dict[str, Callable[[Any], Awaitable[Counter[str]]]] = {
            "descendants": self.descendants, "descendants_locked": self.descendants_locked, "descendants_mixed": self.descendants_mixed,
            "count_then_insert": self.count_then_insert,
            "lock_and_read": self.lock_and_read, "rate": self.rate, "spawns": self.spawns, "same_key": self.same_key, "workload": self.workload,
        }  # fmt: skip

    async def start(self) -> None:
        self.database = await InterrogateDatabase.connect(patient(self.dsn), size=self.clients, query_timeout=20)
        self.naive = await asyncpg.create_pool(patient(self.dsn), min_size=self.clients, max_size=self.clients)

    async def run(self, command: dict[str, Any]) -> Counter[str]:
        form = self.forms[command.pop("form")]
        command["tree"] = AdmissionTree(UUID(command["tenant"]), command["root"])
        results = await asyncio.gather(*(form({**command, "client": number}) for number in range(self.clients)))
        return sum(results, Counter())

    async def descendants(self, race: dict[str, Any]) -> Counter[str]:
        """One child of the root, admitted while there are fewer than `limit`: observed again for as long as it moves."""
        request = race["tree"].request()
        while True:
            [answer] = await self.database.observe([request])
            if answer.observed.descendants >= race["limit"]:
                return Counter(["denied"])
            [recorded] = await self.database.record([record_of(request, answer.observed)])
            if recorded.outcome == "STORED":
                return Counter(["admitted"])
            assert recorded.outcome == "MOVED", recorded

    async def descendants_locked(self, race: dict[str, Any]) -> Counter[str]:
        """The same under locks: nothing moves, so one try is enough where the locks come free in time.

        A busy machine may end a transaction between its two statements, or keep the answer to its commit: the key of the
        request says at the next try whether it was stored.
        """
        request = race["tree"].request(idempotency_key=new_id(), digest=b"d" * 32)
        while True:
            with suppress(Unavailable):
                async with self.database.locked() as admissions:
                    answers = await admissions.observe([request], [1])
                    outcome = await self._under_locks(request, answers, race["limit"], admissions) if answers else None
                if outcome is not None:
                    return Counter([outcome])

    @staticmethod
    async def _under_locks(
        request: ObservationRequest, answers: Sequence[ObservedRequest], limit: int, admissions: LockedAdmissions
    ) -> str:
        [answer] = answers
        if answer.replay is not None:
            return "admitted"
        if answer.observed.descendants >= limit:
            return "denied"
        [recorded] = await admissions.record([record_of(request, answer.observed)])
        return "admitted" if recorded.outcome == "STORED" else recorded.outcome

    async def descendants_mixed(self, race: dict[str, Any]) -> Counter[str]:
        """Half of the clients decide under locks, half without."""
        return await (self.descendants_locked if race["client"] % 2 else self.descendants)(race)

    async def count_then_insert(self, race: dict[str, Any]) -> Counter[str]:
        """Naive: nobody compares at the insert what was counted before it."""
        count = await self.naive.fetchval("SELECT count(*) FROM naive.child WHERE root = $1", race["root"])
        if count >= race["limit"]:
            return Counter(["denied"])
        await self.naive.execute("INSERT INTO naive.child VALUES ($1)", race["root"])
        return Counter(["admitted"])

    async def lock_and_read(self, race: dict[str, Any]) -> Counter[str]:
        """Naive: the lock is taken inside the statement that counts, whose snapshot is older than the lock."""
        admitted = await self.naive.fetchval(
            """WITH locked AS MATERIALIZED (SELECT pg_advisory_xact_lock(hashtext($1)))
               INSERT INTO naive.child SELECT $1 FROM locked
               WHERE (SELECT count(*) FROM naive.child AS c CROSS JOIN locked WHERE c.root = $1) < $2 RETURNING true""",
            race["root"], race["limit"],
        )  # fmt: skip
        return Counter(["admitted" if admitted else "denied"])

    async def rate(self, race: dict[str, Any]) -> Counter[str]:
        """`tries` requests at one bucket in batches of 50, each folded on the one before it, and every decision recorded."""
        outcomes: Counter[str] = Counter()
        waiting = [
            race["tree"].request(root_task_id=None, parent_task_id=None, rate_keys=("bucket",))
            for _ in range(race["tries"])
        ]
        while waiting:
            batch, waiting = waiting[:50], waiting[50:]
            answers = await self.database.observe(batch)
            records, tat = [], answers[0].observed.rate_tats[0]
            for request, answer in zip(batch, answers, strict=True):
                observed = replace(answer.observed, rate_tats=(tat,))
                later = max(tat, observed.at) + PER_TOKEN
                passes = later - observed.at <= PER_TOKEN * race["limit"]
                tat = later if passes else tat
                records.append(record_of(request, observed, allowed=False, rate_tats=(later,) if passes else None))
            for record, recorded in zip(records, await self.database.record(records), strict=True):
                if recorded.outcome == "MOVED":
                    waiting.append(record.request)
                else:
                    assert recorded.outcome == "STORED", recorded
                    outcomes["denied" if record.rate_tats is None else "admitted"] += 1
        return outcomes

    async def spawns(self, race: dict[str, Any]) -> Counter[str]:
        """One child under a lease that may spawn `limit`."""
        request = race["tree"].request(lease_id=race["lease"])
        while True:
            [answer] = await self.database.observe([request])
            lease = answer.observed.lease
            assert isinstance(lease, ObservedLease)
            if lease.spawned >= race["limit"]:
                return Counter(["denied"])
            [recorded] = await self.database.record([record_of(request, answer.observed, spawns_under_lease=True)])
            if recorded.outcome == "STORED":
                return Counter(["admitted"])
            assert recorded.outcome == "MOVED", recorded

    async def same_key(self, race: dict[str, Any]) -> Counter[str]:
        """The same envelope under the same key: whoever comes later gets the first one's answer."""
        request = race["tree"].request(task_id="task", idempotency_key="key", digest=b"d" * 32)
        while True:
            [answer] = await self.database.observe([request])
            if answer.replay is not None:
                return Counter([answer.replay.receipt_id])
            [recorded] = await self.database.record([record_of(request, answer.observed)])
            if recorded.stored is not None:
                return Counter([recorded.stored.receipt_id])
            assert recorded.outcome == "MOVED", recorded

    async def workload(self, race: dict[str, Any]) -> Counter[str]:
        """Requests of every kind on the roots of all processes and on own ones; `callers` batches of a process (2) are on their way at once."""
        if race["client"] >= race.get("callers", 2):
            return Counter()
        known = [KnownTask(root, root, receipt_id, 0) for root, receipt_id in race["roots"]]
        load = Workload(self.database, race["tree"].tenant, known, race["newest"])
        if "answered" in race:
            load.answered = Path(race["answered"], f"{race['seed']}-{race['client']}")
        await load.run(race["batches"], race["revision"], seed=race["seed"] * 1_000 + race["client"])
        return load.outcomes


async def main(dsn: str, clients: int) -> None:
    racing = RacingClients(dsn, clients)
    await racing.start()
    print("ready", flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await racing.run(json.loads(line))), flush=True)


@dataclass(frozen=True, slots=True)
class Racers:
    """Several processes of racers."""

    processes: Sequence[asyncio.subprocess.Process]
    per_process: frozenset[str] = frozenset({"revision", "seed"})
    """What a command says to each of them apart, as a list."""

    async def race(self, form: str, tree: AdmissionTree, **command: Any) -> Counter[str]:
        """All of them at once; what their clients got, added up."""
        for number, process in enumerate(self.processes):
            own_command = {
                name: value[number] if name in self.per_process else value for name, value in command.items()
            }
            line = json.dumps({"form": form, "tenant": str(tree.tenant), "root": tree.root, **own_command})
            process.stdin.write(line.encode() + b"\n")
        answers = [await process.stdout.readline() for process in self.processes]
        assert all(answers), "a process of racers died"
        return sum((Counter(json.loads(answer)) for answer in answers), Counter())


@asynccontextmanager
async def racers(dsn: str, *, processes: int = 4, clients: int = 8) -> AsyncIterator[Racers]:
    command = (sys.executable, "-m", "tests.integration.interrogate.racers", dsn, str(clients))
    pipes = {"stdin": asyncio.subprocess.PIPE, "stdout": asyncio.subprocess.PIPE}
    started = [await asyncio.create_subprocess_exec(*command, cwd=ROOT, **pipes) for _ in range(processes)]
    try:
        for process in started:
            assert await process.stdout.readline() == b"ready\n"
        yield Racers(started)
    finally:
        for process in started:
            process.stdin.close()
        for process in started:
            await asyncio.wait_for(process.wait(), 20)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
