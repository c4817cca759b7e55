"""A running InterroGate as a command of its command line asks it: its address and a credential."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode, urlsplit
from urllib.request import HTTPRedirectHandler, HTTPSHandler, ProxyHandler, Request, build_opener

import typer

Url = Annotated[
    str, typer.Option("--url", help="A running InterroGate, like http://127.0.0.1:8005.", envvar="INTERROGATE_URL")
]
KeyFile = Annotated[Path | None, typer.Option("--key-file", help="An API key.", envvar="METAGATE_API_KEY_FILE")]
TokenFile = Annotated[Path | None, typer.Option("--token-file", help="A token instead.", envvar="METAGATE_TOKEN_FILE")]
CaFile = Annotated[
    Path | None, typer.Option("--ca-file", help="Whom its certificate is signed by.", envvar="METAGATE_CA_FILE")
]

SECONDS: Final = 15.0
_LARGEST: Final = 16 * 1024 * 1024


class GateAnswerError(Exception):
    """It refused, does not answer, or is no InterroGate. The text is for a person."""


@dataclass(frozen=True, slots=True)
class InterroGateClient:
    """Every method raises GateAnswerError."""

    url: str
    headers: Mapping[str, str]
    ca_file: Path | None = None

    @classmethod
    def of(cls, url: str, key_file: Path | None, token_file: Path | None, ca_file: Path | None) -> InterroGateClient:
        """What the options of a command name. Raises GateAnswerError, OSError for a file that cannot be read."""
        if urlsplit(url).scheme not in {"http", "https"}:
            raise GateAnswerError("--url: is not an http or https address")
        if token_file is not None:
            return cls(url, {"authorization": f"Bearer {_credential(token_file)}"}, ca_file)
        if key_file is not None:
            return cls(url, {"x-api-key": _credential(key_file)}, ca_file)
        raise GateAnswerError("as whom? Give --key-file (or METAGATE_API_KEY_FILE), or --token-file")

    def get(self, path: str, **query: object) -> Any:
        """The JSON of the answer; parameters that are None are not sent."""
        parameters = {name: value for name, value in query.items() if value is not None}
        url = f"{self.url.rstrip('/')}{quote(path)}{'?' + urlencode(parameters) if parameters else ''}"
        # No proxy of the surroundings and no redirect: a credential goes where it was sent and nowhere else.
        context = ssl.create_default_context(cafile=None if self.ca_file is None else str(self.ca_file))
        opener = build_opener(ProxyHandler({}), HTTPSHandler(context=context), _NoRedirects())
        try:
            request = Request(url, headers=dict(self.headers))  # noqa: S310 - the scheme was judged
            with opener.open(request, timeout=SECONDS) as response:
                return json.loads(response.read(_LARGEST))
        except HTTPError as error:
            raise GateAnswerError(_refusal(error)) from error
        except (URLError, OSError) as error:
            raise GateAnswerError(f"{self.url} does not answer: {getattr(error, 'reason', error)}") from error
        except ValueError as error:
            raise GateAnswerError(f"{self.url} does not answer in JSON: is it an InterroGate?") from error

    def items(self, path: str, **query: object) -> Iterator[dict[str, Any]]:
        """Every item of a list, page by page."""
        cursor = None
        while True:
            page = self.get(path, cursor=cursor, limit=500, **query)
            yield from page["items"]
            cursor = page["next_cursor"]
            if cursor is None:
                return


class _NoRedirects(HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _credential(file: Path) -> str:
    credential = file.read_text(encoding="utf-8").strip()
    if not credential or not credential.isascii() or not credential.isprintable():
        raise GateAnswerError(f"{file}: holds no credential")
    return credential


def _refusal(error: HTTPError) -> str:
    try:
        problem = json.loads(error.read(65_536))
        return f"{problem['code']} ({error.code}): {problem['detail']}"
    except (ValueError, KeyError, TypeError, OSError):
        return f"status {error.code}, and no answer of an InterroGate"
