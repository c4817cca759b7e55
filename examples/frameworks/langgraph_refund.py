"""LangGraph: an interrupt is a question in somebody's inbox, and their answer resumes the graph."""

import asyncio
import sys
from pathlib import Path
from typing import TypedDict

from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver
from langgraph.graph import END, START, StateGraph
from langgraph.types import Command, interrupt

from legivellum_worker import AsyncLedger


class Refund(TypedDict, total=False):
    amount: int
    outcome: str


def decide(state: Refund) -> Refund:
    answer = interrupt(f"Refund {state['amount']} EUR?")
    return {"outcome": f"refunded: {answer['text']}" if answer["approved"] else "declined"}


builder = StateGraph(Refund)
builder.add_node("decide", decide)
builder.add_edge(START, "decide")
builder.add_edge("decide", END)


async def run(ledger: AsyncLedger, task_id: str, amount: int) -> str:
    thread = {"configurable": {"thread_id": task_id}}
    async with (
        AsyncSqliteSaver.from_conn_string("refunds.sqlite") as saver,
        ledger.obligation(task_id=task_id, task_type="refund") as work,
    ):
        graph = builder.compile(checkpointer=saver)
        waiting = (await graph.aget_state(thread)).interrupts  # of an attempt before this one
        state = {"__interrupt__": waiting} if waiting else await graph.ainvoke({"amount": amount}, thread)
        while interrupts := state.get("__interrupt__"):
            questions = {item.id: await work.ask("lead", item.value) for item in interrupts}
            answers = {name: await work.answer(question) for name, question in questions.items()}
            if None in answers.values():
                work.text("waits for lead")
                return "waits"
            resume = {name: {"approved": answer.approved, "text": answer} for name, answer in answers.items()}
            state = await graph.ainvoke(Command(resume=resume), thread)
        work.text(state["outcome"])
        return state["outcome"]


if __name__ == "__main__":
    triage = AsyncLedger("http://127.0.0.1:8001", Path("triage.key"), principal="triage")
    print(asyncio.run(run(triage, sys.argv[1], int(sys.argv[2]))))
