"""An MCP server of the SDK before 2026, run by an interpreter that has it: port, `stateless` or not, `json` or not."""

import sys

from mcp.server.fastmcp import Context, FastMCP
from pydantic import BaseModel

port, kind, form = sys.argv[1:]


class Person(BaseModel):
    name: str


server = FastMCP(
    "older",
    host="127.0.0.1",
    port=int(port),
    stateless_http=kind == "stateless",
    json_response=form == "json",
    log_level="ERROR",
)


@server.tool()
def add(a: int, b: int) -> int:
    """Adds two numbers."""
    return a + b


@server.tool()
def refuse() -> str:
    """Fails."""
    raise ValueError("no numbers today")


@server.tool()
async def steps(context: Context) -> str:
    """Reports progress."""
    for step in range(3):
        await context.report_progress(step, 3, f"step {step}")
    return "done"


@server.tool()
async def ask(context: Context) -> str:
    """Asks the client for what it does not offer."""
    try:
        await context.elicit("Who are you?", Person)
    except Exception as error:
        return f"refused: {type(error).__name__}"
    return "answered"


server.run(transport="streamable-http")
