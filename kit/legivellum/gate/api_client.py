"""A client of a running gate for its commands: an address, a credential, JSON. It needs the standard library alone.

No proxy of the surroundings and no redirect: a credential goes where it was sent and nowhere else.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, OpenerDirector, ProxyHandler, Request, build_opener

SECONDS: Final = 10.0
LARGEST_ANSWER: Final = 256 * 1024 * 1024
_LARGEST_PROBLEM: Final = 262_144


class UnusableConnectionError(Exception):
    """The options of a command name no address or no credential that can be used."""


class NoAnswerError(Exception):
    """Nothing answered. `reason`: what the network said."""

    def __init__(self, message: str, reason: object) -> None:
        super().__init__(message)
        self.reason = reason


class NotJsonError(Exception):
    """Something answered, and it is no gate."""


class ApiError(Exception):
    """The gate refused. `status` and `code` are those of the problem document, which `problem` holds whole."""

    def __init__(self, status: int, code: str, detail: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(f"{code} ({status}): {detail}")
        self.status = status
        self.code = code
        self.problem = problem or {}


CONNECTION_ERRORS: Final = (ApiError, NoAnswerError, NotJsonError, UnusableConnectionError)
"""What a command's own line tells a person."""


@dataclass(frozen=True, slots=True)
class GateApiClient:
    """A running gate, as one caller sees it.

    Every method raises ApiError, NoAnswerError, NotJsonError.
    """

    url: str
    headers: Mapping[str, str] = field(repr=False)
    tenant: str | None = None
    """Sent as a parameter of every request."""
    ca_file: Path | None = None
    seconds: float = SECONDS
    """How long it may be silent."""
    largest: int = LARGEST_ANSWER
    """Bytes of an answer."""
    gate: str = "MetaGate"
    """What should be there, for messages."""

    def get(self, path: str, **query: object) -> Any:
        """The JSON of the answer; parameters that are None are not sent. Names in `path` go through `segment`."""
        return self._request("GET", path, query, None)

    def post(self, path: str, body: Any, **query: object) -> Any:
        return self._request("POST", path, query, json.dumps(body).encode())

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
        url = f"{self.url.rstrip('/')}{quote(path, safe='/%')}{'?' + urlencode(parameters) if parameters else ''}"
        headers = {**self.headers, **({} if body is None else {"content-type": "application/json"})}
        request = Request(url, data=body, method=method, headers=headers)  # noqa: S310 - the scheme was judged
        try:
            with _opener(self.ca_file).open(request, timeout=self.seconds) as response:
                return json.loads(response.read(self.largest))
        except HTTPError as error:
            raise _refusal(error, self.gate) from error
        except (URLError, OSError) as error:
            reason = getattr(error, "reason", error)
            raise NoAnswerError(f"{self.url} does not answer: {reason}", reason) from error
        except ValueError as error:
            raise NotJsonError(f"{self.url} does not answer in JSON: is it {_article(self.gate)}?") from error


def segment(name: str) -> str:
    """A name as one segment of a path: a task may be called `a/b?` (D-74)."""
    return quote(name, safe="")


def connection_headers(
    url: str, key_file: Path | None, token_file: Path | None, option: str = "--url"
) -> Mapping[str, str]:
    """The header with the credential, once the address was judged.

    Raises UnusableConnectionError, OSError for a file that cannot be read.
    """
    if urlsplit(url).scheme not in {"http", "https"}:
        raise UnusableConnectionError(f"{option}: {url} is not an http or https address")
    return credential_headers(key_file, token_file)


def credential_headers(key_file: Path | None, token_file: Path | None) -> dict[str, str]:
    """Raises UnusableConnectionError: no credential, or a file that holds none; OSError: it cannot be read."""
    if token_file is not None:
        return {"authorization": f"Bearer {_credential(token_file)}"}
    if key_file is not None:
        return {"x-api-key": _credential(key_file)}
    raise UnusableConnectionError("as whom? Give --key-file (or METAGATE_API_KEY_FILE), or --token-file")


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


@cache
def _opener(ca_file: Path | None) -> OpenerDirector:
    context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    return build_opener(ProxyHandler({}), HTTPSHandler(context=context), _NoRedirects())


def _credential(file: Path) -> str:
    credential = file.read_text(encoding="utf-8").strip()
    if not credential or not credential.isascii() or not credential.isprintable():
        raise UnusableConnectionError(f"{file}: holds no credential")
    return credential


def _refusal(error: HTTPError, gate: str) -> ApiError:
    answer: Any = None
    try:
        answer = json.loads(error.read(_LARGEST_PROBLEM))
        return ApiError(error.code, str(answer["code"]), str(answer["detail"]), answer)
    except (ValueError, KeyError, TypeError, OSError):
        # Not every refusal is a problem document: InterroGate's decisions are answers of their own.
        document = answer if isinstance(answer, dict) else None
        return ApiError(error.code, "UNKNOWN", f"no answer of {_article(gate)}", document)


def _article(gate: str) -> str:
    return f"{'an' if gate[0] in 'AEIO' else 'a'} {gate}"
