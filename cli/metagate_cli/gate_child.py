"""The process of one gate beside `metagate dev`: serves it with settings that its parent sends, and ends with its
parent.

The settings come as one line of standard input, because passwords are among them: variables and arguments of a process
can be read by others. The pipe stays open for as long as the parent lives, also where the parent is killed.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from legivellum.gate.definition import Definition

_STDIN: Final = 0
STOP_SECONDS: Final = 25.0
"""A gate answers what it has begun and gives leases back; jobs of CogniGate have 20 seconds of it."""


def main() -> None:
    """`python -m metagate_cli.gate_child MODULE`: serve the attribute GATE of a module."""
    from legivellum.base.settings import UnusableSettingError
    from legivellum.gate.composition import run
    from legivellum.gate.definition import load_definition
    from legivellum.postgres.errors import DatabaseError
    from metagate_client.errors import ClientError

    definition = load_definition(f"{sys.argv[1]}:GATE")
    settings = _settings(definition, json.loads(_first_line()))
    threading.Thread(target=_stop_with_parent, daemon=True).start()
    try:
        code = run(definition, settings)
    except (OSError, UnusableSettingError, DatabaseError, ClientError) as error:
        print(f"{definition.name}: {error}", file=sys.stderr)
        code = 1
    sys.exit(code)


def _first_line() -> bytes:
    # Read without a buffer: a thread that holds the lock of `sys.stdin` aborts the interpreter when it ends.
    line = b""
    while not line.endswith(b"\n") and (piece := os.read(_STDIN, 1)):
        line += piece
    return line


def settings_line(chosen: Mapping[str, Any]) -> bytes:
    """Settings as the child reads them. Secrets are told apart, so that they are masked there too."""
    from pydantic import SecretStr

    secrets = {name: value.get_secret_value() for name, value in chosen.items() if isinstance(value, SecretStr)}
    plain = {name: value for name, value in chosen.items() if name not in secrets}
    return json.dumps({"secrets": secrets, "settings": plain}).encode() + b"\n"


def _settings(definition: Definition[Any, Any], line: Mapping[str, Mapping[str, Any]]) -> Any:
    from pydantic import SecretStr

    secrets = {name: SecretStr(value) for name, value in line["secrets"].items()}
    return definition.settings().model_copy(update={**line["settings"], **secrets})


def _stop_with_parent() -> None:
    """The end of standard input is the end of the parent, however it ended."""
    while os.read(_STDIN, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main()
