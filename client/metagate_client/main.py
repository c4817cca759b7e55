"""The commands of a pod. Each returns its exit code; what went wrong is one line on standard error."""

from __future__ import annotations

import json
import os
import sys

from metagate_client import settings as names
from metagate_client.arguments import parser
from metagate_client.client import Client
from metagate_client.errors import ClientError, MisconfiguredError, UnavailableError, print_error
from metagate_client.packet import Packet, to_environment_value
from metagate_client.settings import Settings, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence

    from metagate_client.readiness import Readiness


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; its exit code."""
    options = parser().parse_args(arguments)
    try:
        code: int = _COMMANDS[options.command](options)
    except ClientError as error:
        print_error(str(error))
        return error.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
    return code


def _bootstrap(options: argparse.Namespace) -> int:
    client = _client(options)
    packet = _packet(client, options)
    if packet is not None and not _packet_file(options):
        sys.stdout.buffer.write(packet.body.rstrip(b"\n") + b"\n")
        sys.stdout.buffer.flush()
    return 0


def _report_ready(options: argparse.Namespace) -> int:
    client, startup_id = _client(options), _startup_id(options)
    print(json.dumps(client.ready(startup_id, _build_version(options), options.health)))
    return 0


def _report_failed(options: argparse.Namespace) -> int:
    client, startup_id = _client(options), _startup_id(options)
    print(json.dumps(client.failed(startup_id, options.error, options.details)))
    return 0


def _run(options: argparse.Namespace) -> int:
    from metagate_client.child_process import SignalQueue, StoppedError
    from metagate_client.run_command import StartupReporter, report_stopped, run

    program = options.program[1:] if options.program[:1] == ["--"] else options.program
    if not program:
        raise MisconfiguredError("which command? metagate run -- command arguments")
    signals = SignalQueue()
    reporter = StartupReporter(None, None, "")
    try:
        client = _client(options)
        packet = _packet(client, options)
        reporter = StartupReporter(client, None if packet is None else packet.startup_id, _build_version(options))
        environ = _environ(options, packet)
        readiness = _readiness(options)
        return run(program, environ, signals=signals, readiness=readiness, reporter=reporter)
    except StoppedError as error:
        report_stopped(reporter, error)
        raise
    except MisconfiguredError as error:
        # Only when asked for: the reason has names that somebody declared, and goes into a database.
        reason = f": {error}" if options.report_reason else ""
        reporter.failed(f"the component is misconfigured{reason}", {"exit_code": error.exit_code})
        raise


_COMMANDS = {"bootstrap": _bootstrap, "ready": _report_ready, "failed": _report_failed, "run": _run}


def _client(options: argparse.Namespace) -> Client:
    settings = Settings(
        url=options.url,
        token_file=options.token_file,
        api_key_file=options.api_key_file,
        api_key_header=options.api_key_header,
        ca_file=options.ca_file,
        component_key=getattr(options, "component_key", None),
        verify_key_file=getattr(options, "verify_key_file", None),
        timeout=options.timeout,
    )
    return Client(settings, idempotency_key=getattr(options, "idempotency_key", None))


def _packet(client: Client, options: argparse.Namespace) -> Packet | None:
    """The packet, written to its file; what is left of one when MetaGate is away and that was chosen."""
    from metagate_client import packet_file

    path = _packet_file(options)
    if options.if_unavailable == "cached" and not path:
        raise MisconfiguredError("--if-unavailable=cached needs --packet-file: that is where the cached packet is")
    try:
        packet = client.bootstrap(principal_key=options.principal_key)
    except UnavailableError as error:
        if options.if_unavailable == "fail":
            raise
        if options.if_unavailable == "continue":
            if path:
                packet_file.remove(path)
            print_error(f"going on WITHOUT A PACKET: {error}")
            return None
        packet = packet_file.read(path)
        print_error(f"going on with a STALE packet, issued at {packet.issued_at}: {error}")
    if path:
        packet_file.write(path, packet, options.packet_mode)
    return packet


def _environ(options: argparse.Namespace, packet: Packet | None) -> dict[str, str]:
    """The command's environment: ours, what the packet gives, and where to find more."""
    environ = dict(environment())
    for name in (names.STARTUP_ID, names.PACKET_FILE):
        environ.pop(name, None)
    if packet is None:
        return {**environ, names.PACKET_STATE: "absent"}
    environ[names.PACKET_STATE] = "stale" if packet.stale else "fresh"
    if packet.startup_id is not None:
        environ[names.STARTUP_ID] = packet.startup_id
    path = _packet_file(options)
    if path:
        environ[names.PACKET_FILE] = os.path.abspath(path)  # noqa: PTH100 - pathlib is not cheap
    for name, where, optional in options.env:
        try:
            environ[name] = to_environment_value(packet.find(where))
        except LookupError as error:
            if not optional:
                raise MisconfiguredError(
                    f"--env {name}: {error}; declare it, or write {where}? if it may be absent"
                ) from error
    missing = packet.missing_secrets(environ, os.path.exists)
    if missing:
        text = f"required secrets are missing: {', '.join(missing)}; add them to the pod (env, or a mounted Secret)"
        if options.require_secrets:
            raise MisconfiguredError(text)
        print_error(text)
    return environ


def _readiness(options: argparse.Namespace) -> Readiness:
    from metagate_client import readiness

    if options.ready_file:
        return readiness.ReadyFile(options.ready_file)
    if options.ready_port:
        return readiness.ReadyPort(options.ready_port)
    if options.ready_by_command:
        return readiness.ReadyByCommand()
    return readiness.ReadyAfter(1.0 if options.ready_after is None else options.ready_after)


def _startup_id(options: argparse.Namespace) -> str:
    from metagate_client import packet_file

    if options.startup_id:
        return str(options.startup_id)
    env = environment()
    path = options.packet_file or (None if env.get(names.STARTUP_ID) else env.get(names.PACKET_FILE))
    if path:
        if packet_file.is_stale(path):
            raise MisconfiguredError(f"the packet in {path} is stale: its startup ended long ago, nothing is reported")
        return str(packet_file.read(path)["startup"]["startup_id"])
    startup_id = env.get(names.STARTUP_ID)
    if not startup_id:
        raise MisconfiguredError("which startup? set --startup-id or --packet-file; the packet names it")
    return startup_id


def _packet_file(options: argparse.Namespace) -> str:
    return options.packet_file or environment().get(names.PACKET_FILE, "")


def _build_version(options: argparse.Namespace) -> str:
    return options.build_version or environment().get(names.BUILD_VERSION) or "unknown"
