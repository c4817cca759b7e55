"""A new cluster: initdb, passwords, the owner's role and its database. All of it before the server listens anywhere."""

import json
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from metagate_postgres.data_layout import DataLayout
from metagate_postgres.errors import StartFailed

SUPERUSER = "postgres"
OWNER = "metagate_owner"
ROLES = (SUPERUSER, OWNER, "metagate_publisher", "metagate_api", "metagate_identity")
DATABASE = "metagate"

HBA = """\
local all all scram-sha-256
host all all 127.0.0.1/32 scram-sha-256
host all all ::1/128 scram-sha-256
"""
HBA_OPEN = "host all all all scram-sha-256\n"


def passwords(layout: DataLayout, given: Mapping[str, str]) -> dict[str, str]:
    """One password per role: kept ones, made ones, and `given` ones, which win."""
    kept: dict[str, str] = {}
    if layout.passwords.exists():
        kept = json.loads(layout.passwords.read_text(encoding="utf-8"))
    known = {role: given.get(role) or kept.get(role) or secrets.token_urlsafe(24) for role in ROLES}
    if known != kept:
        _write_private(layout.passwords, json.dumps(known, indent=1) + "\n")
    return known


def create(layout: DataLayout, install: Path, known: Mapping[str, str]) -> None:
    """Run initdb beside the final place and rename: a start killed here leaves nothing half made.

    Nobody can log in before the passwords are set: until then every login is rejected, and nothing listens.
    """
    unfinished = layout.directory / "pgdata.unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(mode=0o700)
    layout.account.take_ownership(unfinished)
    command = [
        str(install / "bin" / "initdb"),
        f"--pgdata={layout.server_path(unfinished)}",
        f"--username={SUPERUSER}",
        "--auth=reject",
        "--encoding=UTF8",
        "--locale-provider=builtin",
        "--locale=C.UTF-8",
        "--no-instructions",
    ]
    _run(layout, command, unfinished)
    statements = (
        f"ALTER ROLE {SUPERUSER} PASSWORD {_quoted(known[SUPERUSER])};",
        f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD {_quoted(known[OWNER])};",
        f"CREATE DATABASE {DATABASE} OWNER {OWNER};",
        f"REVOKE ALL ON DATABASE {DATABASE} FROM PUBLIC;",
    )
    run_single_user(layout, install, unfinished, statements)
    unfinished.rename(layout.cluster)


def change_passwords(layout: DataLayout, install: Path, known: Mapping[str, str]) -> None:
    """Those of the roles that are ours; the others are `metagate migrate`'s."""
    statements = [f"ALTER ROLE {role} PASSWORD {_quoted(known[role])};" for role in (SUPERUSER, OWNER)]
    run_single_user(layout, install, layout.cluster, statements)


def write_hba(layout: DataLayout, *, everywhere: bool) -> None:
    path = layout.cluster / "pg_hba.conf"
    path.write_text(HBA + (HBA_OPEN if everywhere else ""), encoding="utf-8")


def run_single_user(layout: DataLayout, install: Path, cluster: Path, statements: Sequence[str]) -> None:
    """Run statements with nobody else there: single-user mode reads them from a pipe, no command line."""
    command = [str(install / "bin" / "postgres"), "--single", "-D", str(layout.server_path(cluster))]
    _run(layout, [*command, "-c", "log_min_messages=error", "postgres"], cluster, feed="\n".join(statements) + "\n")


def _quoted(text: str) -> str:
    """A string constant; the line is the statement in single-user mode, hence no line breaks."""
    if "\n" in text or "\0" in text:
        raise StartFailed("a password may not contain line breaks")
    return "'" + text.replace("'", "''") + "'"


def _run(layout: DataLayout, command: Sequence[str], cluster: Path, feed: str = "") -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        command,
        input=feed,
        text=True,
        cwd=cluster,  # entered before root is given up
        check=False,
        capture_output=True,
        umask=0o077,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
        **layout.account.popen_arguments,
    )
    # Single-user mode ends with 0 even when a statement failed.
    if done.returncode != 0 or "ERROR:" in done.stderr or "FATAL:" in done.stderr:
        output = "\n".join(line for line in done.stderr.splitlines() if "PASSWORD" not in line)[-2000:]
        raise StartFailed(f"{Path(command[0]).name} failed: {output}")


def _write_private(path: Path, text: str) -> None:
    unfinished = path.with_name(path.name + ".new")
    unfinished.unlink(missing_ok=True)
    with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.rename(path)
