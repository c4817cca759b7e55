"""`metagate version`."""

from __future__ import annotations

from importlib import metadata


def version() -> None:
    """The version of this installation."""
    try:
        print(metadata.version("metagate"))
    except metadata.PackageNotFoundError:
        print("unknown (not installed)")
