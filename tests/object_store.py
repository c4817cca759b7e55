"""A real S3 server for the tests: versitygw on loopback, with its objects in a directory of its own.

The binary is built from its Go module by `tests/cluster/cluster build --object-store` and cached beside Kubernetes.
"""

from __future__ import annotations

import secrets
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tests.cluster import control_plane

REGION = "us-east-1"
STARTING_SECONDS = 20.0


class NoObjectStore(Exception):  # noqa: N818 - it names a state
    """There is no versitygw here and no Go to build it; the message says what would provide one."""


@dataclass(slots=True)
class ObjectStore:
    """One versitygw process. `url` is its endpoint; `objects` the directory in which each bucket is a directory."""

    binary: Path
    directory: Path
    address: str = "127.0.0.1"
    prefix: tuple[str, ...] = ()
    """What runs a command in another network: that of the test cluster's node."""
    environment: Mapping[str, str] = field(default_factory=dict)
    access_key: str = field(default_factory=lambda: secrets.token_hex(8))
    secret_key: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    port: int = field(default_factory=lambda: control_plane.free_ports(1))
    process: subprocess.Popen[bytes] | None = None

    @classmethod
    def start(
        cls,
        directory: Path,
        *,
        environment: Mapping[str, str],
        address: str = "127.0.0.1",
        prefix: tuple[str, ...] = (),
    ) -> Self:
        """A server that answers. `environment`: where the cached binary is, or Go to build it; and what `prefix` needs.

        Raises:
            NoObjectStore: there is none to be had.

        """
        binary = control_plane.binary("versitygw", environment, part="--object-store", missing=NoObjectStore)
        store = cls(binary, directory, address, prefix, environment if prefix else {})
        store.objects.mkdir(parents=True, exist_ok=True)
        store.metadata.mkdir(exist_ok=True)
        store.begin()
        return store

    @property
    def objects(self) -> Path:
        return self.directory / "objects"

    @property
    def metadata(self) -> Path:
        # A sidecar, because a tmpfs or an overlay keeps no extended attributes.
        return self.directory / "metadata"

    @property
    def url(self) -> str:
        return f"http://{self.address}:{self.port}"

    @property
    def credentials(self) -> dict[str, str]:
        """The variables that every S3 client reads: endpoint, keys, region, and that it speaks plain HTTP."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_REGION": REGION,
            "AWS_ALLOW_HTTP": "true",
        }

    def begin(self) -> None:
        """Start the process, on the same port and objects as before, and wait until it answers."""
        command = [
            *(*self.prefix, str(self.binary), "--port", f"{self.address}:{self.port}", "--region", REGION),
            *("--quiet", "--keep-alive", "posix", "--sidecar", str(self.metadata), str(self.objects)),
        ]
        keys = {**self.environment, "ROOT_ACCESS_KEY": self.access_key, "ROOT_SECRET_KEY": self.secret_key}
        log = (self.directory / "versitygw.log").open("ab")
        self.process = subprocess.Popen(command, env=keys, stdout=log, stderr=log)
        log.close()
        self._wait()

    def end(self) -> None:
        """Stop the process; the objects stay."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def make_bucket(self, name: str | None = None) -> str:
        """A new, empty bucket."""
        name = name or f"depot-{secrets.token_hex(4)}"
        self._admin("create-bucket", "--owner", self.access_key, "--bucket", name).check_returncode()
        return name

    def _admin(self, *arguments: str) -> subprocess.CompletedProcess[bytes]:
        command = [
            *(*self.prefix, str(self.binary), "admin", "--access", self.access_key, "--secret", self.secret_key),
            *("--endpoint-url", self.url, *arguments),
        ]
        return subprocess.run(command, env=dict(self.environment), check=False, capture_output=True)

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + STARTING_SECONDS
        while self.process.poll() is None and time.monotonic() < deadline:
            if self._admin("list-buckets").returncode == 0:
                return
            time.sleep(0.02)
        self.end()
        raise AssertionError(f"versitygw does not answer:\n{(self.directory / 'versitygw.log').read_text()[-2000:]}")
