"""The command line of the client. Every option has the environment or a default behind it."""

from __future__ import annotations

import argparse
import json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

EXAMPLES = {
    "bootstrap": "metagate bootstrap --component-key indexer_main --packet-file /run/metagate/packet.json",
    "ready": "metagate ready --build-version 1.4.2 --startup-id 0197a0c2-3e98-7437-9d5d-bb150a8e3fa7",
    "failed": "metagate failed --error 'no model at /models' --startup-id 0197a0c2-3e98-7437-9d5d-bb150a8e3fa7",
    "run": "metagate run --component-key indexer_main -- python -m indexer",
}


def parser() -> argparse.ArgumentParser:
    root = argparse.ArgumentParser(
        prog="metagate",
        description="What a pod runs: boot, and report how it went. Options win over METAGATE_… variables.",
        epilog="Exit codes: 0 done, 1 refused, 2 not configured, 3 not available; `run` passes its command's code on.",
    )
    commands = root.add_subparsers(dest="command", required=True, metavar="{bootstrap,ready,failed,run}")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        return commands.add_parser(
            name,
            help=about,
            epilog=f"Example:\n  {EXAMPLES[name]}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    _bootstrap(command("bootstrap", "boot, and print or write the Welcome Packet"))
    _ready(command("ready", "report READY"))
    _failed(command("failed", "report FAILED"))
    _run(command("run", "boot, start a command, and report how its start went"))
    return root


def command_parser(command: str) -> argparse.ArgumentParser:
    """The parser of one command."""
    commands: dict[str, argparse.ArgumentParser] = parser()._subparsers._group_actions[0].choices  # type: ignore[union-attr,assignment]  # noqa: SLF001 - argparse has no other way
    return commands[command]


def options_of(command: argparse.ArgumentParser) -> list[tuple[Sequence[str], Sequence[str], str]]:
    """The names, the choices and the help of each option of a command: what a shell offers."""
    return [
        (action.option_strings, tuple(action.choices or ()), action.help or "")
        for action in command._actions  # noqa: SLF001
        if action.option_strings
    ]


def _connection(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("connection")
    group.add_argument("--url", help="MetaGate's address (METAGATE_URL)")
    group.add_argument("--token-file", metavar="FILE", help="a projected token (METAGATE_TOKEN_FILE)")
    group.add_argument("--api-key-file", metavar="FILE", help="an API key (METAGATE_API_KEY_FILE)")
    group.add_argument("--api-key-header", metavar="NAME", help="its header (METAGATE_API_KEY_HEADER, X-API-Key)")
    group.add_argument("--ca-file", metavar="FILE", help="authorities for https (METAGATE_CA_FILE)")
    group.add_argument("--timeout", type=float, default=5.0, metavar="SECONDS", help="for a call, tries included (5)")


def _boot(parser: argparse.ArgumentParser) -> None:
    _connection(parser)
    group = parser.add_argument_group("boot")
    group.add_argument("--component-key", metavar="KEY", help="which component this is (METAGATE_COMPONENT_KEY)")
    group.add_argument("--principal-key", metavar="KEY", help="refuse to boot as anybody else")
    group.add_argument("--idempotency-key", metavar="KEY", help="the same key boots once (default: one per process)")
    group.add_argument("--packet-file", metavar="FILE", help="write the packet here (METAGATE_PACKET_FILE)")
    group.add_argument("--packet-mode", type=_mode, default=0o600, metavar="MODE", help="of that file (0600)")
    group.add_argument(
        "--if-unavailable",
        choices=("fail", "continue", "cached"),
        default="fail",
        help="without an answer: fail, go on without a packet, or with the one in --packet-file, marked stale (fail)",
    )
    group.add_argument(
        "--verify-key-file", metavar="FILE", help="only packets signed with this key (METAGATE_VERIFY_KEY_FILE)"
    )


def _bootstrap(parser: argparse.ArgumentParser) -> None:
    _boot(parser)


def _session(parser: argparse.ArgumentParser) -> None:
    _connection(parser)
    group = parser.add_argument_group("session")
    group.add_argument("--startup-id", metavar="ID", help="which startup (METAGATE_STARTUP_ID)")
    group.add_argument("--packet-file", metavar="FILE", help="or the one this packet names (METAGATE_PACKET_FILE)")


def _ready(parser: argparse.ArgumentParser) -> None:
    _session(parser)
    parser.add_argument("--build-version", metavar="TEXT", help="what is running (METAGATE_BUILD_VERSION, unknown)")
    parser.add_argument("--health", type=_json, metavar="JSON", help="how it is")


def _failed(parser: argparse.ArgumentParser) -> None:
    _session(parser)
    parser.add_argument("--error", required=True, metavar="TEXT", help="what went wrong, in one line")
    parser.add_argument("--details", type=_json, metavar="JSON", help="more of it")


def _run(parser: argparse.ArgumentParser) -> None:
    _boot(parser)
    parser.add_argument("--build-version", metavar="TEXT", help="what is running (METAGATE_BUILD_VERSION, unknown)")
    parser.add_argument(
        "--env",
        action="append",
        default=[],
        type=_mapping,
        metavar="NAME=PATH",
        help="give the command a value of the packet: MEMORY=services.memorygate.endpoint; PATH? may be absent",
    )
    parser.add_argument("--require-secrets", action="store_true", help="do not start without the packet's required_env")
    parser.add_argument(
        "--report-reason", action="store_true", help="FAILED names what is missing or wrong, like the name of a secret"
    )
    ready = parser.add_mutually_exclusive_group()
    ready.add_argument("--ready-file", metavar="FILE", help="ready when this file is written")
    ready.add_argument("--ready-port", type=_port, metavar="PORT", help="ready when this port accepts connections")
    ready.add_argument("--ready-after", type=_seconds, metavar="SECONDS", help="ready when alive that long (1)")
    ready.add_argument("--ready-by-command", action="store_true", help="the command runs `metagate ready` itself")
    parser.add_argument("program", nargs=argparse.REMAINDER, metavar="-- command …", help="what to start")


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise argparse.ArgumentTypeError("not JSON") from error


def _mapping(text: str) -> tuple[str, str, bool]:
    name, equals, path = text.partition("=")
    if not equals or not name.isidentifier() or not name.isascii() or not path.rstrip("?"):
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, path.removesuffix("?"), path.endswith("?")


def _mode(text: str) -> int:
    if not text.isdigit() or len(text) > 4 or any(digit in "89" for digit in text):
        raise argparse.ArgumentTypeError("an octal mode, like 0600")
    mode = int(text, 8)
    if mode & 0o007:
        raise argparse.ArgumentTypeError("a packet is not for everybody: the last digit must be 0")
    return mode


def _port(text: str) -> int:
    if not text.isdigit() or not 0 < int(text) < 65_536:
        raise argparse.ArgumentTypeError("a port between 1 and 65535")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError("a number of seconds") from error
    if not 0 <= seconds <= 86_400:
        raise argparse.ArgumentTypeError("between 0 and 86400 seconds")
    return seconds
