"""The worker of one process, beside its views: leases jobs, counts how they end, and ends the process if it cannot."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog

from cognigate import metrics
from cognigate.cognition import CognitionRunner
from cognigate.model_catalog import ModelCatalog
from cognigate.settings import Settings
from legivellum.base.settings import UnusableSettingError
from legivellum_worker.results import Failed, Output
from legivellum_worker.settings import WorkerSettings
from legivellum_worker.work import Work
from legivellum_worker.worker import Worker
from metagate_client.errors import ClientError
from metagate_client.packet import Packet
from metagate_client.packet_file import read
from metagate_client.settings import PACKET_FILE, environment

_log = structlog.get_logger("cognigate")


class WorkLoop:
    """Raises MisconfiguredError, and UnusableSettingError where there is no model."""

    def __init__(self, settings: Settings) -> None:
        path = environment().get(PACKET_FILE)
        packet = read(path) if path else None
        self._parallel = settings.parallel
        self._counts: Counter[str] = Counter()
        gates = WorkerSettings(packet=packet)
        policy = (packet.content.get("policy") or {}) if packet else {}
        self._runner = CognitionRunner(
            choose_models(settings, packet), gates, policy=policy.get("cognition") or {},
            ask_seconds=settings.ask_seconds, on_call=self._on_call,
        )  # fmt: skip
        self._worker = Worker(gates)
        for capability in settings.capability_names:
            self._worker.on(capability)(self._run)

    def snapshot(self) -> dict[str, int]:
        """What is counted, by its name: zeros too."""
        return {name: self._counts[name] for name in metrics.COUNTED}

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        thread = threading.Thread(target=self._work, name="work", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._worker.stop()
            await asyncio.to_thread(thread.join)

    def _work(self) -> None:
        try:
            self._worker.run(self._parallel)
        except ClientError as error:
            # A process that only shows views of itself would look as if it worked.
            _log.error("worker_refused", reason=str(error))
            os.kill(os.getpid(), signal.SIGTERM)

    def _run(self, work: Work) -> Output:
        outcome = "release"
        self._count_running(1)
        try:
            output = self._runner.run(work)
            outcome = "success"
            self._count_usage(output)
        except Failed as failure:
            outcome = "failure"
            self._count_usage(failure)
            raise
        finally:
            if work.cancelled.is_set():
                outcome = "lost"
            self._count_running(-1)
            self._counts[f"jobs_{outcome}"] += 1
            metrics.JOBS.labels(outcome).inc()
        return output

    def _count_running(self, number: int) -> None:
        self._counts["running"] += number
        metrics.RUNNING.inc(number)

    def _count_usage(self, result: Output | Failed) -> None:
        for kind in metrics.KINDS if result.usage else ():
            tokens = (result.usage or {})[f"{kind}_tokens"]
            self._counts[f"{kind}_tokens"] += tokens
            metrics.TOKENS.labels(kind).inc(tokens)

    def _on_call(self, outcome: str) -> None:
        self._counts["model_calls"] += 1
        metrics.MODEL_CALLS.labels(outcome).inc()
        if outcome == "unauthorized":
            _log.error("model_credential_refused")


def choose_models(settings: Settings, packet: Packet | None) -> ModelCatalog:
    """What the settings name, else what the packet declares, else the built-in one where it may be used."""
    if settings.llm_url:
        return ModelCatalog.of_endpoint(settings.llm_url, settings.llm_model or "default", settings.llm_key_file)
    declared = ModelCatalog({}) if packet is None else ModelCatalog.of_packet(packet)
    if len(declared):
        return declared
    if settings.builtin_model:
        return ModelCatalog.builtin()
    raise UnusableSettingError(
        "no model is declared: name a service of type chat-completions in the Manifest, or set LLM_URL and LLM_MODEL"
    )
