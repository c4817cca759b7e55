"""The account PostgreSQL runs under.

PostgreSQL refuses to run as root. Started as root, the server runs as an account that exists already (nobody is added,
no mode of a directory of somebody else's is changed); started as anybody else, it runs as that user.
"""

import os
import pwd
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OVERFLOW_ID = 65534
"""What `nobody` is where there is no /etc/passwd to say so."""


@dataclass(frozen=True, slots=True)
class Account:
    uid: int
    gid: int
    foreign: bool
    """Another account than this process runs under."""

    @classmethod
    def of_this_process(cls) -> "Account":
        return cls(os.geteuid(), os.getegid(), foreign=False)

    @classmethod
    def for_directory(cls, directory: Path) -> "Account":
        """Whose server may run on `directory`: its owner's when there is one, else an unprivileged account."""
        if os.geteuid() != 0:
            return cls.of_this_process()
        if directory.exists() and (stat := directory.stat()).st_uid != 0:
            return cls(stat.st_uid, stat.st_gid, foreign=True)
        for name in ("postgres", "nobody"):
            try:
                entry = pwd.getpwnam(name)
            except KeyError:
                continue
            if entry.pw_uid != 0:
                return cls(entry.pw_uid, entry.pw_gid, foreign=True)
        return cls(OVERFLOW_ID, OVERFLOW_ID, foreign=True)

    @property
    def popen_arguments(self) -> dict[str, Any]:
        """Keyword arguments that make `subprocess` run as this account."""
        if not self.foreign:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def take_ownership(self, path: Path) -> None:
        if self.foreign:
            os.chown(path, self.uid, self.gid)

    def can_enter(self, directory: Path) -> bool:
        """Whether the account reaches `directory`: every parent must let it; only the kernel knows."""
        return self._succeeds(["/bin/sh", "-c", 'cd -- "$1"', "sh", str(directory)])

    def can_run(self, binary: Path) -> bool:
        return self._succeeds([str(binary), "--version"])

    def _succeeds(self, command: Sequence[str]) -> bool:
        try:
            done = subprocess.run(  # noqa: S603 - our own commands
                command, cwd="/", check=False, capture_output=True, timeout=20, **self.popen_arguments
            )
        except (OSError, subprocess.SubprocessError):
            return False
        return done.returncode == 0
