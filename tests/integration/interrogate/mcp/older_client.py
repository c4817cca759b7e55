"""A client of the SDK 1.x, run in an environment of its own: URL and key are its arguments, what it saw its output."""

import asyncio
import json
import sys

from mcp import ClientSession
from mcp.client.streamable_http import streamablehttp_client


async def main(url: str, key: str) -> None:
    async with (
        streamablehttp_client(url, headers={"X-API-Key": key}) as (read, write, _),
        ClientSession(read, write) as session,
    ):
        hello = await session.initialize()
        listed = await session.list_tools()
        asked = await session.call_tool(
            "problemata.passthrough", {"problemata_id": "desk", "capability": "doc.any", "input": {"n": 1}}
        )
        called = await session.call_tool("desk.echo", {"text": "hello"})
        failed = await session.call_tool("desk.fail", {})
    print(
        json.dumps(
            {
                "protocol": hello.protocolVersion,
                "tools": [tool.name for tool in listed.tools],
                "asked": asked.structuredContent,
                "called": called.structuredContent,
                "failed": failed.isError,
            }
        )
    )


asyncio.run(main(*sys.argv[1:]))
