"""The embedded PostgreSQL: starts anywhere, trusts nobody, never outlives its parent, never runs twice."""

import json
import os
import pwd
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import pytest

from metagate_postgres import (
    AlreadyRunning,
    BinariesMissing,
    DirectoryUnusable,
    EmbeddedPostgres,
    StartFailed,
    data_layout,
)
from metagate_postgres.account import Account

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, which PostgreSQL refuses")

PARENT = """
import sys, time
from metagate_postgres import EmbeddedPostgres
server = EmbeddedPostgres(sys.argv[1]).start()
print(server.server_pid, server._supervisor.pid, server.port, flush=True)
time.sleep(600)
"""


@pytest.fixture
def directory():
    made = Path(tempfile.mkdtemp(prefix="metagate-launch-"))
    made.chmod(0o755)
    yield made / "data"
    shutil.rmtree(made, ignore_errors=True)


@pytest.fixture(scope="module")
def prepared():
    """A data directory after its first start."""
    made = Path(tempfile.mkdtemp(prefix="metagate-launch-"))
    made.chmod(0o755)
    with EmbeddedPostgres(made / "data"):
        pass
    yield made / "data"
    shutil.rmtree(made)


@pytest.fixture
def used(prepared: Path, directory: Path) -> Path:
    """A copy of it: most tests are not about the first start."""
    subprocess.run(["cp", "-a", str(prepared), str(directory)], check=True)
    return directory


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def start_parent(directory: Path) -> tuple["subprocess.Popen[str]", int, int]:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(directory)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent.stdout:
        server, supervisor, _ = map(int, parent.stdout.readline().split())
    return parent, server, supervisor


async def ask(server: EmbeddedPostgres, query: str, *, role: str = "postgres", tcp: bool = False):
    connection = await asyncpg.connect(server.dsn(role, tcp=tcp))
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


async def test_data_survives(directory: Path) -> None:
    """What was written is there after a stop and a start, by the socket and by loopback, with the same passwords."""
    with EmbeddedPostgres(directory) as server:
        connection = await asyncpg.connect(server.dsn("postgres"))
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS n")
        await connection.close()
        first = server.password("metagate_owner")
        pid = server.server_pid
    assert pid is not None
    assert not alive(pid)
    with EmbeddedPostgres(directory) as server:
        assert await ask(server, "SELECT n FROM kept") == 7
        assert await ask(server, "SELECT n FROM kept", tcp=True) == 7
        assert server.password("metagate_owner") == first
        assert (await ask(server, "SELECT version()", role="metagate_owner")).startswith("PostgreSQL 18")


async def test_nobody_is_trusted(used: Path) -> None:
    """Passwords are random and private, wrong ones are refused everywhere, and only loopback listens."""
    with EmbeddedPostgres(used) as server:
        kept = used / "passwords.json"
        assert stat.S_IMODE(kept.stat().st_mode) == 0o600
        known = json.loads(kept.read_text())
        assert len(set(known.values())) == len(known) == 5
        for dsn in (server.dsn("postgres"), server.dsn("postgres", tcp=True)):
            with pytest.raises(asyncpg.InvalidPasswordError):
                await asyncpg.connect(dsn.replace(server.password("postgres"), "wrong"))
        assert await ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert await ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
        assert (
            await ask(
                server, "SELECT count(*) FROM pg_authid WHERE rolcanlogin AND rolpassword NOT LIKE 'SCRAM-SHA-256$%'"
            )
            == 0
        )
        assert stat.S_IMODE(server.socket_directory.stat().st_mode) == 0o700
        command = Path(f"/proc/{server.server_pid}/cmdline").read_bytes()
        assert not any(value.encode() in command for value in known.values())


@root_only
async def test_not_as_root(directory: Path) -> None:
    """Started as root, server and files belong to an account that existed before; no parent's mode is touched."""
    parents = {path: stat.S_IMODE(path.stat().st_mode) for path in (directory.parent, directory.parent.parent)}
    accounts = pwd.getpwall()
    with EmbeddedPostgres(directory) as server:
        owner = Path(f"/proc/{server.server_pid}").stat().st_uid
        assert owner != 0
        assert (directory / "pgdata").stat().st_uid == owner
        assert "CapEff:\t0000000000000000" in Path(f"/proc/{server.server_pid}/status").read_text()
    assert pwd.getpwall() == accounts
    assert {path: stat.S_IMODE(path.stat().st_mode) for path in parents} == parents


