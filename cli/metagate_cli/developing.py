"""`metagate dev`: the whole product on one machine."""

from __future__ import annotations

import asyncio
import errno
import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metagate_cli.terminal import Stop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from legivellum.gate.definition import Definition
    from metagate_api.settings import Settings


def dev(
    resources: Annotated[Path, typer.Option(help="Directory of declared resources (YAML); it is watched.")],
    data_dir: Annotated[Path, typer.Option(help="Where the database keeps its files.")] = Path(".metagate/data"),
    port: Annotated[
        int | None, typer.Option(help="Port of the API; 0 takes a free one. Default: METAGATE_PORT or 8000.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API. Default: METAGATE_HOST or 127.0.0.1.")] = None,
    database_url: Annotated[
        str | None, typer.Option(help="Use this PostgreSQL, as its owner, instead of one in the data directory.")
    ] = None,
    with_: Annotated[
        list[str] | None,
        typer.Option(
            "--with",
            help="Gates to serve too, with commas between: `memorygate` (the receipt ledger, on MEMORYGATE_PORT or "
            "8001), `asyncgate` (custody of tasks, on ASYNCGATE_PORT or 8002), `depotgate` (artifacts, on "
            "DEPOTGATE_PORT or 8003), `interrogate` (admission, on INTERROGATE_PORT or 8005), these three with "
            "memorygate, `delegate` (plans, on DELEGATE_PORT or 8004; with the first three), `cognigate` (a worker "
            "with a model, on COGNIGATE_PORT or 8006; with those four), `all`, or "
            "`module:ATTRIBUTE` of a gate that is being developed.",
        ),
    ] = None,
) -> None:
    """Declare, compile, publish and serve on this machine, until Ctrl-C. A changed file is served at once."""
    from metagate_cli.gates import gate_definitions

    settings = local_settings(host, port)
    try:
        gates = gate_definitions(with_ or ())
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--with") from error
    run(_dev(resources, data_dir, settings, database_url, gates))


def local_settings(host: str | None, port: int | None, *, quiet: bool = False) -> Settings:
    """The environment's settings with the command line's choices; logs for people on a terminal, or (`quiet`) warnings
    only.
    """
    from legivellum.base import logging_setup
    from metagate_api.settings import Settings

    settings = Settings()
    chosen: dict[str, object] = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    if sys.stderr.isatty() and "log_format" not in settings.model_fields_set:
        chosen["log_format"] = "console"
    if "console" not in settings.model_fields_set:
        chosen["console"] = True
    settings = settings.model_copy(update=chosen)
    logging_setup.configure(settings, quiet=quiet)
    return settings


async def _dev(
    resources: Path,
    data: Path,
    settings: Settings,
    database_url: str | None,
    gates: Sequence[Definition[Any, Any]],
) -> None:
    import structlog

    from metagate_cli.machine import machine

    log = structlog.stdlib.get_logger("metagate.dev")
    must_be_a_directory(resources)
    must_be_free(settings.host, settings.port)
    async with machine(resources, data, settings, database_url=database_url, gates=gates) as running:
        for name, url in running.gates.items():
            log.info("serving_gate", gate=name, url=url)
        log.info("serving", url=running.url, ledger=running.ledger_url, resources=str(resources), data=str(data))
        if settings.console:
            _print_console(running.url, resources)
        await running.ended


def _print_console(url: str, resources: Path) -> None:
    """For a person, on standard output; the log has its own line on standard error."""
    print(f"Console: {url}/console (sign in with the API key of a Principal of type admin or observer). To make a key:")
    print(
        f"  metagate keys create me --type admin --key-file me.key > {shlex.quote(str(resources / 'me.yaml'))}",
        flush=True,
    )


def must_be_free(host: str, port: int) -> None:
    """Raise Stop when something listens there; said before a database is started, which takes seconds."""
    if port and port_taken(host, port):
        raise Stop(f"port {port} of {host} is in use: choose another with --port")


def port_taken(host: str, port: int) -> bool:
    from legivellum.gate.serving import require_free

    try:
        require_free(host, port)
    except OSError as error:
        return error.errno == errno.EADDRINUSE
    return False


def must_be_a_directory(path: Path) -> None:
    if not path.is_dir():
        raise Stop(f"{path}: there is no such directory; `metagate quickstart` makes one with examples")


def run(work: object) -> None:
    """Run a coroutine until it ends or SIGINT or SIGTERM comes; both stop it in order."""
    import structlog
    import uvloop

    async def until_signalled() -> None:
        task = asyncio.ensure_future(work)  # type: ignore[call-overload]
        signalled = False

        def stop() -> None:
            nonlocal signalled
            signalled = True
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            await task
        except asyncio.CancelledError:
            if not signalled:
                raise
            structlog.stdlib.get_logger("metagate.dev").info("stopped")

    uvloop.run(until_signalled())
