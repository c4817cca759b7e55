"""Where the server's files lie, and what is done when it cannot reach them.

    <directory>/            whoever started it
        passwords.json      0600, made once
        lock                held while a server may run
        postgres.log        of the last two starts
        pgdata/  run/       the server's account: the cluster, the socket

Started as root below a directory that no unprivileged account may enter (a private home, a `mktemp -d`), pgdata/ and
run/ are moved to a directory of their own under /var/lib/metagate: opening somebody's home is not ours to do.
"""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from metagate_postgres.account import Account
from metagate_postgres.errors import DirectoryUnusable

SHELF = Path("/var/lib/metagate")
SOCKET_PATH_LIMIT = 107
"""Bytes in sockaddr_un.sun_path without the terminator."""


@dataclass(frozen=True, slots=True)
class Places:
    directory: Path
    account: Account

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

    @property
    def real_cluster(self) -> Path:
        """The path the server is given; a link's parents would be looked up as the server's account."""
        return self.cluster.resolve() if self.cluster.exists() else self.home / "pgdata"

    @property
    def home(self) -> Path:
        """The directory that holds pgdata/: `directory`, or where it was moved."""
        moved = self.directory / "moved"
        return moved.readlink() if moved.is_symlink() else self.directory

    def tighten(self) -> None:
        """Take back what others were given meanwhile: a volume's group (fsGroup) is let into everything on it."""
        for path, mode in ((self.real_cluster, 0o700), (self.passwords, 0o600)):
            if path.exists() and path.stat().st_mode & 0o077:
                path.chmod(mode)

    @property
    def shelf(self) -> Path:
        return SHELF


def settle(directory: Path) -> Places:
    """Make `directory` and find or make a home for the cluster that its account can enter."""
    directory.mkdir(parents=True, exist_ok=True)
    directory = directory.resolve()
    home = Places(directory, Account.of_this_process()).home
    places = Places(directory, Account.for_directory(home / "pgdata"))
    if home == directory and places.account.foreign and not places.account.can_enter(directory):
        _move(places)
    if places.account.foreign and not places.account.can_enter(places.home):
        raise DirectoryUnusable(
            f"{places.home} cannot be entered by uid {places.account.uid}, under which PostgreSQL runs because it "
            "refuses root; use a data directory below directories that everybody may enter"
        )
    return places


def _move(places: Places) -> None:
    """Give the cluster a home outside, and link it."""
    if places.cluster.exists() and not places.cluster.is_symlink():
        raise DirectoryUnusable(
            f"{places.cluster} exists, but uid {places.account.uid}, its owner, cannot enter {places.directory}; "
            "restore the modes of its parent directories"
        )
    try:
        SHELF.mkdir(mode=0o755, parents=True, exist_ok=True)
        home = Path(tempfile.mkdtemp(prefix="data-", dir=SHELF))
    except OSError as error:
        raise DirectoryUnusable(
            f"{places.directory} cannot be entered by uid {places.account.uid}, "
            f"and {SHELF} cannot be made ({error.strerror})"
        ) from error
    home.chmod(0o711)
    (home / "of").write_text(f"{places.directory}\n", encoding="utf-8")
    (places.directory / "moved").unlink(missing_ok=True)
    (places.directory / "moved").symlink_to(home)


def socket_directory(places: Places, port: int) -> Path:
    """`run/` beside the cluster, or a short private directory where its path would not fit into a socket address."""
    wanted = places.home / "run"
    if len(os.fsencode(wanted / f".s.PGSQL.{port}")) <= SOCKET_PATH_LIMIT:
        wanted.mkdir(mode=0o700, exist_ok=True)
        chosen = wanted
    else:
        chosen = Path(tempfile.mkdtemp(prefix="metagate-", dir="/tmp"))
    places.account.own(chosen)
    return chosen


def forget_socket_directory(places: Places, chosen: Path) -> None:
    if chosen != places.home / "run":
        shutil.rmtree(chosen, ignore_errors=True)
