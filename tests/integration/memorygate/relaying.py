"""The relay as a process of its own, for tests that kill it."""

import asyncio
import os
from pathlib import Path

from metagate_operator.ledger.ledger_client import HttpLedgerClient, LedgerAccess
from metagate_operator.ledger.relay import Relay, RelayPace
from metagate_store.outbox import OutboxStore


async def main() -> None:
    outboxes = [OutboxStore(os.environ["RELAY_DATABASE"]) for _ in range(2)]  # noqa: TID251 - told by the test
    access = LedgerAccess(os.environ["RELAY_LEDGER"], api_key_file=Path(os.environ["RELAY_KEY_FILE"]))  # noqa: TID251
    pace = RelayPace(rows=64, rest=0, idle_seconds=0.02, backoff_seconds=0.05, backoff_max_seconds=0.2)
    await Relay(outboxes, HttpLedgerClient(access), pace=pace).run()


if __name__ == "__main__":
    asyncio.run(main())
