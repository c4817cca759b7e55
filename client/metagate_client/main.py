"""The commands of a pod. Each returns its exit code; what went wrong is one line on standard error."""

from __future__ import annotations

import json
import os
import sys

from metagate_client import settings as names
from metagate_client.arguments import parser
from metagate_client.client import Client
from metagate_client.errors import ClientError, MisconfiguredError, UnavailableError
from metagate_client.packet import Packet, as_variable
from metagate_client.settings import Settings, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from metagate_client.readiness import Readiness


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    given = parser().parse_args(arguments)
    try:
        code: int = _COMMANDS[given.command](given)
    except ClientError as error:
        print(f"metagate: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _bootstrap(given: argparse.Namespace) -> int:
    client = _client(given)
    packet = _packet(client, given)
    if packet is not None and not _packet_file(given):
        sys.stdout.buffer.write(packet.body.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _report_ready(given: argparse.Namespace) -> int:
    client, startup_id = _client(given), _startup_id(given)
    print(json.dumps(client.ready(startup_id, _build_version(given), given.health)))
    return 0


def _report_failed(given: argparse.Namespace) -> int:
    client, startup_id = _client(given), _startup_id(given)
    print(json.dumps(client.failed(startup_id, given.error, given.details)))
    return 0


def _run(given: argparse.Namespace) -> int:
    from metagate_client.child import Signals, StoppedError
    from metagate_client.running import Witness, run, stopped

    program = given.program[1:] if given.program[:1] == ["--"] else given.program
    if not program:
        raise MisconfiguredError("which command? metagate run -- command arguments")
    signals = Signals()
    witness = Witness(None, None, "")
    try:
        client = _client(given)
        packet = _packet(client, given)
        witness = Witness(client, None if packet is None else packet.startup_id, _build_version(given))
        environ = _environ(given, packet)
        readiness = _readiness(given)
        return run(program, environ, signals=signals, readiness=readiness, witness=witness)
    except StoppedError as error:
        stopped(witness, error)
        raise
    except MisconfiguredError as error:
        witness.failed("the component is misconfigured", {"exit_code": error.exit_code})
        raise


_COMMANDS = {"bootstrap": _bootstrap, "ready": _report_ready, "failed": _report_failed, "run": _run}


def _client(given: argparse.Namespace) -> Client:
    settings = Settings(
        url=given.url,
        token_file=given.token_file,
        api_key_file=given.api_key_file,
        api_key_header=given.api_key_header,
        ca_file=given.ca_file,
        component_key=getattr(given, "component_key", None),
        verify_key_file=getattr(given, "verify_key_file", None),
        timeout=given.timeout,
    )
    return Client(settings, idempotency_key=getattr(given, "idempotency_key", None))


def _packet(client: Client, given: argparse.Namespace) -> Packet | None:
    """The packet, written to its file; what is left of one when MetaGate is away and that was chosen."""
    from metagate_client import packet_file

    path = _packet_file(given)
    if given.if_unavailable == "cached" and not path:
        raise MisconfiguredError("--if-unavailable=cached needs --packet-file: that is where the cached packet is")
    try:
        packet = client.bootstrap(principal_key=given.principal_key)
    except UnavailableError as error:
        if given.if_unavailable == "fail":
            raise
        if given.if_unavailable == "continue":
            if path:
                packet_file.remove(path)
            _warn(f"going on WITHOUT A PACKET: {error}")
            return None
        packet = packet_file.read(path)
        _warn(f"going on with a STALE packet, issued at {packet.issued_at}: {error}")
    if path:
        packet_file.write(path, packet, given.packet_mode)
    return packet


def _environ(given: argparse.Namespace, packet: Packet | None) -> dict[str, str]:
    """The command's environment: ours, what the packet gives, and where to find more."""
    environ = dict(environment())
    for name in (names.STARTUP_ID, names.PACKET_FILE):
        environ.pop(name, None)
    if packet is None:
        return {**environ, names.PACKET_STATE: "absent"}
    environ[names.PACKET_STATE] = "stale" if packet.stale else "fresh"
    if packet.startup_id is not None:
        environ[names.STARTUP_ID] = packet.startup_id
    path = _packet_file(given)
    if path:
        environ[names.PACKET_FILE] = os.path.abspath(path)  # noqa: PTH100 - pathlib is not cheap
    for name, where, optional in given.env:
        try:
            environ[name] = as_variable(packet.find(where))
        except LookupError as error:
            if not optional:
                raise MisconfiguredError(
                    f"--env {name}: {error}; declare it, or write {where}? if it may be absent"
                ) from error
    missing = packet.missing_secrets(environ, os.path.exists)
    if missing:
        text = f"required secrets are missing: {', '.join(missing)}; add them to the pod (env, or a mounted Secret)"
        if given.require_secrets:
            raise MisconfiguredError(text)
        _warn(text)
    return environ


def _readiness(given: argparse.Namespace) -> Readiness:
    from metagate_client import readiness

    if given.ready_file:
        return readiness.ReadyFile(given.ready_file)
    if given.ready_port:
        return readiness.ReadyPort(given.ready_port)
    if given.ready_by_command:
        return readiness.ReadyByCommand()
    return readiness.ReadyAfter(1.0 if given.ready_after is None else given.ready_after)


def _startup_id(given: argparse.Namespace) -> str:
    from metagate_client import packet_file

    if given.startup_id:
        return str(given.startup_id)
    path = given.packet_file or (None if environment().get(names.STARTUP_ID) else environment().get(names.PACKET_FILE))
    if path:
        if packet_file.is_stale(path):
            raise MisconfiguredError(f"the packet in {path} is stale: its startup ended long ago, nothing is reported")
        return str(packet_file.read(path)["startup"]["startup_id"])
    startup_id = environment().get(names.STARTUP_ID)
    if not startup_id:
        raise MisconfiguredError("which startup? set --startup-id or --packet-file; the packet names it")
    return startup_id


def _packet_file(given: argparse.Namespace) -> str:
    return given.packet_file or environment().get(names.PACKET_FILE, "")


def _build_version(given: argparse.Namespace) -> str:
    return given.build_version or environment().get(names.BUILD_VERSION) or "unknown"


def _warn(line: str) -> None:
    print(f"metagate: {line}", file=sys.stderr, flush=True)
