"""CogniGate as the kit serves it: views of its work. Nobody sends it anything (CG-11, INV-087)."""

from __future__ import annotations

from collections.abc import Mapping

from cognigate.metrics import METRICS
from cognigate.settings import Settings
from cognigate.work_loop import WorkLoop
from legivellum.gate.definition import ServedDefinition
from legivellum.gate.interview import COUNTS_ENDPOINT, COUNTS_SCHEMAS, CountsHandler
from legivellum.gate.process import ServedProcess
from legivellum.http.router import Handler


def handlers(process: ServedProcess[Settings]) -> Mapping[str, Handler]:
    """Raises MisconfiguredError and UnusableSettingError for what it cannot work with."""
    loop = WorkLoop(process.settings)
    process.beside.append(loop.running)
    return {COUNTS_ENDPOINT.key: CountsHandler(process.name, process.settings.version, loop.snapshot)}


GATE = ServedDefinition(
    module=__name__,
    name="cognigate",
    title="CogniGate",
    doctrine="CogniGate thinks. It does not mint.",
    description="A worker that asks models, within what its lease permits.",
    settings=Settings,
    endpoints=(COUNTS_ENDPOINT,),
    handlers=handlers,
    schemas=COUNTS_SCHEMAS,
    metrics=METRICS,
)
