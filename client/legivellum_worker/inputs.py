"""The inputs of a job: artifacts, results of the steps before, values of the plan.

The size is judged before bytes are read, the digest after them. What is away for a while gives the task back; what is
wrong ends it as the failure INPUT_REFUSED.
"""

from __future__ import annotations

import io
import json
import os

from legivellum_worker.artifacts import ArtifactCorruptError, ArtifactTooLargeError, is_pointer
from legivellum_worker.dependencies import RETRY_SECONDS
from legivellum_worker.gate_client import GateError, GateUnavailableError
from legivellum_worker.results import INPUT_REFUSED, Failed, Release

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO

    from legivellum_worker.artifacts import DepotGateClient
    from legivellum_worker.dependencies import Evidence
    from legivellum_worker.plan_step import LeasedStep, StepInput

_UNAUTHENTICATED = 401
_SUCCESS = "success"


class InputReader:
    """Reads the inputs of one step."""

    def __init__(self, step: LeasedStep, evidence: Evidence, depot: Callable[[], DepotGateClient]) -> None:
        self._step, self._evidence, self._depot = step, evidence, depot

    def read(self) -> dict[str, bytes]:
        """All of them in memory, by name."""
        inputs: dict[str, bytes] = {}
        for declared in self._step.job.inputs:
            target = io.BytesIO()
            if self._write(declared, target):
                inputs[declared.name] = target.getvalue()
        return inputs

    def write(self, folder: str) -> None:
        """Each into a file of its name, whatever its size."""
        for declared in self._step.job.inputs:
            path = _path(folder, declared.name)
            with open(path, "xb") as target:
                is_there = self._write(declared, target)
            if not is_there:
                os.unlink(path)

    def _write(self, declared: StepInput, target: IO[bytes]) -> bool:
        """Whether there is anything: a step that did not succeed may have left nothing."""
        if declared.has_value:
            value = declared.value
            return _put(declared, target, value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))
        if declared.pointer is not None:
            return self._fetch(declared, declared.pointer, target)
        task_id = self._step.task_of(declared.step or "")
        receipt = None if task_id is None else self._evidence.of_task(task_id)
        if receipt is None:
            raise Failed(INPUT_REFUSED)
        if receipt.get("artifact_pointer"):
            return self._fetch(declared, str(receipt["artifact_pointer"]), target)
        text = receipt.get("outcome_text") or ""
        return (bool(text) or receipt.get("status") == _SUCCESS) and _put(declared, target, str(text))

    def _fetch(self, declared: StepInput, pointer: str, target: IO[bytes]) -> bool:
        read_artifact(self._depot(), pointer, target, declared.max_bytes)
        return True


def read_artifact(depot: DepotGateClient, pointer: str, target: IO[bytes], max_bytes: int) -> None:
    """Raises Release while DepotGate cannot answer, Failed for what will not become better."""
    if not is_pointer(pointer):
        raise Failed(INPUT_REFUSED)
    try:
        depot.get(pointer, target, max_bytes=max_bytes)
    except (ArtifactCorruptError, ArtifactTooLargeError) as error:
        raise Failed(INPUT_REFUSED) from error
    except GateError as error:
        if error.status == _UNAUTHENTICATED:
            raise Release(RETRY_SECONDS, "DepotGate does not know the worker") from error
        raise Failed(INPUT_REFUSED) from error
    except GateUnavailableError as error:
        raise Release(RETRY_SECONDS, "DepotGate did not answer") from error


def read_plan(depot: DepotGateClient, pointer: str, max_bytes: int) -> bytes:
    """The bytes of a plan. Raises Release and Failed."""
    target = io.BytesIO()
    read_artifact(depot, pointer, target, max_bytes)
    return target.getvalue()


def _put(declared: StepInput, target: IO[bytes], text: str) -> bool:
    content = text.encode("utf-8", "surrogatepass")
    if len(content) > declared.max_bytes:
        raise Failed(INPUT_REFUSED)
    target.write(content)
    return True


def _path(folder: str, name: str) -> str:
    """The file of an input. A name may have slashes; it leads nowhere else."""
    if {"", ".", ".."} & set(name.split("/")):
        raise Failed(INPUT_REFUSED)
    path = os.path.join(folder, *name.split("/"))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    return path
