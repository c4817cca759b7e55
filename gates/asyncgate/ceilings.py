"""The most authority that tasks of a namespace may carry (AG-08), from a file that is read once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import yaml

from metagate_crds.authority import NOTHING, Authority, parse_authority


class CeilingsUnreadable(ValueError):  # noqa: N818 - what the file is
    """The file of ceilings cannot be used; the gate does not start with half of its rules."""


@dataclass(frozen=True, slots=True)
class Ceilings:
    """In the order of the file: the first entry that matches a namespace decides."""

    entries: Sequence[tuple[tuple[str, ...], Authority]] = ()

    @classmethod
    def from_file(cls, path: str | None) -> Ceilings:
        """Raises CeilingsUnreadable. None: no namespace may give any authority."""
        if path is None:
            return cls()
        try:
            sent = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, yaml.YAMLError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise CeilingsUnreadable(f"ASYNCGATE_CEILINGS_FILE {path} cannot be read: {reason}") from error
        if not isinstance(sent, list):
            raise CeilingsUnreadable(f"ASYNCGATE_CEILINGS_FILE {path} is not a list")
        return cls(tuple(_entry(item, f"{path}, entry {number}") for number, item in enumerate(sent, 1)))

    def of(self, namespace: str) -> Authority:
        """What tasks of the namespace may carry at most."""
        for globs, authority in self.entries:
            if any(fnmatchcase(namespace, glob) for glob in globs):
                return authority
        return NOTHING


def _entry(item: Any, where: str) -> tuple[tuple[str, ...], Authority]:
    if not isinstance(item, dict) or set(item) != {"namespaces", "authority"}:
        raise CeilingsUnreadable(f"{where}: must have namespaces and authority, and nothing else")
    globs = item["namespaces"]
    if not isinstance(globs, list) or not globs or not all(isinstance(glob, str) and glob for glob in globs):
        raise CeilingsUnreadable(f"{where}: namespaces must be a list of globs")
    authority = parse_authority(item["authority"])
    if not isinstance(authority, Authority):
        raise CeilingsUnreadable(f"{where}: {'; '.join(authority)}")
    return tuple(globs), authority
