"""What stores Open Policy Agent's decision log for `policy_agent.py`: one INSERT for each upload.

Run with the port and the DSN: it creates its table and says `ready`.
"""

import asyncio
import gzip
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any

import asyncpg
import uvicorn

TABLE = """
CREATE TABLE IF NOT EXISTS opa_decision (
    decision_id uuid PRIMARY KEY, stored_at timestamptz NOT NULL DEFAULT clock_timestamp(), decided_at timestamptz,
    document jsonb)
"""
INSERT = """
INSERT INTO opa_decision (decision_id, decided_at, document)
SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::jsonb[]) ON CONFLICT DO NOTHING
"""
Event = dict[str, Any]


class Receiver:
    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def __call__(
        self, _scope: Event, receive: Callable[[], Awaitable[Event]], send: Callable[[Event], Awaitable[None]]
    ) -> None:
        body = b""
        while True:
            part = await receive()
            body += part.get("body", b"")
            if not part.get("more_body"):
                break
        decisions = json.loads(gzip.decompress(body))
        decided_at = [datetime.fromisoformat(decision["timestamp"]) for decision in decisions]
        await self._pool.execute(
            INSERT,
            [decision["decision_id"] for decision in decisions],
            decided_at,
            [json.dumps(decision) for decision in decisions],
        )
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def main(port: int, dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=2, max_size=2) as pool:
        await pool.execute(TABLE)
        config = uvicorn.Config(Receiver(pool), port=port, lifespan="off", access_log=False, log_level="error")
        print("ready", flush=True)
        await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), sys.argv[2]))
