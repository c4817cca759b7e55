"""What a person is told when something failed: one line that says what to do next, never a traceback."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

from metagate_cli.terminal import FAILURE, UNABLE

if TYPE_CHECKING:
    from pydantic import ValidationError

    from legivellum.postgres.errors import DatabaseError


def error_line(error: BaseException) -> tuple[str, int]:
    """The line and the exit code for an exception nobody on the way understood."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    line = _known_error(error)
    if line is not None:
        return line, UNABLE
    name = type(error).__name__
    return f"unexpected {name} (`METAGATE_TRACEBACK=1` shows where): this is a bug, please report it", FAILURE


def _known_error(error: BaseException) -> str | None:
    from pydantic import ValidationError

    from legivellum.base.settings import UnusableSettingError
    from legivellum.postgres.errors import DatabaseError, UnusableAddress, UnusableEncoding
    from metagate_postgres.errors import PostgresError

    match error:
        case UnusableSettingError() | UnusableAddress():
            return f"a setting is wrong: {error}"
        case ValidationError():
            return f"a setting is wrong: {_settings(error)}"
        case UnusableEncoding():
            return str(error)
        case DatabaseError():
            return _database(error)
        case PostgresError():
            return str(error)
        case OSError(errno=errno.EADDRINUSE):
            return "the port is in use: choose another with --port"
        case OSError():
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{os.strerror(error.errno) if error.errno else error}"
    return None


def _database(error: DatabaseError) -> str | None:
    from metagate_store.errors import Fenced, ForeignCluster, RowRefused, SchemaMismatch, StoreUnavailable

    match error:
        case RowRefused():
            return None
        case StoreUnavailable():
            line = "the database does not answer: check DATABASE_URL and that PostgreSQL runs"
        case SchemaMismatch():
            line = "the database's schema is not the one this release needs: run `metagate migrate`"
        case ForeignCluster():
            line = "the database belongs to another cluster: `metagate migrate --adopt` takes it over"
        case Fenced():
            line = "another writer took over this database: stop it first if this one should write"
        case _:
            return None
    return line + (f" ({error.why})" if error.why else "")


def wants_traceback() -> bool:
    """Whether METAGATE_TRACEBACK asks for what a developer needs."""
    return bool(os.environ.get("METAGATE_TRACEBACK"))  # noqa: TID251 - it must work when the settings do not


def _settings(error: ValidationError) -> str:
    """Pydantic's findings without the values it saw."""
    errors = error.errors(include_input=False, include_url=False, include_context=False)
    return "; ".join(
        f"{'.'.join(map(str, error_item['loc'])) or 'settings'}: {error_item['msg'].removeprefix('Value error, ')}"
        for error_item in errors
    )
