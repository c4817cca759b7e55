"""InterroGate whose database answers at once and keeps nothing: what its two commits cost a call of a tool is the rest.

For `bench/gateways.py` only. Everything else is as it is served: identity and policies are read, the rules decide, both
receipts are made. Of one worker, because workers of their own would import the gate anew.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from time import time_ns

from interrogate.call_table import CallTable
from interrogate.calls import CallRow, CallSettlement, SettledCall
from interrogate.database import InterrogateDatabase, ObservedRequest, Record, Recorded, StoredDecision
from interrogate.main import main
from interrogate.observation import ObservationRequest, Observed


async def observe(_database: InterrogateDatabase, requests: Sequence[ObservationRequest]) -> list[ObservedRequest]:
    at = time_ns() // 1_000
    return [ObservedRequest(Observed(at=at, rate_tats=(0,) * len(request.rate_keys))) for request in requests]


async def record(_database: InterrogateDatabase, records: Sequence[Record]) -> list[Recorded]:
    now = datetime.now(UTC)
    return [Recorded("STORED", StoredDecision(decided.request.receipt_id, now, decided.body)) for decided in records]


async def settle(_calls: CallTable, settlements: Sequence[CallSettlement]) -> list[SettledCall]:
    now = datetime.now(UTC)
    return [
        SettledCall(
            "STORED",
            CallRow(
                admission_receipt_id=settlement.admission_receipt_id,
                outcome_receipt_id=settlement.receipt_id,
                at=now,
                principal_key="bench",
                problemata="bench",
                tool="echo",
                task_id=settlement.admission_receipt_id,
                outcome=settlement.outcome.state or "UNREACHABLE",
                reason_code=None,
                duration_us=settlement.outcome.duration_us,
                arguments_sha256="",
                arguments_bytes=0,
                result_sha256=settlement.outcome.result_sha256,
                result_bytes=settlement.outcome.result_bytes,
            ),
        )
        for settlement in settlements
    ]


CallTable.settle = settle  # type: ignore[method-assign]
InterrogateDatabase.observe = observe  # type: ignore[method-assign]
InterrogateDatabase.record = record  # type: ignore[method-assign]

if __name__ == "__main__":
    main()
