"""DeleGate as the kit serves it: its definition, and each endpoint's handler."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from uuid import UUID

from delegate.delegate_gate import DeleGate, DeleGateProcess
from delegate.endpoints import ENDPOINTS, SCHEMAS
from delegate.metrics import METRICS
from delegate.plan_handlers import PlanHandlers
from delegate.planning import PlanFlow
from delegate.problem_codes import Code
from delegate.reading import PlanReadHandlers
from delegate.repairing import StartRepair
from delegate.settings import Settings
from delegate.validating import ValidationHandler
from legivellum.gate.definition import IdentityDefinition
from legivellum.gate.interview import Interview
from legivellum.http.router import Handler
from legivellum.identity.caller import TYPES_BUT_WITNESS


async def interview(_process: DeleGateProcess, _tenant: UUID) -> Interview:
    """It keeps nothing, and may call nobody for this: what waits is in the ledger (INV-095)."""
    return Interview(
        datetime.now(UTC),
        {},
        {},
        ["This gate keeps nothing: its plans are at the ledger; GET /plans shows your open ones."],
    )


def handlers(process: DeleGateProcess) -> Mapping[str, Handler]:
    """Raises OSError, UnusableSettingError for a file of certificates that cannot be used."""
    return bound_handlers(DeleGate.of(process))


def bound_handlers(gate: DeleGate) -> Mapping[str, Handler]:
    flow = PlanFlow(gate)
    plans = PlanHandlers(gate, flow)
    reading = PlanReadHandlers(gate, flow)
    gate.process.beside.append(StartRepair(gate, flow).running)
    return {
        "POST /plans/validate": ValidationHandler(gate),
        "GET /plans": reading.plans,
        "GET /plans/{plan_id}": reading.plan,
        "POST /plans": plans.create,
        "POST /intents/{namespace}": plans.intent,
        "POST /plans/{plan_id}/dispatch": plans.dispatch,
        "POST /plans/{plan_id}/close": plans.close,
    }


GATE = IdentityDefinition(
    module=__name__,
    name="delegate",
    title="DeleGate",
    doctrine="DeleGate mints. It does not think.",
    description="Plans become work: expanded, checked, receipted, handed over.",
    settings=Settings,
    metrics=METRICS,
    codes=Code,
    endpoints=ENDPOINTS,
    schemas=SCHEMAS,
    handlers=handlers,
    interview=interview,
    callers=TYPES_BUT_WITNESS,
)