@root_only
@pytest.mark.parametrize("mode", [0o755, 0o700])
async def test_private_parent(directory: Path, mode: int) -> None:
    """Where the account may not go, even into the data directory, the data lie in it all the same, and no mode is touched."""
    directory.mkdir(mode=mode)
    directory.parent.chmod(0o700)
    for turn in range(2):
        with EmbeddedPostgres(directory) as server:
            connection = await asyncpg.connect(server.dsn("postgres"))
            await connection.execute("CREATE TABLE IF NOT EXISTS kept (n integer)")
            await connection.execute("INSERT INTO kept VALUES (7)")
            assert await connection.fetchval("SELECT count(*) FROM kept") == turn + 1
            await connection.close()
            assert Path(f"/proc/{server.server_pid}").stat().st_uid != 0
            assert (directory / "pgdata").samefile(f"/proc/{server.server_pid}/cwd")
            assert server.socket_directory == directory / "pgdata"
    assert stat.S_IMODE(directory.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(directory.stat().st_mode) == mode


@root_only
async def test_private_parent_killed(directory: Path) -> None:
    """There too nothing outlives a kill -9, and a stale pid file stops nobody."""
    directory.parent.chmod(0o700)
    parent, server, supervisor = start_parent(directory)
    for pid in (supervisor, server, parent.pid):
        os.kill(pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not alive(server))
    with EmbeddedPostgres(directory) as again:
        assert await ask(again, "SELECT 1") == 1


@root_only
async def test_binaries_out_of_reach(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the account cannot run the wheel's binaries, a copy that it can run is used."""
    directory.parent.chmod(0o700)
    copies = Path(tempfile.mkdtemp(prefix="metagate-copies-"))
    copies.chmod(0o755)
    monkeypatch.setattr(data_layout, "BINARY_COPY_DIR", copies)
    monkeypatch.setattr(Account, "can_run", lambda _self, _binary: False)
    with EmbeddedPostgres(directory) as server:
        assert await ask(server, "SELECT 1") == 1
        assert Path(f"/proc/{server.server_pid}/exe").resolve().is_relative_to(copies)
    shutil.rmtree(copies)


@root_only
def test_nowhere_to_go(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without /proc the error says which directory and why; without a place for the binaries, which binaries."""
    directory.parent.chmod(0o700)
    with monkeypatch.context() as patched:
        patched.setattr(data_layout, "WORKING_DIRECTORY", Path("/nothing"))
        with pytest.raises(DirectoryUnusable, match=str(directory)):
            EmbeddedPostgres(directory).start()
    monkeypatch.setattr(data_layout, "BINARY_COPY_DIR", Path("/proc/nothing/metagate"))
    monkeypatch.setattr(Account, "can_run", lambda _self, _binary: False)
    with pytest.raises(BinariesMissing, match="/proc/nothing"):
        EmbeddedPostgres(directory).start()


async def test_long_path(directory: Path) -> None:
    """A path that does not fit into a socket address gets a short private socket directory, gone after the stop."""
    deep = directory / ("d" * 60) / ("e" * 60)
    with EmbeddedPostgres(deep) as server:
        sockets = server.socket_directory
        assert not sockets.is_relative_to(directory)
        assert stat.S_IMODE(sockets.stat().st_mode) == 0o700
        assert await ask(server, "SELECT 1") == 1
    assert not sockets.exists()


async def test_parent_killed(used: Path) -> None:
    """kill -9 of the parent leaves neither server nor supervisor, and the next start recovers at once."""
    parent, server, supervisor = start_parent(used)
    parent.kill()
    parent.wait()
    with EmbeddedPostgres(used) as again:  # while the supervisor is still stopping the old one
        assert await ask(again, "SELECT 1") == 1
        assert again.server_pid != server
        until(lambda: not alive(server) and not alive(supervisor))


async def test_parent_and_supervisor_killed(used: Path) -> None:
    """kill -9 of parent and supervisor leaves no server either."""
    parent, server, supervisor = start_parent(used)
    os.kill(supervisor, signal.SIGKILL)
    parent.kill()
    parent.wait()
    until(lambda: not alive(server))
    with EmbeddedPostgres(used) as again:
        assert await ask(again, "SELECT 1") == 1


async def test_everything_killed(used: Path) -> None:
    """kill -9 of parent, supervisor and server: the stale pid file stops nobody, and what was committed is there."""
    parent, server, supervisor = start_parent(used)
    for pid in (supervisor, server, parent.pid):
        os.kill(pid, signal.SIGKILL)
    parent.wait()
    until(lambda: not alive(server))
    assert (used / "pgdata" / "postmaster.pid").exists()
    with EmbeddedPostgres(used) as again:
        assert await ask(again, "SELECT 1") == 1


async def test_recycled_pid(used: Path) -> None:
    """A pid file whose process is somebody else by now is stale, although the process lives."""
    with EmbeddedPostgres(used):
        pid_file = used / "pgdata" / "postmaster.pid"
        lines = pid_file.read_text().splitlines()
    other = subprocess.Popen(["/bin/sleep", "60"], **Account.for_directory(used / "pgdata").popen_arguments)
    try:
        pid_file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        with EmbeddedPostgres(used) as again:
            assert await ask(again, "SELECT 1") == 1
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_terminated_parent(used: Path) -> None:
    """SIGTERM of the parent ends the server cleanly: it says so in its log."""
    parent, server, _ = start_parent(used)
    parent.terminate()
    parent.wait()
    until(lambda: not alive(server))
    assert "database system is shut down" in (used / "postgres.log").read_text()


def test_second_instance(used: Path) -> None:
    """A second server on the same used is refused by name, in this process and in another, and harms nobody."""
    parent, server, _ = start_parent(used)
    try:
        with pytest.raises(AlreadyRunning, match=f"{used}.*{parent.pid}"):
            EmbeddedPostgres(used).start()
        assert alive(server)
    finally:
        parent.terminate()
        parent.wait()
    until(lambda: not alive(server))
    with EmbeddedPostgres(used), pytest.raises(AlreadyRunning, match=str(used)):
        EmbeddedPostgres(used).start()


def test_stop_is_harmless_twice(used: Path) -> None:
    """Stopping twice, or before a start, does nothing; starting again works."""
    server = EmbeddedPostgres(used)
    server.stop()
    server.start()
    assert server.start().running
    server.stop()
    server.stop()
    assert not server.running
    server.start()
    assert server.running
    server.stop()


def test_half_made_cluster(directory: Path) -> None:
    """What an interrupted first start left behind is thrown away by the next."""
    directory.mkdir()
    (directory / "pgdata.unfinished").mkdir()
    (directory / "pgdata.unfinished" / "PG_VERSION").write_text("18\n")
    with EmbeddedPostgres(directory) as server:
        assert server.running
    assert not (directory / "pgdata.unfinished").exists()


def test_port_in_use(used: Path) -> None:
    """A fixed port that somebody else holds is an error that says so, and lets go of the used."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(StartFailed, match="Address already in use"):
            EmbeddedPostgres(used, port=taken.getsockname()[1]).start()
    with EmbeddedPostgres(used) as server:
        assert server.running


async def test_given_passwords(directory: Path) -> None:
    """Passwords that are given win over kept ones, also later."""
    with EmbeddedPostgres(directory, role_passwords={"metagate_owner": "it's one"}) as server:
        assert await ask(server, "SELECT current_user::text", role="metagate_owner") == "metagate_owner"
    with EmbeddedPostgres(directory, role_passwords={"metagate_owner": "two"}) as server:
        assert "two" in server.dsn("metagate_owner")
        assert await ask(server, "SELECT current_user::text", role="metagate_owner") == "metagate_owner"
    with pytest.raises(StartFailed):
        EmbeddedPostgres(directory, role_passwords={"metagate_owner": "line\nbreak"}).start()


def test_alone(used: Path, tmp_path: Path) -> None:
    """As a process of its own it listens where it is told with the passwords of a mounted Secret, and ends with SIGTERM."""
    (tmp_path / "metagate_owner").write_text("from the secret\n")
    (used / "pgdata").chmod(0o770)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "metagate_postgres",
        f"--directory={used}",
        f"--port={port}",
        f"--passwords={tmp_path}",
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            if "ready to accept connections" in line:
                break
        assert stat.S_IMODE((used / "pgdata").stat().st_mode) == 0o700
        process.terminate()
        assert "database system is shut down" in process.stderr.read()
    assert process.wait(10) == 0
    second = subprocess.run([*command, "--listen=203.0.113.1"], capture_output=True, text=True, check=False)
    assert second.returncode == 1
    assert "did not start" in second.stderr
