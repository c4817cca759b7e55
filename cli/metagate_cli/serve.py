"""`metagate serve` and `metagate migrate`: the API alone, and the schema it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from metagate_cli.terminal import USAGE, Stop, print_note, progress


def serve(
    workers: Annotated[int | None, typer.Option(help="Serving processes. Default: METAGATE_WORKERS or 1.")] = None,
    host: Annotated[str | None, typer.Option(help="Address. Default: METAGATE_HOST or 127.0.0.1.")] = None,
    port: Annotated[int | None, typer.Option(help="Port; 0 takes a free one. Default: METAGATE_PORT or 8000.")] = None,
    tls_cert: Annotated[str | None, typer.Option(help="PEM file of the certificate chain; unset: plain HTTP.")] = None,
    tls_key: Annotated[str | None, typer.Option(help="PEM file of its key.")] = None,
    metrics_port: Annotated[
        int | None, typer.Option(help="A port of its own for /metrics; unset: with the rest.")
    ] = None,
) -> None:
    """Serve what is published (DATABASE_URL, as the API's role), until SIGTERM. Every other setting:
    docs/settings.md.
    """
    from metagate_api import server
    from metagate_api.settings import Settings

    chosen = {
        "workers": workers,
        "host": host,
        "port": port,
        "tls_cert": tls_cert,
        "tls_key": tls_key,
        "metrics_port": metrics_port,
    }
    named = {name: value for name, value in chosen.items() if value is not None}
    raise typer.Exit(server.run(Settings.model_validate(named)))


def migrate(
    adopt: Annotated[
        bool,
        typer.Option(help="Take over another cluster's database: for --cluster-uid, or for whoever writes next."),
    ] = False,
    restored: Annotated[
        bool,
        typer.Option(
            "--restored", help="It comes from a backup: let revisions go on beyond any that was served since."
        ),
    ] = False,
    wait: Annotated[bool, typer.Option(help="Change nothing: wait until somebody else has migrated.")] = False,
    timeout: Annotated[float, typer.Option(help="Seconds that --wait waits.")] = 120.0,
    cluster_uid: Annotated[
        str | None, typer.Option(help="Whose database this is from now on.", envvar="METAGATE_CLUSTER_UID")
    ] = None,
) -> None:
    """Bring the database (DATABASE_URL) to the schema that this release needs. Harmless when there is nothing to do."""
    import asyncio

    from metagate_api.settings import Settings

    if wait and (restored or adopt):
        raise Stop("--wait changes nothing: give --restored and --adopt to whoever migrates", code=USAGE)
    changes = {"cluster_uid": cluster_uid, "adopt": adopt, "restored": restored}
    asyncio.run(_migrate(Settings().dsn, wait=wait, seconds=timeout, changes=changes))


async def _migrate(dsn: str, *, wait: bool, seconds: float, changes: Mapping[str, Any]) -> None:
    from metagate_cli.compile_options import role_passwords
    from metagate_store import migrating

    if wait:
        with progress("waiting for whoever migrates"):
            version = await migrating.wait_until_migrated(dsn, seconds=seconds)
        print_note(f"the schema is at version {version}")
        return
    with progress("migrating"):
        done = await migrating.migrate(dsn, passwords=role_passwords(), **changes)
    if changes["restored"]:
        print_note("revisions go on beyond any that was served since the backup")
    for warning in done.warnings:
        print_note(f"warning: {warning}")
    print_note(
        f"applied {', '.join(done.applied)}"
        if done.applied
        else f"nothing to do: the schema is at version {done.version}"
    )
