"""The command `legivellum artifacts`: put a file into DepotGate, get one, list them. Results go to standard output."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time

from legivellum_worker.artifacts import OCTETS, ROLES, DepotGateClient
from legivellum_worker.handler_process import LEASE
from legivellum_worker.settings import find_depotgate
from metagate_client.errors import ClientError, MisconfiguredError
from metagate_client.settings import environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import IO, Any, Self

EXAMPLE = "legivellum artifacts put report.pdf --role output --task task-1"
STANDARD = "-"
_BAR = 24
_EVERY = 0.1


def parser() -> argparse.ArgumentParser:
    """The options of `legivellum artifacts`."""
    root = argparse.ArgumentParser(
        prog="legivellum artifacts",
        description="Deposit files in DepotGate, fetch artifacts by their pointers, list them.",
        epilog=f"""\
Exit codes: 0 done, 1 refused or corrupt, 2 not configured, 3 DepotGate did not answer.

Example:
  {EXAMPLE}""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_commands(root)
    return root


def commands() -> Mapping[str, argparse.ArgumentParser]:
    """The options of each command: what a shell offers."""
    return _add_commands(argparse.ArgumentParser(prog="legivellum artifacts"))


def _add_commands(root: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    added = root.add_subparsers(dest="command", required=True, metavar="put | get | list")
    result = {
        "put": added.add_parser("put", help="deposit a file; prints its pointer"),
        "get": added.add_parser("get", help="fetch an artifact into a file"),
        "list": added.add_parser("list", help="list artifacts"),
    }
    for name, add_options in (("put", _add_put), ("get", _add_get), ("list", _add_list)):
        add_options(result[name])
    return result


def _add_put(put: argparse.ArgumentParser) -> None:
    put.add_argument("file", metavar="FILE", help="what to deposit; - is standard input")
    put.add_argument("--role", choices=ROLES, default="output", help="what it is to the task (output)")
    put.add_argument("--task", metavar="ID", help="which task; under a lease the lease's")
    put.add_argument("--lease", metavar="ID", help=f"deposit under this lease ({LEASE})")
    put.add_argument("--caused-by", metavar="RECEIPT", help="the receipt that made you deposit it")
    put.add_argument("--type", default=OCTETS, metavar="TYPE", help=f"its media type ({OCTETS})")
    put.add_argument("--name", metavar="NAME", help="the name to save it under (the file's)")
    put.add_argument("--id", metavar="ULID", help="the same id deposits once, however often it is sent")
    put.add_argument("-o", "--output", choices=("text", "json"), default="text", help="the pointer, or all (text)")
    _add_connection(put)


def _add_get(get: argparse.ArgumentParser) -> None:
    get.add_argument("pointer", metavar="POINTER", help="depot:<id>:<sha256>")
    get.add_argument("file", metavar="FILE", help="where to write it; - is standard output")
    _add_connection(get)


def _add_list(listing: argparse.ArgumentParser) -> None:
    listing.add_argument("--task", metavar="ID", help="of this task only")
    listing.add_argument("--role", choices=ROLES, help="of this role only")
    listing.add_argument(
        "-o", "--output", choices=("text", "json"), default="text", help="for people or programs (text)"
    )
    _add_connection(listing)


def _add_connection(command: argparse.ArgumentParser) -> None:
    group = command.add_argument_group("connection")
    group.add_argument("--url", help="DepotGate's address (METAGATE_DEPOTGATE_URL, else the packet's)")
    group.add_argument("--token-file", metavar="FILE", help="a projected token (METAGATE_DEPOTGATE_TOKEN_FILE)")
    group.add_argument("--api-key-file", metavar="FILE", help="an API key (METAGATE_API_KEY_FILE)")
    group.add_argument("--api-key-header", metavar="NAME", help="its header (METAGATE_API_KEY_HEADER, X-API-Key)")
    group.add_argument("--ca-file", metavar="FILE", help="authorities for https (METAGATE_CA_FILE)")
    group.add_argument(
        "--patience", type=float, default=10.0, metavar="SECONDS", help="for a DepotGate that does not answer (10)"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what was asked; the exit code."""
    options = parser().parse_args(arguments)
    try:
        commands: Mapping[str, Callable[[argparse.Namespace], None]] = {"put": _put, "get": _get, "list": _list}
        commands[options.command](options)
    except ClientError as error:
        _say(str(error))
        return error.exit_code
    except OSError as error:
        _say(f"{error.filename or 'standard output'}: {(error.strerror or str(error)).lower()}")
        return MisconfiguredError.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


def _client(options: argparse.Namespace, lease_id: str | None = None) -> DepotGateClient:
    access = find_depotgate(
        url=options.url,
        token_file=options.token_file,
        api_key_file=options.api_key_file,
        api_key_header=options.api_key_header,
        ca_file=options.ca_file,
    )
    return DepotGateClient(access, lease_id=lease_id, patience_seconds=options.patience)


def _put(options: argparse.Namespace) -> None:
    client = _client(options, options.lease or environment().get(LEASE) or None)
    is_standard = options.file == STANDARD
    with _spooled(sys.stdin.buffer) if is_standard else open(options.file, "rb") as file, _Bar("put") as bar:
        artifact = client.put(
            file,
            role=options.role,
            media_type=options.type,
            name=options.name or (None if is_standard else os.path.basename(options.file)),
            task_id=options.task,
            caused_by_receipt_id=options.caused_by,
            artifact_id=options.id,
            on_progress=bar.show,
        )
    _print(json.dumps(artifact.answer) if options.output == "json" else artifact.pointer)


def _spooled(source: IO[bytes]) -> IO[bytes]:
    """All of a pipe in a file without a name: a deposit may have to be sent twice."""
    import shutil
    import tempfile

    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    shutil.copyfileobj(source, file, 1 << 20)
    file.seek(0)
    return file


def _get(options: argparse.Namespace) -> None:
    client = _client(options)
    with _Bar("get") as bar:
        if options.file == STANDARD:
            client.get(options.pointer, sys.stdout.buffer, on_progress=bar.show)
            sys.stdout.buffer.flush()
        else:
            client.fetch(options.pointer, options.file, on_progress=bar.show)


def _list(options: argparse.Namespace) -> None:
    manifests = _client(options).manifests(task_id=options.task, role=options.role)
    if options.output == "json":
        for manifest in manifests:
            _print(json.dumps(manifest))
        return
    for manifest in manifests:
        size = _bytes(manifest["size_bytes"])
        stored = str(manifest["stored_at"])[:19] + "Z"
        row = f"{manifest['pointer']}  {manifest['role']:10}  {size:>10}  {manifest['state']:7}  {stored}"
        _print(f"{row}  {_printable(manifest.get('name') or '')}".rstrip())


class _Bar:
    """How far it is, for somebody at a terminal; nothing anywhere else, and nothing stays."""

    def __init__(self, verb: str) -> None:
        self._verb = verb
        self._is_shown = sys.stderr.isatty() and environment().get("TERM") != "dumb"
        self._began = self._last = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_shown:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def show(self, done: int, total: int) -> None:
        now = time.monotonic()
        if not self._is_shown or (done < total and now - self._last < _EVERY):
            return
        self._last = now
        filled = _BAR * done // max(total, 1)
        rate = _bytes(int(done / max(now - self._began, 0.001)))
        sys.stderr.write(
            f"\r\x1b[K{self._verb} [{'#' * filled:{_BAR}}] {100 * done // max(total, 1):3} %"
            f"  {_bytes(done)} of {_bytes(total)}  {rate}/s"
        )
        sys.stderr.flush()


def _bytes(number: int) -> str:
    size, unit = float(number), "B"
    for larger in ("KiB", "MiB", "GiB", "TiB"):
        if size < 1024:
            break
        size, unit = size / 1024, larger
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"


def _printable(text: str) -> str:
    """A name is somebody's choice: it moves no cursor here."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _print(line: Any) -> None:
    print(line, flush=True)


def _say(line: str) -> None:
    print(f"legivellum artifacts: {line}", file=sys.stderr, flush=True)
