"""Node 22 with the packages of `package-lock.json`, installed once into the user's cache by npm.

Debian's node is too old for the conformance suite of MCP, so Node itself is one of the packages.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
MANIFESTS = ("package.json", "package-lock.json")


@dataclass(frozen=True, slots=True)
class NodeEnvironment:
    """A directory that holds `node_modules`, with the binary of Node in it."""

    directory: Path

    @property
    def node(self) -> str:
        return str(self.directory / "node_modules" / "node" / "bin" / "node")

    def script(self, package: str, *path: str) -> str:
        return str(self.directory.joinpath("node_modules", package, *path))

    def link_into(self, directory: Path) -> None:
        """Lets scripts of another directory import the packages."""
        (directory / "node_modules").symlink_to(self.directory / "node_modules")


def cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"  # noqa: TID251
    return Path(home) / "legivellum-node"


def install() -> NodeEnvironment:
    """The packages of the lock file; a complete installation is used again. Skips, and says so, without npm."""
    digest = hashlib.sha256(b"".join((FOLDER / name).read_bytes() for name in MANIFESTS)).hexdigest()[:16]
    environment = NodeEnvironment(cache() / digest)
    complete = environment.directory / "complete"
    if complete.exists():
        return environment
    if shutil.which("npm") is None:
        pytest.skip("NOT RUN: the conformance of MCP and its TypeScript clients need npm")
    environment.directory.mkdir(parents=True, exist_ok=True)
    # Two runs that begin at once would install into one directory.
    with (cache() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not complete.exists():
            for name in MANIFESTS:
                shutil.copy(FOLDER / name, environment.directory)
            installed = subprocess.run(
                ["npm", "ci", "--no-audit", "--no-fund"], cwd=environment.directory, capture_output=True, text=True,
                timeout=300, check=False,
            )  # fmt: skip
            assert installed.returncode == 0, installed.stderr
            version = subprocess.run([environment.node, "--version"], capture_output=True, text=True, check=True).stdout
            assert version.startswith("v22."), version
            complete.touch()
    return environment
