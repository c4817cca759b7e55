"""What the files of a directory hold: all of them are looked at in each scan, and read where something changed.

What is unsure changes nothing. A folder that cannot be listed raises. A file that cannot be read, is too large, or
whose link leaves the directory counts as broken. A file is read when it has settled, and its absence counts when it
lasted for a moment: editors and `git` replace files in two steps.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import stat
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metagate_operator.sources.directory_listing import (
    LINK_OUT,
    FileStamp,
    UnfollowedLink,
    list_directory,
    stays_inside,
)
from metagate_operator.sources.documents import MAX_BYTES, FileContents, FileProblem, read_documents
from metagate_operator.sources.yaml_values import INVALID_YAML

SETTLE_SECONDS: Final = 0.03
GRACE_SECONDS: Final = 0.06
WRITER_SECONDS: Final = 30.0

UNREADABLE: Final = "UnreadableFile"


@dataclass(frozen=True, slots=True)
class ScannedFile:
    """A file as last read."""

    stamp: FileStamp
    contents: FileContents


@dataclass(frozen=True, slots=True)
class _Waiting:
    stamp: FileStamp | None
    """None: the file is not there."""
    since: float


class DirectoryScanner:
    """The files below one folder. Not for use by two threads at once."""

    def __init__(
        self, root: Path, *, monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
    ) -> None:
        self.root = root
        self._monotonic, self._wall = monotonic, wall
        self._files: dict[str, ScannedFile] = {}
        self._waiting: dict[str, _Waiting] = {}
        self._unfollowed: Mapping[str, UnfollowedLink] = {}
        self._leases = _leases_are_safe()

    @property
    def files(self) -> Mapping[str, ScannedFile]:
        """What was last read, by path relative to the root."""
        return self._files

    @property
    def unfollowed(self) -> Mapping[str, UnfollowedLink]:
        """Links to folders that were not followed, by path relative to the root."""
        return self._unfollowed

    @property
    def settling(self) -> bool:
        """Whether a file has moved and not settled yet: scan again soon."""
        return bool(self._waiting)

    @property
    def unread(self) -> frozenset[str]:
        """Files that are there and were never read whole."""
        return frozenset(self._waiting.keys() - self._files.keys())

    def scan(self) -> bool:
        """Look at everything; True when `files` changed.

        Raises:
            SourceUnavailable: a folder cannot be listed, or there are too many files; `files` is as before.

        """
        listing = list_directory(self.root)
        present = listing.files
        now = self._monotonic()
        changed = listing.unfollowed != self._unfollowed
        self._unfollowed = listing.unfollowed
        for path, stamp in present.items():
            known = self._files.get(path)
            if known is not None and known.stamp == stamp:
                self._waiting.pop(path, None)
            elif self._has_settled(path, stamp, now) and (contents := self._read(path, stamp, now)) is not None:
                self._files[path] = ScannedFile(stamp, contents)
                self._waiting.pop(path, None)
                changed = True
        for path in [path for path in self._files if path not in present]:
            if self._waits(path, None, now) >= GRACE_SECONDS:
                del self._files[path], self._waiting[path]
                changed = True
        for path in [path for path in self._waiting if path not in present and path not in self._files]:
            del self._waiting[path]
        return changed

    def _waits(self, path: str, stamp: FileStamp | None, now: float) -> float:
        """For how many seconds the path has had this stamp."""
        waiting = self._waiting.get(path)
        if waiting is None or waiting.stamp != stamp:
            waiting = self._waiting[path] = _Waiting(stamp, now)
        return now - waiting.since

    def _has_settled(self, path: str, stamp: FileStamp, now: float) -> bool:
        return self._waits(path, stamp, now) >= SETTLE_SECONDS or self._wall() - max(stamp[0], stamp[1]) / 1e9 > 1.0

    def _read(self, path: str, stamp: FileStamp, now: float) -> FileContents | None:
        """What the file holds, or None when it is not finished: then nothing changes. Whatever goes wrong is a problem
        of this file, never of the scan.
        """
        try:
            return self._read_settled(path, stamp, now)
        except Exception as error:  # noqa: BLE001 - see above
            message = f"cannot be read ({type(error).__name__})"
            return FileContents(problems=(FileProblem(path, 0, "", UNREADABLE, message),))

    def _read_settled(self, path: str, stamp: FileStamp, now: float) -> FileContents | None:

        def unreadable(message: str) -> FileContents:
            return FileContents(problems=(FileProblem(path, 0, "", UNREADABLE, message),))

        whole = self.root / path
        if not stays_inside(self.root, whole):
            return unreadable(LINK_OUT)
        try:
            handle = os.open(whole, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
        except FileNotFoundError:
            return None
        except OSError as error:
            return unreadable(f"cannot be read: {error.strerror}")
        try:
            before = os.fstat(handle)
            if not stat.S_ISREG(before.st_mode):
                return unreadable("not a regular file")
            if before.st_size > MAX_BYTES:
                return FileContents(
                    problems=(FileProblem(path, 0, "", INVALID_YAML, f"larger than {MAX_BYTES // 2**20} MiB"),)
                )
            if self._leases and self._waits(path, stamp, now) < WRITER_SECONDS and _has_writer(handle):
                return None
            with os.fdopen(os.dup(handle), "rb") as file:
                raw = file.read(MAX_BYTES + 1)
            after = os.fstat(handle)
        except OSError as error:
            return unreadable(f"cannot be read: {error.strerror}")
        finally:
            os.close(handle)
        if (after.st_mtime_ns, after.st_size) != (before.st_mtime_ns, before.st_size) or len(raw) != after.st_size:
            return None
        return read_documents(raw, path)


def _leases_are_safe() -> bool:
    """Whether a lease may be asked for: breaking one sends SIGIO, which ends a process that does not ignore it."""
    try:
        signal.signal(signal.SIGIO, signal.SIG_IGN)
    except (ValueError, AttributeError):  # not the main thread, not Linux
        return False
    return hasattr(fcntl, "F_SETLEASE")


def _has_writer(handle: int) -> bool:
    """Whether somebody still has the file open for writing: only then does Linux refuse a read lease with EAGAIN."""
    try:
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN  # anything else: not our file, or a file system without leases
    fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False
