"""Where the server's files lie, and how it finds them.

    <directory>/            whoever started it
        passwords.json      0600, made once
        lock                held while a server may run
        postgres.log        of the last two starts
        pgdata/             the server's account, 0700: the cluster, and the socket

Started as root, the directory may lie where no unprivileged account may go: in a private home, below a `mktemp -d`.
Opening somebody's home is not ours to do. The server is put into its cluster as its working directory before it gives
up root, and told to look for everything below /proc/self/cwd, which leads there without a walk through the parents.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metagate_postgres.account import Account
from metagate_postgres.errors import DirectoryUnusable

SHELF = Path("/var/lib/metagate")
"""For a copy of the binaries, should the account be unable to reach those of the wheel."""
HERE = Path("/proc/self/cwd")
SOCKET_PATH_LIMIT = 107
"""Bytes in sockaddr_un.sun_path without the terminator."""


@dataclass(frozen=True, slots=True)
class Places:
    directory: Path
    account: Account
    hidden: bool
    """The server's account cannot walk to the directory."""

    @property
    def cluster(self) -> Path:
        return self.directory / "pgdata"

    @property
    def passwords(self) -> Path:
        return self.directory / "passwords.json"

    @property
    def lock(self) -> Path:
        return self.directory / "lock"

    @property
    def log(self) -> Path:
        return self.directory / "postgres.log"

    def told(self, path: Path) -> Path:
        """What the server, whose working directory is `path`, is told about it."""
        return HERE if self.hidden else path

    def tighten(self) -> None:
        """Take back what others were given meanwhile: a volume's group (fsGroup) is let into everything on it."""
        for path, mode in ((self.cluster, 0o700), (self.passwords, 0o600)):
            if path.exists() and path.stat().st_mode & 0o077:
                path.chmod(mode)


def settle(directory: Path) -> Places:
    """Make `directory`; find the account, and whether it can walk there."""
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    account = Account.for_directory(directory / "pgdata")
    hidden = account.foreign and not account.can_enter(directory)
    if hidden and not HERE.exists():
        raise DirectoryUnusable(
            f"{directory} cannot be entered by uid {account.uid}, under which PostgreSQL runs because it refuses root; "
            "use a data directory below directories that everybody may enter"
        )
    return Places(directory, account, hidden)


def socket_directory(places: Places, port: int) -> Path:
    """The cluster, or a short private directory where its path would not fit into a socket address."""
    if len(os.fsencode(places.cluster / f".s.PGSQL.{port}")) <= SOCKET_PATH_LIMIT:
        return places.cluster
    chosen = Path(tempfile.mkdtemp(prefix="metagate-", dir="/tmp"))
    places.account.own(chosen)
    return chosen


def forget_socket_directory(places: Places, chosen: Path) -> None:
    if chosen != places.cluster:
        shutil.rmtree(chosen, ignore_errors=True)
