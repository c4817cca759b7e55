"""Blobs as files: each is written under another name, made durable, and linked to its own.

A rename or link without `fdatasync` before and `fsync` of the directory after it survives a crash of the process and no
power cut (DP-08). Everything that touches the disk runs in a thread, so that a slow disk stops no other request.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, Self, TypeVar

from depotgate.blobs import READ_BYTES, BlobMissing, StoredBlob, StoreFull, StoreUnavailable, UnusableStore

_UPLOADS: Final = ".uploads"
_KEY: Final = re.compile(r"[0-9a-zA-Z.-]+/[0-9a-zA-Z]+")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})

Result = TypeVar("Result")


class FileBlobs:
    """A directory for each tenant; `.uploads` holds what is being written."""

    def __init__(self, root: Path) -> None:
        self._root = root

    @classmethod
    def open(cls, directory: str) -> Self:
        """Raises UnusableStore."""
        store = cls(Path(directory))
        try:
            (store._root / _UPLOADS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UnusableStore(f"{directory}: {error.strerror}") from error
        return store

    async def put(self, key: str, content: bytes | bytearray) -> None:
        await _in_thread(self._put, key, content)

    def _put(self, key: str, content: bytes | bytearray) -> None:
        upload = _Upload.begin(self._paths(key))
        try:
            upload.write(content)
            upload.commit()
        except BaseException:
            upload.remove()
            raise

    async def writer(self, key: str) -> FileWriter:
        return FileWriter(await _in_thread(_Upload.begin, self._paths(key)))

    async def reader(self, key: str, start: int, end: int) -> FileReader:
        return FileReader(await _in_thread(_open, self._paths(key)[1]), start, end)

    async def size(self, key: str) -> int | None:
        try:
            return (await _in_thread(self._paths(key)[1].stat)).st_size
        except BlobMissing:
            return None

    async def remove(self, key: str) -> None:
        path = self._root / key if key.startswith(f"{_UPLOADS}/") else self._paths(key)[1]
        await _in_thread(path.unlink, missing_ok=True)

    async def listing(self) -> AsyncIterator[StoredBlob]:
        for directory in await _in_thread(lambda: sorted(self._root.iterdir())):
            if directory.is_dir():
                for blob in await _in_thread(lambda directory=directory: list(_listed(directory))):
                    yield blob

    async def close(self) -> None:
        """Nothing is open."""

    def _paths(self, key: str) -> tuple[Path, Path]:
        """Where a blob is written, and where it is then."""
        # Keys are made here and no caller can say one. If that ever changes, no path leaves the directory all the same.
        if not _KEY.fullmatch(key) or key.startswith("."):
            raise ValueError("not a key of a blob")
        return self._root / _UPLOADS / key.replace("/", "_"), self._root / key


class _Upload:
    """A file that is being written; its methods block."""

    def __init__(self, descriptor: int, temporary: Path, final: Path) -> None:
        self._descriptor = descriptor
        self._temporary = temporary
        self._final = final

    @classmethod
    def begin(cls, paths: tuple[Path, Path]) -> Self:
        temporary, final = paths
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        return cls(os.open(temporary, flags, 0o600), temporary, final)

    def write(self, part: bytes | bytearray) -> None:
        view = memoryview(part)
        while view:
            view = view[os.write(self._descriptor, view) :]

    def commit(self) -> None:
        os.fdatasync(self._descriptor)
        self._close()
        directory = self._final.parent
        try:
            os.link(self._temporary, self._final)
        except FileNotFoundError:
            directory.mkdir(exist_ok=True)
            _sync(directory.parent)
            os.link(self._temporary, self._final)
        self._temporary.unlink()
        _sync(directory)

    def remove(self) -> None:
        """What can be removed. The blob was not answered for, so it goes too if it was linked already."""
        with contextlib.suppress(OSError):
            self._close()
        for path in (self._temporary, self._final):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class FileWriter:
    def __init__(self, upload: _Upload) -> None:
        self._upload = upload

    async def write(self, part: bytes | bytearray) -> None:
        await _in_thread(self._upload.write, part)

    async def commit(self) -> None:
        await _in_thread(self._upload.commit)

    async def abandon(self) -> None:
        await asyncio.to_thread(self._upload.remove)


class FileReader:
    """It has the file open, so that its removal ends no read."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor = descriptor
        self._start = start
        self._end = end

    async def parts(self) -> AsyncIterator[bytes]:
        place = self._start
        while place < self._end:
            part = await _in_thread(os.pread, self._descriptor, min(READ_BYTES, self._end - place), place)
            if not part:
                return  # the file is shorter than its row says: whoever counts the bytes finds out
            place += len(part)
            yield part

    async def close(self) -> None:
        self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)

    def __del__(self) -> None:
        # A client that leaves before its answer began never starts the body, which would have closed it.
        self._close()


async def _in_thread(function: Callable[..., Result], *arguments: object, **named: object) -> Result:
    """What the function returns. A cancelled caller waits for it: the thread cannot be stopped, and what it writes must
    not appear after it was removed. Raises StoreFull, StoreUnavailable, BlobMissing.
    """
    running = asyncio.ensure_future(asyncio.to_thread(function, *arguments, **named))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        if not running.cancelled():
            running.exception()
        raise
    except FileNotFoundError as error:
        raise BlobMissing from error
    except OSError as error:
        raise (StoreFull if error.errno in _FULL else StoreUnavailable)(error.strerror) from error


def _open(path: Path) -> int:
    return os.open(path, os.O_RDONLY | os.O_CLOEXEC)


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _listed(directory: Path) -> Iterator[StoredBlob]:
    for path in directory.iterdir():
        # One that is removed meanwhile is not listed.
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
            yield StoredBlob(f"{directory.name}/{path.name}", status.st_size, modified_at)
