"""What InterroGate's handlers share: the process, the policies, the evaluator and the forwarder; and what runs beside
the requests.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from interrogate import metrics
from interrogate.admission_receipt import RecordedAdmission
from interrogate.admission_token import AdmissionTokens
from interrogate.call_recorder import CallRecorder
from interrogate.database import InterrogateDatabase
from interrogate.evaluator import Evaluator
from interrogate.forwarder import AdmissionForwarder
from interrogate.forwarding import TargetClient
from interrogate.policies import PolicyDatabase, PolicyReplica
from interrogate.problematas import ProblemataDatabase, ProblemataReplica
from interrogate.ruleset import GlobSet, Ruleset
from interrogate.settings import Settings
from interrogate.sweeping import ForwardSweep
from interrogate.targets import TargetHosts, comma_separated
from legivellum.gate.process import GateProcess
from legivellum.http.batching import BatchLimits
from legivellum.postgres.errors import Unavailable

InterrogateProcess = GateProcess[Settings, InterrogateDatabase]


@dataclass(frozen=True, slots=True)
class AdmissionGate:
    """One per process."""

    process: InterrogateProcess
    policies: PolicyReplica
    problematas: ProblemataReplica
    evaluator: Evaluator
    calls: CallRecorder
    forwarder: AdmissionForwarder
    tokens: AdmissionTokens | None
    surfaces: GlobSet

    @classmethod
    def of(cls, process: InterrogateProcess) -> AdmissionGate:
        """Raises OSError, ValueError for a signing key that cannot be read."""
        settings = process.settings

        def database() -> InterrogateDatabase:
            return process.database

        async def connect_policies() -> PolicyDatabase:
            return await PolicyDatabase.connect(settings.identity_dsn, size=1, query_timeout=5.0)

        async def connect_problematas() -> ProblemataDatabase:
            return await ProblemataDatabase.connect(settings.identity_dsn, size=1, query_timeout=5.0)

        policies = PolicyReplica(connect_policies, stale_seconds=settings.identity_stale_seconds)
        problematas = ProblemataReplica(connect_problematas, stale_seconds=settings.identity_stale_seconds)
        tokens = AdmissionTokens.from_file(settings.signing_key_file, issuer=settings.resource)
        forwarder = AdmissionForwarder(
            TargetClient(user_agent=f"interrogate/{settings.version}"),
            TargetHosts.parse(settings.target_hosts),
            tokens,
            database,
            forward_seconds=settings.forward_ms / 1_000,
            settle_seconds=settings.deadline_seconds,
        )
        evaluator = Evaluator(database, policies, limits=BatchLimits(queue=settings.queue))
        calls = CallRecorder(database, policies, outcome_seconds=settings.outcome_ms / 1_000)
        surfaces = GlobSet.of(comma_separated(settings.surfaces))
        gate = cls(process, policies, problematas, evaluator, calls, forwarder, tokens, surfaces)
        process.status.followed = False
        process.beside.append(gate.running)
        return gate

    async def stored_ruleset(self, recorded: RecordedAdmission) -> Ruleset:
        """The rules under which something was decided, as they were then. Raises Unavailable."""
        policy_hash = recorded.policy_hash or ""
        body = await self.process.database.ruleset(policy_hash)
        if body is None:
            raise Unavailable("The policy of the decision is not stored.")
        return Ruleset.from_policy(
            json.loads(body),
            profile=recorded.envelope.policy_profile_id,
            policy_hash=policy_hash,
            revision=recorded.policy_revision,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow policies and sweep forwards while the block runs; then let the forwards that have begun end."""
        process, settings = self.process, self.process.settings
        seconds = settings.identity_poll_ms / 1_000
        reached = {self.policies.subject: False, self.problematas.subject: False}

        def on_look(subject: str) -> Callable[[bool], None]:
            def report(succeeded: bool) -> None:
                reached[subject] = succeeded
                metrics.POLICY_AGE.set(-1 if self.policies.age is None else self.policies.age)
                process.status.followed = all(reached.values())
                process.status.settle()

            return report

        sweep = ForwardSweep(lambda: process.database, self.forwarder, self.calls, seconds=settings.sweep_seconds)
        try:
            async with (
                self.policies.following(seconds=seconds, on_look=on_look(self.policies.subject)),
                self.problematas.following(seconds=seconds, on_look=on_look(self.problematas.subject)),
                sweep.running(),
            ):
                yield
        finally:
            await self.forwarder.close()
