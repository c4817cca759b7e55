"""The command line every gate has: `serve`, `migrate`, one line for what went wrong. Nothing is imported before it is
needed.

Exit codes: 0 done, 1 something is wrong with what was asked about, 2 the command was not understood, 3 it could not be
done here and now.
"""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.models import OptionInfo

if TYPE_CHECKING:
    from legivellum.gate.definition import Definition

Define = Callable[[], "Definition[Any, Any]"]
"""Imports a gate's definition when a command needs it."""


def gate_commands(name: str, help_: str, roles: tuple[str, ...], define: Define) -> typer.Typer:
    """An application with `serve`, and `migrate` for a gate with a schema, to which a gate adds its own commands.

    `roles`: those of its processes, each with an option for its password; none: the gate has no schema.
    """
    app = typer.Typer(
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help=help_,
    )

    def serve() -> None:
        from legivellum.gate.composition import run

        definition = define()
        raise typer.Exit(run(definition, definition.settings()))

    app.command(help=f"Serve; settings come from the environment ({name.upper()}_…).")(serve)
    if roles:
        _add_migrate(app, name, roles, define)
    else:
        # With one command alone typer would leave its name out: `delegate serve` is what is typed.
        app.callback()(lambda: None)
    return app


def _add_migrate(app: typer.Typer, name: str, roles: tuple[str, ...], define: Define) -> None:
    def migrate(database_url: str, **passwords: str | None) -> None:
        from legivellum.gate.definition import GateDefinition

        given = {role: passwords[_password(name, role)] for role in roles}
        definition = define()
        assert isinstance(definition, GateDefinition)
        migrated = asyncio.run(
            definition.migrate(database_url, passwords={role: word for role, word in given.items() if word})
        )
        print(f"schema version {migrated.version}, applied: {', '.join(migrated.applied) or 'nothing'}")
        for warning in migrated.warnings:
            print(f"warning: {warning}", file=sys.stderr)

    parameters = [_parameter("database_url", Annotated[str, database_option(name)])] + [
        _parameter(_password(name, role), _password_option(role), default=None) for role in roles
    ]
    migrate.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    migrate.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    app.command(
        help="Create the schema or bring it up to date; harmless when there is nothing to do.",
        short_help="Create the schema or bring it up to date.",
    )(migrate)


def database_option(name: str) -> OptionInfo:
    """The option every command has that works on the gate's database."""
    setting = f"{name.upper()}_DATABASE_URL"

    def checked(url: str | None) -> str | None:
        from legivellum.postgres.dsn import address

        return None if url is None else address(url, setting)

    option: OptionInfo = typer.Option(
        "--database-url",
        envvar=[setting, "DATABASE_URL"],
        help="PostgreSQL, as a role that may do this.",
        callback=checked,
    )
    return option


def run_commands(app: typer.Typer, name: str, *, expected: Callable[[], tuple[type[Exception], ...]] = tuple) -> None:
    """Run the command line; what went wrong is one line. `expected`: further errors that a person can mend."""
    from legivellum.postgres.errors import DatabaseError

    try:
        app(prog_name=name)
    except (DatabaseError, OSError) as error:
        print(f"{name}: {_in_words(error)}", file=sys.stderr)
        sys.exit(3)
    except Exception as error:
        from pydantic import ValidationError

        from legivellum.base.settings import UnusableSettingError

        if not isinstance(error, (ValidationError, UnusableSettingError, *expected())):
            raise
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)


def _in_words(error: Exception) -> str:
    """Without the number that the system has for it: a person wants to know which file, and what of it."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return str(error)


def _password(name: str, role: str) -> str:
    """The option of a role's password: `writer_password` for the role `memorygate_writer`."""
    return f"{role.removeprefix(f'{name}_')}_password"


def _password_option(role: str) -> Any:
    return Annotated[str | None, typer.Option(envvar=f"{role.upper()}_PASSWORD", help=f"Set it on the role {role}.")]


def _parameter(name: str, annotation: Any, default: Any = inspect.Parameter.empty) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
