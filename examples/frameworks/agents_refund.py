"""OpenAI Agents SDK: a tool that needs approval asks `lead`, and the run goes on when `lead` has answered."""

import asyncio
import json
import sys
from pathlib import Path

from agents import Agent, Runner, RunState, function_tool, set_tracing_disabled
from scripted_model import OneToolModel

from legivellum_worker import AsyncLedger

set_tracing_disabled(True)  # else the SDK sends what agents do to its maker


@function_tool(needs_approval=True)
def refund(amount: int) -> str:
    """Pay money back."""
    return f"{amount} EUR are on their way"


async def run(ledger: AsyncLedger, agent: Agent, task_id: str, prompt: str) -> str:
    saved = Path(f"{task_id}.json")
    async with ledger.obligation(task_id=task_id, task_type="agent.run") as work:
        going_on = await RunState.from_json(agent, json.loads(saved.read_text())) if saved.exists() else prompt
        if isinstance(going_on, RunState):
            for call in going_on.get_interruptions():
                answer = await work.answer(await work.ask("lead", f"{call.name} {call.arguments}"))
                if answer is None:
                    work.text("waits for lead")
                    return "waits"
                if answer.approved:
                    going_on.approve(call)
                else:
                    going_on.reject(call, rejection_message=answer or None)
        result = await Runner.run(agent, going_on)
        if result.interruptions:
            for call in result.interruptions:
                await work.ask("lead", f"{call.name} {call.arguments}")
            saved.write_text(json.dumps(result.to_state().to_json()))
            work.text("waits for lead")
            return "waits"
        saved.unlink(missing_ok=True)
        work.text(result.final_output)
        work.usage(requests=result.context_wrapper.usage.requests)
        return result.final_output


if __name__ == "__main__":
    clerk = Agent("clerk", tools=[refund], model=OneToolModel("refund", '{"amount": 400}'))
    triage = AsyncLedger("http://127.0.0.1:8001", Path("triage.key"), principal="triage")
    print(asyncio.run(run(triage, clerk, sys.argv[1], "The customer wants 400 EUR back.")))
