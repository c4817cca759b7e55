"""The files of a directory, found without reading them.

Links to folders are followed while they stay inside the directory, as those of a projected volume do
(`team-a -> ..data/team-a`). Each folder is listed once, so links cannot make a cycle.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metagate_operator.sources.source import SourceUnavailable

SUFFIXES: Final = (".yaml", ".yml", ".json")
MAX_FILES: Final = 100_000
LINK_OUT: Final = "a link out of the directory is not followed"

FileStamp = tuple[int, int, int, int]  # modified and changed (ns), size, inode


@dataclass(frozen=True, slots=True)
class UnfollowedLink:
    """Why a link to a folder is not followed. `outside`: what is behind it is unknown, instead of read elsewhere."""

    reason: str
    outside: bool


@dataclass(frozen=True, slots=True)
class DirectoryListing:
    """Paths relative to the root."""

    files: Mapping[str, FileStamp]
    unfollowed: Mapping[str, UnfollowedLink]


def stays_inside(root: Path, path: Path) -> bool:
    """Whether the path, with all links followed, is below the root."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def list_directory(root: Path) -> DirectoryListing:
    """Every file that may declare something, and the links that were not followed.

    Raises:
        SourceUnavailable: a folder cannot be listed, or there are too many files.

    """
    walk = _Walk(root)
    walk.run()
    return DirectoryListing(walk.files, walk.unfollowed)


class _Walk:
    """Real folders first, links after them in the order of their names: what can be reached both ways is read where it
    stands.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._visited: set[tuple[int, int]] = set()  # device and inode
        self._folders = [""]
        self._links: list[str] = []
        self.files: dict[str, FileStamp] = {}
        self.unfollowed: dict[str, UnfollowedLink] = {}

    def run(self) -> None:
        while self._folders or self._links:
            if self._folders:
                self._list(self._folders.pop())
            else:
                self._links.sort(reverse=True)
                self._follow(self._links.pop())

    def _list(self, folder: str) -> None:
        try:
            if not self._is_new(folder):
                return
            with os.scandir(self._root / folder) as entries:
                for entry in entries:
                    if not entry.name.startswith("."):  # also what a mounted ConfigMap keeps behind its links
                        self._sort_in(entry, f"{folder}/{entry.name}" if folder else entry.name)
        except FileNotFoundError:
            if not folder:
                raise SourceUnavailable(f"{self._root}: there is no such directory") from None
            return  # removed during the walk: the next scan shows it
        except OSError as error:
            raise SourceUnavailable(f"{self._root / folder}: cannot be listed: {error.strerror}") from None
        if len(self.files) > MAX_FILES:
            raise SourceUnavailable(f"{self._root}: more than {MAX_FILES} files")

    def _is_new(self, folder: str) -> bool:
        status = (self._root / folder).stat()
        identity = (status.st_dev, status.st_ino)
        if identity in self._visited:
            return False
        self._visited.add(identity)
        return True

    def _sort_in(self, entry: os.DirEntry[str], path: str) -> None:
        if entry.is_dir(follow_symlinks=False):
            self._folders.append(path)
        elif entry.is_symlink() and _leads_to_folder(entry):
            self._links.append(path)
        elif entry.name.endswith(SUFFIXES):
            with suppress(FileNotFoundError):
                self.files[path] = _stamp(entry)

    def _follow(self, link: str) -> None:
        if not stays_inside(self._root, self._root / link):
            self.unfollowed[link] = UnfollowedLink(LINK_OUT, outside=True)
            return
        with suppress(FileNotFoundError):  # removed during the walk
            status = (self._root / link).stat()
            if (status.st_dev, status.st_ino) in self._visited:
                self.unfollowed[link] = UnfollowedLink("a link to a folder that is read already", outside=False)
            else:
                self._folders.append(link)


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    """False for a link to a file, to nothing, or around in a circle."""
    try:
        return entry.is_dir()
    except OSError as error:
        return error.errno in {errno.EACCES, errno.EPERM}  # whatever it is, it is not ours to follow


def _stamp(entry: os.DirEntry[str]) -> FileStamp:
    try:
        status = entry.stat()
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.EACCES, errno.ENAMETOOLONG}:
            status = entry.stat(follow_symlinks=False)
        else:
            raise
    return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino
