"""A client of the API of a running MetaGate or another gate: what goes wrong ends a command in one line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from legivellum.gate.api_client import (
    ApiError,
    GateApiClient,
    NoAnswerError,
    NotJsonError,
    UnusableConnectionError,
    segment,
)
from legivellum.gate.api_client import credential_headers as read_credential
from metagate_cli.output import safe_text
from metagate_cli.terminal import FAILURE, UNABLE, Stop

__all__ = ["ApiClient", "ApiError", "NotJson", "connect", "credential_headers", "segment", "stop_for"]

Url = Annotated[
    str | None, typer.Option("--url", help="A running MetaGate, like http://127.0.0.1:8000.", envvar="METAGATE_URL")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="An admin's API key.", envvar="METAGATE_API_KEY_FILE")]
TokenFile = Annotated[
    Path | None, typer.Option("--token-file", help="An admin's token instead.", envvar="METAGATE_TOKEN_FILE")
]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", help="Whom its certificate is signed by.", envvar="METAGATE_CA_FILE")
]
Tenant = Annotated[str | None, typer.Option("--tenant", help="Of a cluster-wide admin: whose (a namespace's uid).")]


class NotJson(Stop):
    """Something answered, and it is no gate."""


class ApiClient(GateApiClient):
    """A running MetaGate, as one caller sees it. Every method may raise ApiError, and Stop when there is no answer."""

    __slots__ = ()

    def _request(self, method: str, path: str, query: Mapping[str, object], body: bytes | None) -> Any:
        try:
            return super()._request(method, path, query, body)
        except NoAnswerError as error:
            raise Stop(safe_text(error), code=UNABLE) from error
        except NotJsonError as error:
            raise NotJson(safe_text(error), code=UNABLE) from error


def connect(
    url: str | None, key_file: Path | None, token_file: Path | None, ca_file: Path | None, tenant: str | None
) -> ApiClient:
    """The client for what the options of a command name.

    Raises:
        Stop: no URL, no credential, or a file that cannot be read.

    """
    if not url:
        raise Stop("which MetaGate? Give --url or set METAGATE_URL")
    if urlsplit(url).scheme not in {"http", "https"}:
        raise Stop(f"--url: {safe_text(url)} is not an http or https address")
    return ApiClient(url, credential_headers(key_file, token_file), tenant, ca_file)


def credential_headers(key_file: Path | None, token_file: Path | None) -> dict[str, str]:
    """Raises Stop: no credential, or a file that holds none."""
    if key_file is None and token_file is None:
        raise Stop("as whom? Give an admin's --key-file (or METAGATE_API_KEY_FILE), or a --token-file")
    try:
        return read_credential(key_file, token_file)
    except UnusableConnectionError as error:
        raise Stop(str(error)) from error


NOT_FOUND: Final = frozenset({"NOT_FOUND", "SESSION_NOT_FOUND"})


def stop_for(error: ApiError, subject: str = "", advice: str = "") -> Stop:
    """The refusal as what ends a command. What does not exist is named (`subject`), with how to find what does."""
    if subject and error.code in NOT_FOUND:
        return Stop(f"{safe_text(subject)}: there is none{f' ({advice})' if advice else ''}", code=FAILURE)
    return Stop(safe_text(error), code=FAILURE)
