"""What an agent does at the gateway, with the official Python client: pip install mcp==2.3.0

KEY_FILE=alice.key python agent.py http://127.0.0.1:8005/mcp
"""

import asyncio
import sys
from pathlib import Path

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(url: str, key: str) -> None:
    async with (
        httpx2.AsyncClient(headers={"X-API-Key": key}, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http)) as client,
    ):
        listing = await client.list_tools()
        print("tools:", ", ".join(tool.name for tool in listing.tools))
        times = await client.call_tool("time.get_current_time", {"timezone": "Asia/Tokyo"})
        print("answered:", not times.is_error)
        # The policy allows five conversions an hour. A refusal is a result that the model reads, not an exception.
        for _ in range(6):
            converted = await client.call_tool(
                "time.convert_time",
                {"source_timezone": "Etc/UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"},
            )
            if converted.is_error:
                refusal = converted.structured_content or {}
                print("refused:", refusal["outcome"], refusal["reason_code"])


if __name__ == "__main__":
    gateway, key_file = sys.argv[1:]
    asyncio.run(main(gateway, Path(key_file).read_text(encoding="utf-8").strip()))
