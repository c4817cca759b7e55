"""A client of the API of a running MetaGate: its address, a credential, a tenant."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

import typer

from metagate_cli.output import safe_text
from metagate_cli.terminal import FAILURE, UNABLE, Stop

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

SECONDS: Final = 10.0
_LARGEST: Final = 256 * 1024 * 1024


class ApiError(Exception):
    """The API refused. `status` and `code` are those of the problem document."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(f"{code} ({status}): {detail}")
        self.status = status
        self.code = code


class NotJson(Stop):
    """Something answered, and it is no gate."""


@dataclass(frozen=True, slots=True)
class ApiClient:
    """A running MetaGate, as one caller sees it. Every method may raise ApiError, and Stop when there is no answer."""

    url: str
    headers: Mapping[str, str]
    tenant: str | None = None
    ca_file: Path | None = None
    seconds: float = SECONDS
    """How long it may be silent."""
    largest: int = _LARGEST
    """Bytes of an answer."""

    def get(self, path: str, **query: object) -> Any:
        return self._request("GET", path, query, None)

    def items(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, limit=500, **query)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return

    def _request(self, method: str, path: str, query: Mapping[str, object], body: bytes | None) -> Any:
        parameters = {name: value for name, value in {"tenant": self.tenant, **query}.items() if value is not None}
        url = f"{self.url.rstrip('/')}{quote(path)}{'?' + urlencode(parameters) if parameters else ''}"
        request = Request(url, data=body, method=method, headers=dict(self.headers))  # noqa: S310 - the scheme was judged
        opener = _opener(self.ca_file)
        try:
            with opener.open(request, timeout=self.seconds) as response:
                return json.loads(response.read(self.largest))
        except HTTPError as error:
            raise _error_of(error) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise Stop(f"{safe_text(self.url)} does not answer: {safe_text(reason)}", code=UNABLE) from error
        except ValueError as error:
            raise NotJson(f"{safe_text(self.url)} does not answer in JSON: is it a MetaGate?", code=UNABLE) from error


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@cache
def _opener(ca_file: Path | None) -> OpenerDirector:
    """No proxy of the surroundings, and no redirect: a credential goes where it was sent and nowhere else."""
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    return build_opener(ProxyHandler({}), HTTPSHandler(context=context), _NoRedirects())


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
    if token_file is not None:
        return {"authorization": f"Bearer {_secret(token_file)}"}
    if key_file is not None:
        return {"x-api-key": _secret(key_file)}
    raise Stop("as whom? Give an admin's --key-file (or METAGATE_API_KEY_FILE), or a --token-file")


NOT_FOUND: Final = frozenset({"NOT_FOUND", "SESSION_NOT_FOUND"})


def stop_for(error: ApiError, subject: str = "", advice: str = "") -> Stop:
    """The refusal as what ends a command. What does not exist is named (`subject`), with how to find what does."""
    if subject and error.code in NOT_FOUND:
        return Stop(f"{safe_text(subject)}: there is none{f' ({advice})' if advice else ''}", code=FAILURE)
    return Stop(safe_text(error), code=FAILURE)


def _secret(file: Path) -> str:
    credential = file.read_text(encoding="utf-8").strip()
    if not credential or not credential.isascii() or not credential.isprintable():
        raise Stop(f"{file}: holds no credential")
    return credential


def _error_of(error: HTTPError) -> ApiError:
    try:
        problem = json.loads(error.read(65_536))
        return ApiError(error.code, str(problem["code"]), str(problem["detail"]))
    except (ValueError, KeyError, TypeError, OSError):
        return ApiError(error.code, "UNKNOWN", "no answer of a MetaGate")
