"""What a handler gets: the leased task, with the methods that ask gates. Blocking ones, or awaited ones."""

from __future__ import annotations

from legivellum_worker.leased_work import LeasedWork
from legivellum_worker.plan_step import CLOSE, LARGEST_PLAN, find_step, split_pointer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from legivellum_worker.inputs import InputReader
    from legivellum_worker.leased_tools import LeasedTools
    from legivellum_worker.plan_step import PlanCache, StepRule
    from legivellum_worker.spawning import SpawnedTask


class Work(LeasedWork):
    """What a handler gets that is no `async def`. Its methods block."""

    __slots__ = ()

    def inputs(self) -> dict[str, bytes]:
        """The inputs of the job by name: size before bytes, digest checked.

        Raises Release where a gate does not answer for long, Failed for an input that is refused.
        """
        return self._input_reader().read()

    def write_inputs(self, folder: str) -> None:
        """The inputs as files in a directory that is there; large ones never lie in memory."""
        self._input_reader().write(folder)

    def spawn(
        self, capability: str, parameters: Any, *, surface: str | None = None, profile: str | None = None,
        key: str | None = None,
    ) -> SpawnedTask:  # fmt: skip
        """A new task under this one, through InterroGate, which judges it by the lease's authority.

        `key` names the request: the same key under another lease of the task is the same request. Without it the n-th
        call under a lease has a key of its own. Raises SpawnDeniedError, Release where InterroGate is away.
        """
        from legivellum_worker.spawning import spawn

        return spawn(
            self, self._gates, capability, parameters, surface=surface, profile=profile,
            key=key or f"{self.number}:{next(self._spawned)}",
        )  # fmt: skip

    @property
    def tools(self) -> LeasedTools:
        """The tools that the lease exposes, at InterroGate; none where the worker does not know it. It blocks, as
        `artifacts` does. Take it once: its calls are numbered.
        """
        from legivellum_worker.leased_tools import LeasedTools

        return LeasedTools(self._gates.interrogate, self)

    def _input_reader(self) -> InputReader:
        from legivellum_worker.inputs import InputReader

        _ = self.job
        assert self._step is not None
        return InputReader(self._step, self._evidence, self.depot)

    # ── for the worker ───────────────────────────────────────────────────────────────────────────────────────────────

    def read_step(self, plans: PlanCache) -> None:
        """Read the plan's step, for the job and the rules of escalation. Raises Release and Failed."""
        plan = split_pointer(self.payload_pointer)
        if plan is None or self.capability == CLOSE:
            return
        if self._gates.depotgate is None:
            self._step = None
            return
        from legivellum_worker.inputs import read_plan

        pointer, step_id = plan
        body = plans.get(pointer, lambda: read_plan(self.depot(), pointer, LARGEST_PLAN))
        self._step = find_step(body, step_id, self.task_id)

    def rule_for(self, cause: str) -> StepRule | None:
        """The first rule of the step that names somebody for this cause of a failure."""
        rules = () if self._step is None else self._step.rules
        return next((rule for rule in rules if cause in rule.on and rule.to), None)

    def require_needs(self) -> None:
        """Raises Failed where something that the task needed did not end as a success."""
        self._evidence.require_success()


class AsyncWork(LeasedWork):
    """What an `async def` handler gets: the methods of Work, awaited. They run in threads."""

    __slots__ = ("_work",)

    def __init__(self, work: Work) -> None:
        super().__init__(work._lease, work._gates)  # noqa: SLF001 - the same task, for the other kind of handler
        self._work, self._step, self.cancelled = work, work._step, work.cancelled  # noqa: SLF001

    @property
    def tools(self) -> LeasedTools:
        """See Work.tools: it blocks."""
        return self._work.tools

    async def inputs(self) -> dict[str, bytes]:
        """See Work.inputs."""
        import asyncio

        return await asyncio.to_thread(self._work.inputs)

    async def write_inputs(self, folder: str) -> None:
        """See Work.write_inputs."""
        import asyncio

        await asyncio.to_thread(self._work.write_inputs, folder)

    async def spawn(
        self, capability: str, parameters: Any, *, surface: str | None = None, profile: str | None = None,
        key: str | None = None,
    ) -> SpawnedTask:  # fmt: skip
        """See Work.spawn."""
        import asyncio

        return await asyncio.to_thread(
            self._work.spawn, capability, parameters, surface=surface, profile=profile, key=key
        )
