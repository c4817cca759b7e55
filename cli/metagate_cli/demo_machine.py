"""`metagate demo`, which `make demo` calls: every gate on this machine, then the story that `legivellum demo` tells."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from metagate_cli.terminal import FAILURE, Stop

if TYPE_CHECKING:
    from metagate_api.settings import Settings
    from metagate_cli.quickstart_files import QuickstartFiles

KEYED: Final = ("ida", "observer", "operator-on-call")
_PORT: Final = 8000
_PROGRAM: Final = "from metagate_cli.main import legivellum; legivellum()"


def demo_machine(
    once: Annotated[bool, typer.Option("--once", help="Stop when the story has been told.")] = False,
    directory: Annotated[Path, typer.Option(help="Working folder: a copy of examples/demo, and the data.")] = Path(
        ".metagate/demo"
    ),
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="The logs too.")] = False,
) -> None:
    """Start every gate here, have two documents reviewed, show what the ledger says of it, and stay.

    Exit code 1 with --once when the ledger does not hold exactly what it must. Ports are METAGATE_PORT,
    MEMORYGATE_PORT, …; where a default is in use, a free one.
    """
    from metagate_cli.developing import local_settings, run
    from metagate_cli.gates import ALL, gate_definitions
    from metagate_cli.quickstart_files import QuickstartFiles

    started = time.monotonic()
    files = QuickstartFiles(directory, "demo", KEYED)
    copied = files.prepare()
    print_line(f"{'Copied examples/demo to' if copied else 'Using'} {files.resources}")
    print_line(_model_line())
    ports = _free_ports([definition.name for definition in gate_definitions([ALL])])
    _declare_ports(files.resources, ports)
    settings = local_settings(None, None, quiet=not verbose)
    settings = settings.model_copy(update={"port": ports["metagate"]})
    print_line("Starting PostgreSQL, MetaGate and six gates …")
    run(_demo(files, settings, started, once=once, verbose=verbose))


def _model_line() -> str:
    """Who writes the summaries: said first, so that nobody takes them for a language model's."""
    url = os.environ.get("LLM_URL")  # noqa: TID251 - CogniGate's setting, said to a person before CogniGate runs
    if url:
        return f"Summaries are written by the model at {url}."
    return (
        "No key and no model are needed: builtin/extract-1 writes the summaries, which is not a language model. "
        "LLM_URL=, LLM_MODEL= and LLM_KEY_FILE= name yours."
    )


def _free_ports(gates: list[str]) -> dict[str, int]:
    """The port of each: what a variable says, else the default, else a free one. Set for the gates that are started."""
    from legivellum.gate.definition import load_definition
    from metagate_cli.developing import port_taken
    from metagate_cli.gate_processes import chosen_port
    from metagate_cli.gates import GATES

    ports = {}
    for name in ("metagate", *gates):
        variable = f"{name.upper()}_PORT"
        given = os.environ.get(variable)  # noqa: TID251 - settings of the gates that are started here
        default = _PORT if name == "metagate" else int(load_definition(GATES[name]).settings().port)
        ports[name] = int(given or default)
        if not given and port_taken("127.0.0.1", ports[name]):
            ports[name] = chosen_port(name, "127.0.0.1", 0)
            print_line(f"Port {default} is in use; {name} takes {ports[name]}.")
        os.environ[variable] = str(ports[name])  # noqa: TID251
    return ports


def _declare_ports(resources: Path, ports: Mapping[str, int]) -> None:
    """Write the ports into the copied files that name addresses of gates."""
    for file in resources.glob("*.yaml"):
        text = file.read_text(encoding="utf-8")
        changed = text
        for gate, port in ports.items():
            pattern = rf'((?:type: {gate}, endpoint|name: {gate}, url): "http://127\.0\.0\.1):\d+'
            changed = re.sub(pattern, rf"\g<1>:{port}", changed)
        if changed != text:
            file.write_text(changed, encoding="utf-8")


async def _demo(files: QuickstartFiles, settings: Settings, started: float, *, once: bool, verbose: bool) -> None:
    from metagate_cli.gates import ALL, gate_definitions
    from metagate_cli.machine import machine

    logs = files.data / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    gates = gate_definitions([ALL])
    async with machine(files.resources, files.data, settings, gates=gates, logs=None if verbose else logs) as running:
        print_line(f"Every gate answers after {time.monotonic() - started:.1f} s.\n")
        key = files.data / "keys" / "ida.key"
        code = await _tell_story({"metagate": running.url, **running.gates}, key)
        if once:
            if code:
                raise Stop(f"the demo is not as it must be (exit code {code})", code=FAILURE)
            return
        _print_next_steps(running.url, running.gates, files.data)
        await running.ended


async def _tell_story(urls: Mapping[str, str], key: Path) -> int:
    """`legivellum demo` as a person types it; its exit code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("METAGATE_")}  # noqa: TID251
    addresses = {"METAGATE_URL": urls["metagate"]}
    addresses |= {f"METAGATE_{gate.upper()}_URL": url for gate, url in urls.items() if gate != "metagate"}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _PROGRAM, "demo", "--key-file", str(key)),
        env={**kept, **addresses},
    )
    return await process.wait()


def _print_next_steps(url: str, gates: Mapping[str, str], data: Path) -> None:
    """Last, where eyes are: the addresses, and the files of the keys that open them."""
    keys = data / "keys"
    print_line(f"""
Sign in to the story's page with the key in {shlex.quote(str(keys / "observer.key"))}.
Again, in another terminal:
  legivellum demo --url {url} --key-file {shlex.quote(str(keys / "ida.key"))}

Ctrl-C stops everything. The data stays in {data}.

MetaGate    {url}/console
Ledger      {gates["memorygate"]}/console
MCP         {gates["interrogate"]}/mcp""")


def print_line(text: str) -> None:
    print(text, flush=True)
