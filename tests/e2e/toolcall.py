"""Runs in a pod: the official MCP client with the pod's service account. `toolcall.py TOOL ARGUMENTS` prints the names of
the tools that are listed and the result of one call, as JSON."""
# ruff: noqa: PTH123, TID251

import asyncio
import json
import os
import sys

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client


async def main(tool, arguments):
    with open(os.environ["METAGATE_TOKEN_FILE"]) as file:
        headers = {"Authorization": f"Bearer {file.read()}"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=30) as http,
        Client(streamable_http_client(os.environ["MCP_URL"], http_client=http)) as client,
    ):
        listed = await client.list_tools()
        result = await client.call_tool(tool, json.loads(arguments))
    print(json.dumps({
        "tools": [tool.name for tool in listed.tools],
        "result": result.model_dump(mode="json", by_alias=True, exclude_none=True),
    }))  # fmt: skip


asyncio.run(main(*sys.argv[1:]))
