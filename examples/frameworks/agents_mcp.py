"""OpenAI Agents SDK: its MCP client at InterroGate, which decides each call and records how it ended."""

import asyncio
import sys
from pathlib import Path

from agents import Agent, Runner, set_tracing_disabled
from agents.mcp import MCPServerStreamableHttp
from scripted_model import OneToolModel

set_tracing_disabled(True)


async def run(url: str, key: str, tool: str, arguments: str) -> str:
    async with MCPServerStreamableHttp({"url": url, "headers": {"X-API-Key": key}}) as gateway:
        agent = Agent("clerk", mcp_servers=[gateway], model=OneToolModel(tool, arguments))
        return (await Runner.run(agent, "Use your tool.")).final_output


if __name__ == "__main__":
    address, key_file, *call = sys.argv[1:]
    print(asyncio.run(run(address, Path(key_file).read_text().strip(), *call)))
