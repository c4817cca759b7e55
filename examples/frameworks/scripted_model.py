"""A model that needs no key: it calls one tool with the given arguments, and then repeats what the tool said."""

from collections.abc import AsyncIterator
from typing import Any

from agents import Model, ModelResponse, Usage
from openai.types.responses import ResponseFunctionToolCall, ResponseOutputMessage, ResponseOutputText


class OneToolModel(Model):
    def __init__(self, tool: str, arguments: str) -> None:
        self.tool, self.arguments = tool, arguments

    async def get_response(self, system_instructions: Any, input: Any, *args: Any, **kwargs: Any) -> ModelResponse:
        results = (
            [item for item in input if item.get("type") == "function_call_output"] if isinstance(input, list) else []
        )
        if results:
            text = ResponseOutputText(
                type="output_text", text=f"The tool said: {results[-1]['output']}", annotations=[]
            )
            message = ResponseOutputMessage(
                id="m1", type="message", role="assistant", status="completed", content=[text]
            )
            return ModelResponse(output=[message], usage=Usage(requests=1), response_id=None)
        call = ResponseFunctionToolCall(type="function_call", call_id="c1", name=self.tool, arguments=self.arguments)
        return ModelResponse(output=[call], usage=Usage(requests=1), response_id=None)

    def stream_response(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        raise NotImplementedError
