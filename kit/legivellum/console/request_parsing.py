"""What a request asks for: the parts of its path and its query, read once and strictly."""

import re
from typing import Final
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode
from uuid import UUID

from legivellum.base.uuids import parse_uuid
from legivellum.http import router
from legivellum.http.exchange import Scope
from legivellum.http.problem_codes import Code
from legivellum.http.problems import refuse

_MOST_FIELDS: Final = 16
_POSITION: Final = re.compile(r"(\d{1,18})\.(\d{1,18})\Z")

Form = dict[str, str]


def parse_form(raw: bytes) -> Form:
    """The fields of a query or a form. Raises INVALID_REQUEST for what is no form, or names a field twice."""
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=_MOST_FIELDS
        )
    except ValueError:
        raise refuse(Code.INVALID_REQUEST, "The form cannot be read.") from None
    form = dict(pairs)
    if len(form) != len(pairs):
        raise refuse(Code.INVALID_REQUEST, "A field was sent more than once.")
    return form


def path_segments(scope: Scope) -> tuple[str, ...]:
    """The parts of the path below /console, each decoded by itself; a name may hold a slash.

    Raises MALFORMED_REQUEST (400), as the gate's router does.
    """
    return tuple(router.path_segments(scope["raw_path"])[1:])


def is_of_console(raw_path: bytes) -> bool:
    """Whether the first segment is `console`: an escaped slash separates nothing, other escapes are decoded."""
    first = raw_path.split(b"/", 2)[1:2]
    return bool(first) and unquote_to_bytes(first[0]) == b"console"


def link(*parts: object, **query: object) -> str:
    """A path of the console. What is None or empty is left out of the query."""
    path = "/".join(("/console", *(quote(str(part), safe="") for part in parts)))
    given = {name: str(value) for name, value in query.items() if value not in {None, ""}}
    return f"{path}?{urlencode(given)}" if given else path


class PageQuery:
    """The query of a page. Every method raises INVALID_REQUEST for what cannot be meant."""

    def __init__(self, raw: bytes) -> None:
        self._fields = parse_form(raw)

    def text(self, name: str, longest: int = 253) -> str | None:
        """None when it is left out or blank."""
        value = self._fields.get(name, "").strip()
        if len(value) > longest or "\0" in value:
            raise refuse(Code.INVALID_REQUEST, f"{name}: at most {longest} characters, none of them NUL.")
        return value or None

    def one_of(self, name: str, *words: str) -> str | None:
        value = self.text(name)
        if value is not None and value not in words:
            raise refuse(Code.INVALID_REQUEST, f"{name}: one of {', '.join(words)}.")
        return value

    def id(self, name: str) -> UUID | None:
        value = self.text(name)
        uuid = None if value is None else parse_uuid(value)
        if value is not None and uuid is None:
            raise refuse(Code.INVALID_REQUEST, f"{name}: a UUID.")
        return uuid

    def position(self, name: str) -> tuple[int, int] | None:
        """Where a list goes on: `<revision>.<seq>`."""
        value = self.text(name)
        if value is None:
            return None
        match = _POSITION.match(value)
        if match is None:
            raise refuse(Code.INVALID_REQUEST, f"{name}: not a place in this list.")
        return int(match[1]), int(match[2])
