"""`make run`: the first thing that a newcomer sees."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.cli.running import metagate

pytestmark = pytest.mark.timeout(120)


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "JWT_"))}  # noqa: TID251
    command: Sequence[str] = [
        sys.executable, "-m", "metagate_cli.main", "quickstart", "--directory", str(folder), "--port", "0", *arguments
    ]  # fmt: skip
    return subprocess.Popen(command, env=quiet, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def packet_in(said: str) -> dict[str, Any]:
    """The JSON object in the output."""
    return dict(json.JSONDecoder().raw_decode(said[said.index("\n{") + 1 :])[0])


@pytest.mark.invariant("INV-013", "INV-019")
def test_once_and_again(tmp_path: Path) -> None:
    """Prints a packet of 17 keys and READY, exits 0; again on the same data it boots into the same world as somebody
    new.
    """
    folder = tmp_path / "work"
    first, _ = start(folder, "--once", "--verbose").communicate(timeout=90)
    packet = packet_in(first)
    assert len(packet) == 17
    assert re.search(r"^READY", first, re.MULTILINE)
    assert str(folder / "resources") in first
    for name in ("indexer", "admin"):
        key = folder / "data" / "keys" / f"{name}.key"
        assert key.stat().st_mode & 0o777 == 0o600
        assert key.read_text().strip() not in (folder / "resources" / "principals" / f"{name}.yaml").read_text()
    edited = folder / "resources" / "manifest.yaml"
    edited.write_text(edited.read_text().replace("eu-central", "eu-north"))
    again = start(folder, "--once", "-v")
    second, _ = again.communicate(timeout=90)
    assert again.returncode == 0
    assert packet_in(second)["environment"]["region"] == "eu-north"
    assert packet_in(second)["startup"]["startup_id"] != packet["startup"]["startup_id"]
    assert str(folder / "resources") in second


def test_it_stays_and_says_what_to_try(tmp_path: Path) -> None:
    """Without --once it serves until Ctrl-C; what it suggests works."""
    folder = tmp_path / "work"
    process = start(folder)
    assert process.stdout is not None
    try:
        output = ""
        for line in process.stdout:
            output += line
            if line.startswith("Key file"):
                break
        (url,) = set(re.findall(r"(http://[0-9.:]+)/v1/admin/bindings", output))
        key = (folder / "data" / "keys" / "admin.key").read_text().strip()
        answer = httpx.get(f"{url}/v1/admin/bindings", headers={"X-API-Key": key})
        assert answer.status_code == 200
        assert len(answer.json()["items"]) == 2
        assert "bootstrap --component-key indexer_main" in output
        assert [line.split() for line in output.splitlines()[-3:-1]] == [
            ["Serving", "on", url],
            ["Console", f"{url}/console"],
        ]
        assert str(folder / "data" / "keys" / "admin.key") in output.splitlines()[-1]
        assert len(output.splitlines()) <= 40
        assert max(map(len, output.splitlines()[3:12])) <= 80
        assert httpx.get(f"{url}/console/sign-in").status_code == 200
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
        process.stdout.close()
    assert code == 0


def test_quiet_unless_asked(tmp_path: Path) -> None:
    """One screen: what the packet says in short, READY, and no line of the log; -v has the log and the whole packet."""
    work = [
        sys.executable,
        "-m",
        "metagate_cli.main",
        "quickstart",
        "--once",
        "--port",
        "0",
        "--directory",
        str(tmp_path),
    ]
    quiet = subprocess.run(work, capture_output=True, text=True, timeout=90, check=True)
    assert quiet.stderr == ""
    assert "region=eu-central" in quiet.stdout
    assert "{" not in quiet.stdout
    assert len(quiet.stdout.splitlines()) < 20
    loud = subprocess.run([*work, "-v"], capture_output=True, text=True, timeout=90, check=True)
    assert '"event": "verdict"' in loud.stderr
    assert packet_in(loud.stdout)["environment"]["region"] == "eu-central"


def test_a_port_that_is_taken_is_said_before_any_work(tmp_path: Path) -> None:
    """`dev` and `quickstart` name it and end, and have not begun to make a database."""
    resources = tmp_path / "resources"
    resources.mkdir()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for command in (
            ("dev", "--resources", resources, "--data-dir", tmp_path / "data", "--port", port),
            ("quickstart", "--directory", tmp_path / "work", "--port", port),
        ):
            done = metagate(*command)
            assert (done.returncode, done.stdout) == (3, "")
            assert f"port {port} of 127.0.0.1 is in use: choose another with --port" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["resources"]
