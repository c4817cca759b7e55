"""What an agent does, with the official MCP client: asks for a review, waits for it, and takes what came of it.

KEY_FILE=ida.key python agent.py http://127.0.0.1:8005/mcp depot:… depot:…
"""

import asyncio
import os
import sys
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, documents: list[str]) -> str | None:
    key = Path(os.environ["KEY_FILE"]).read_text(encoding="utf-8").strip()  # noqa: ASYNC240, TID251 - an example
    async with (
        httpx2.AsyncClient(headers={"X-API-Key": key}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        request = {"problemata_id": "review", "input": {"documents": documents}, "mode": "async"}
        asked = await client.call_tool("problemata.passthrough", request)
        if asked.is_error:  # a refusal is a result that a model can read
            refusal = asked.structured_content
            return f"{refusal['outcome']} {refusal['reason_code']}: {refusal['detail']}"
        task = {"task_id": asked.structured_content["task_id"]}
        state = "open"
        while state in {"admitted", "open"}:
            await asyncio.sleep(0.5)
            state = (await client.call_tool("problemata.status", task)).structured_content["state"]
        print(state)
        artifacts = await client.call_tool("problemata.artifacts", task)
        for artifact in artifacts.structured_content["artifacts"]:
            print(artifact["mime"], artifact["pointer"])
        return None


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1], sys.argv[2:])))
