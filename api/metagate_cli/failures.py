"""What a person is told when something failed: one line that says what to do next, never a traceback."""

from __future__ import annotations

import errno
import os
from typing import Final

from metagate_cli.terminal import FOUND, UNABLE

_NEXT: Final = {
    "Unavailable": "the database does not answer: check DATABASE_URL and that PostgreSQL runs",
    "SchemaMismatch": "the database's schema is not the one this release needs: run `metagate migrate`",
    "ForeignCluster": "the database belongs to another cluster: `metagate migrate --adopt` takes it over",
    "Fenced": "another writer took over this database: stop it first if this one should write",
}


def explained(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for an exception nobody on the way understood."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    name = type(error).__name__
    if name in _NEXT:
        why = getattr(error, "why", "")
        return _NEXT[name] + (f" ({why})" if why else ""), UNABLE
    module = type(error).__module__
    if module.startswith("metagate_postgres"):
        return str(error), UNABLE
    if name in {"UnusableSettingError", "UnusableAddress"}:
        return f"a setting is wrong: {error}", UNABLE
    if name == "ValidationError" and module.startswith("pydantic"):
        return f"a setting is wrong: {_settings(error)}", UNABLE
    if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
        return "the port is in use: choose another with --port", UNABLE
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{os.strerror(error.errno) if error.errno else error}", UNABLE
    return f"unexpected {name} (`METAGATE_TRACEBACK=1` shows where): this is a bug, please report it", FOUND


def wants_traceback() -> bool:
    """Whether METAGATE_TRACEBACK asks for what a developer needs."""
    return bool(os.environ.get("METAGATE_TRACEBACK"))  # noqa: TID251 - it must work when the settings do not


def _settings(error: BaseException) -> str:
    """Pydantic's findings without the values it saw."""
    errors = getattr(error, "errors", None)
    found = errors(include_input=False, include_url=False, include_context=False) if callable(errors) else []
    return "; ".join(
        f"{'.'.join(map(str, each['loc'])) or 'settings'}: {each['msg'].removeprefix('Value error, ')}"
        for each in found
    )
