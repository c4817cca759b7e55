"""The packet as a file: readable by its owner only, and never half written.

Beside a file that may be from an earlier start stands a marker, `<file>.stale`: a container that did not see the
environment or the log of the one that booted can look for it.
"""

from __future__ import annotations

import contextlib
import os

from metagate_client.errors import MisconfiguredError
from metagate_client.packet import Packet

_LARGEST = 4 * 1024 * 1024


def write(path: str, packet: Packet, mode: int = 0o600) -> None:
    """Replace the file by this packet in one step, and mark it when the packet is stale."""
    try:
        _replace(path, packet.body, mode)
        if packet.stale:
            _replace(_marker(path), f"issued at {packet.issued_at}\n".encode(), mode)
        else:
            _unlink_if_exists(_marker(path))
    except OSError as error:
        raise MisconfiguredError(f"cannot write the packet file {path}: {error.strerror}") from error


def read(path: str) -> Packet:
    """The packet in the file, as a stale one. Raises MisconfiguredError without a file, UnavailableError for junk."""
    try:
        with open(path, "rb") as file:  # noqa: PTH123 - pathlib is not cheap
            return Packet.from_body(file.read(_LARGEST), stale=True)
    except OSError as error:
        raise MisconfiguredError(f"there is no packet from an earlier start at {path}: {error.strerror}") from error


def is_stale(path: str) -> bool:
    """Whether the packet in the file was left from an earlier start."""
    return os.path.exists(_marker(path))  # noqa: PTH110 - pathlib is not cheap


def remove(path: str) -> None:
    """Leave no packet behind that could be taken for one of this start."""
    try:
        _unlink_if_exists(path)
        _unlink_if_exists(_marker(path))
    except OSError as error:
        raise MisconfiguredError(f"cannot remove the old packet file {path}: {error.strerror}") from error


def _marker(path: str) -> str:
    return f"{path}.stale"


def _replace(path: str, content: bytes, mode: int) -> None:
    # A name nobody can guess, in the same directory: a rename is atomic only inside one file system.
    temporary = f"{path}.{os.urandom(8).hex()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(handle, "wb") as file:
            os.fchmod(file.fileno(), mode)
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)  # noqa: PTH105 - pathlib is not cheap
    except BaseException:
        _unlink_if_exists(temporary)
        raise


def _unlink_if_exists(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)  # noqa: PTH108 - pathlib is not cheap
