"""`metagate quickstart`, which `make run` calls: watch the product do its job, on this machine, in a few seconds."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from metagate_cli.output import safe_text
from metagate_cli.terminal import FAILURE, Stop, pretty, styled

if TYPE_CHECKING:
    from metagate_api.settings import Settings

COMPONENT: Final = "indexer_main"
PORT: Final = 8000


def quickstart(
    once: Annotated[bool, typer.Option("--once", help="Stop when the component has reported READY.")] = False,
    directory: Annotated[Path, typer.Option(help="Working folder: a copy of the examples, and the data.")] = Path(
        ".metagate"
    ),
    port: Annotated[
        int | None, typer.Option(help="Port of the API. Default: METAGATE_PORT, 8000, or a free one.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address of the API. Default: METAGATE_HOST or 127.0.0.1.")] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The log, and the whole packet.")] = False,
) -> None:
    """Copy the examples once, serve them, boot a component, print what it was told, report READY, and stay."""
    from metagate_cli.developing import local_settings, must_be_free, port_taken, run
    from metagate_cli.quickstart_files import QuickstartFiles

    settings = local_settings(host, port, quiet=not verbose)
    if port is None and "port" not in settings.model_fields_set and port_taken(settings.host, PORT):
        print_line(f"Port {PORT} is in use; taking a free one.")
        settings = settings.model_copy(update={"port": 0})
    must_be_free(settings.host, settings.port)
    files = QuickstartFiles(directory)
    print_line(
        f"{'Copied the examples to' if files.prepare() else 'Using'} {files.resources} "
        "(yours to edit: what you save is served at once)"
    )
    print_line("Starting PostgreSQL, the reconciler and the API …")
    run(_quickstart(files.resources, files.data, settings, once=once, verbose=verbose))


async def _quickstart(resources: Path, data: Path, settings: Settings, *, once: bool, verbose: bool) -> None:
    from metagate_cli.machine import machine

    async with machine(resources, data, settings) as running:
        print_line(f"Booting {COMPONENT} through the client:\n")
        try:
            await _boot(running.url, data, verbose=verbose)
        except Stop as stop:
            if once:
                raise
            print_line(f"metagate: {stop}")
        if once:
            return
        _print_next_steps(running.url, resources, data)
        await running.ended


async def _boot(url: str, data: Path, *, verbose: bool) -> None:
    """What a pod does: bootstrap, start, report."""
    environ = {
        "METAGATE_URL": url,
        "METAGATE_API_KEY_FILE": str(data / "keys" / "indexer.key"),
        "METAGATE_COMPONENT_KEY": COMPONENT,
    }
    packet = await _run_client("bootstrap", environ)
    print_line(pretty(packet) if verbose else _packet_summary(packet))
    startup_id = packet["startup"]["startup_id"]
    answer = await _run_client("ready", {**environ, "METAGATE_STARTUP_ID": startup_id})
    print_line(f"\n{styled(answer['status'], 'bold green')}  {COMPONENT} reported at {answer['acknowledged_at']}")


def _packet_summary(packet: dict[str, Any]) -> str:
    """A line for each of the three questions that a packet answers, and where it comes from."""
    environment = ", ".join(f"{name}={value}" for name, value in (packet.get("environment") or {}).items())
    secrets = ", ".join(secret["ref_name"] for secret in packet.get("required_env") or [])
    lines = {
        "who": f"{packet['principal_key']}, with profile {packet['profile']} in manifest {packet['manifest']}",
        "may": ", ".join(packet.get("capabilities") or {}),
        "world": environment,
        "services": ", ".join(packet.get("services") or {}),
        "secrets": secrets,
        "packet": f"revision {packet['snapshot']['revision']}, digest {packet['snapshot']['digest'][:12]}",
    }
    return "\n".join(f"  {name:8}  {safe_text(text)}" for name, text in lines.items() if text)


async def _run_client(command: str, environ: dict[str, str]) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "metagate_client",
        command,
        env=_environment(environ),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, errors = await process.communicate()
    if process.returncode:
        raise Stop(errors.decode(errors="replace").strip().removeprefix("metagate: "), code=FAILURE)
    return dict(json.loads(out))


def _environment(variables: dict[str, str]) -> dict[str, str]:
    """Our own variables but for those that would tell the client of another MetaGate."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
    return {**kept, **variables}


def _print_next_steps(url: str, resources: Path, data: Path) -> None:
    """What to try, and last, where eyes are: the addresses, and the file of the key that opens them."""
    key = shlex.quote(str(data / "keys" / "admin.key"))
    manifest = shlex.quote(str(resources / "manifest.yaml"))
    boot = (
        f"METAGATE_URL={url} METAGATE_API_KEY_FILE={shlex.quote(str(data / 'keys' / 'indexer.key'))} "
        f"{shlex.quote(sys.argv[0])} bootstrap --component-key {COMPONENT}"
    )
    print_line(f"""
Two things to try, in another terminal:

  What is served, as the admin sees it:
    curl -s -H "X-API-Key: $(cat {key})" {url}/v1/admin/bindings

  Change the world and boot again; the packet has the new region and another digest:
    sed -i 's/eu-central/eu-north/' {manifest} && sleep 0.5 && \\
      {boot}

Ctrl-C stops everything. The data stays in {data}.

Serving on  {url}
Console     {url}/console
Key file    {key} (sign in with the key in it)""")


def print_line(text: str) -> None:
    print(text, flush=True)
