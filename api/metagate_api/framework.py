"""FastAPI behind the endpoint table: it reads parameters, runs dependencies and calls handlers; the table routes."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import fastapi
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.routing import Match
from starlette.types import Scope

from legivellum.http.asgi_handler import AsgiHandler
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse
from legivellum.http.router import Handler
from metagate_api.gate import Gate

FrameworkHandler = Callable[..., Awaitable[fastapi.Response]]


def framework_handlers(gate: Gate, functions: Mapping[str, FrameworkHandler]) -> dict[str, Handler]:
    """Each function as a handler of the table, by the same key: `GET /v1/startups`."""
    app = FastAPI(title="MetaGate", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    app.state.gate = gate
    app.add_exception_handler(RequestValidationError, _invalid_request)
    app.add_exception_handler(HTTPException, _unreadable_request)
    handlers: dict[str, Handler] = {}
    for key, function in functions.items():
        method, template = key.split(" ")
        app.router.routes.append(_TableRoute(template, function, methods=[method], response_model=None))
        handlers[key] = AsgiHandler(app)
    return handlers


class _TableRoute(APIRoute):
    """A route that the table has chosen already: FastAPI must not read the path a second time, and otherwise."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        if scope["state"]["exchange"].route != self.path or scope["method"] not in (self.methods or ()):
            return Match.NONE, {}
        return Match.FULL, {"endpoint": self.endpoint, "path_params": scope["path_params"], "route": self}


async def _invalid_request(_request: Request, error: Exception) -> fastapi.Response:
    """Where it is wrong and how; what was sent is not repeated."""
    assert isinstance(error, RequestValidationError)
    errors: list[Any] = list(error.errors())
    if any(problem["loc"][0] == "path" and problem["loc"][-1] == "kind" for problem in errors):
        raise refuse(Code.NOT_FOUND, "There is nothing at this path.")
    raise refuse(
        Code.INVALID_REQUEST,
        "; ".join(f"{'.'.join(map(str, problem['loc'][1:]))}: {problem['msg']}" for problem in errors[:5]),
    )


async def _unreadable_request(_request: Request, error: Exception) -> fastapi.Response:
    raise refuse(Code.MALFORMED_REQUEST, "The request cannot be read.") from error
