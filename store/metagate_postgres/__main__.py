"""`python -m metagate_postgres --directory DIR [--listen ADDRESS] [--port N] [--passwords DIR]`: the server alone.

For the chart's trial database. `--passwords` is a directory with a file per role, as a mounted Secret looks; without
one the passwords are made and kept in the data directory. The server's log goes to stderr. Ends with SIGTERM or SIGINT,
or with the server, which is a failure.
"""

import argparse
import signal
import sys
import threading
from pathlib import Path

from metagate_postgres.cluster import ROLES
from metagate_postgres.errors import PostgresError
from metagate_postgres.server import EmbeddedPostgres


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m metagate_postgres", description="PostgreSQL on one directory.")
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--listen", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=5432)
    parser.add_argument("--passwords", type=Path)
    options = parser.parse_args(arguments)
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda _number, _frame: stopping.set())
    server = EmbeddedPostgres(
        options.directory,
        listen=options.listen,
        port=options.port,
        role_passwords=_passwords(options.passwords),
        log_to_stderr=True,
    )
    try:
        server.start()
    except PostgresError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    try:
        while not stopping.wait(0.5):
            if not server.running:
                sys.stderr.write("the server ended by itself\n")
                return 1
    finally:
        server.stop()
    return 0


def _passwords(directory: Path | None) -> dict[str, str]:
    """The roles that have a file there."""
    if directory is None:
        return {}
    files = {role: directory / role for role in ROLES}
    return {role: path.read_text(encoding="utf-8").rstrip("\n") for role, path in files.items() if path.exists()}


if __name__ == "__main__":
    sys.exit(main())
