"""`python -m metagate_postgres`: one server in the foreground, until a signal. The chart's trial database is this."""

import argparse
import signal
import sys
import time
from pathlib import Path
from types import FrameType

from metagate_postgres.cluster import ROLES
from metagate_postgres.errors import PostgresError
from metagate_postgres.launching import EmbeddedPostgres

LOOK_EVERY_SECONDS = 0.5


def main(arguments: list[str] | None = None) -> int:
    """0 after a signal, 1 when the server could not start or ended by itself."""
    parser = argparse.ArgumentParser(prog="python -m metagate_postgres", description=__doc__)
    parser.add_argument("--directory", type=Path, required=True, help="where the data are kept")
    parser.add_argument("--listen", default="127.0.0.1", help="address (127.0.0.1); SCRAM wherever it is")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument(
        "--passwords", type=Path, help="a directory with a file per role, as a mounted Secret; without it they are made"
    )
    given = parser.parse_args(arguments)
    stopped: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        stopped.append(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        server = EmbeddedPostgres(
            given.directory, listen=given.listen, port=given.port, role_passwords=_passwords(given.passwords)
        )
        with server:
            _say(f"PostgreSQL is ready on {given.listen}:{server.port}, its data in {given.directory}")
            while not stopped and server.running:
                time.sleep(LOOK_EVERY_SECONDS)
    except PostgresError as error:
        _say(str(error))
        return 1
    _say("stopped" if stopped else f"the server ended by itself; its log is {given.directory / 'postgres.log'}")
    return 0 if stopped else 1


def _passwords(directory: Path | None) -> dict[str, str]:
    if directory is None:
        return {}
    found = {role: directory / role for role in ROLES}
    missing = sorted(role for role, file in found.items() if not file.is_file())
    if missing:
        raise PostgresError(f"{directory} has no file for {', '.join(missing)}")
    return {role: file.read_text(encoding="utf-8").strip() for role, file in found.items()}


def _say(line: str) -> None:
    sys.stderr.write(f"metagate: {line}\n")


if __name__ == "__main__":
    sys.exit(main())
