"""The five-minute path of docs/depotgate/README.md, typed as it stands there: on files, and on a real S3 server."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
from tests.docs.typed import BLOCK, commands
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port
from tests.object_store import ObjectStore

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "depotgate" / "README.md").read_text(encoding="utf-8")
POINTER = re.compile(r"depot:[0-9A-Z]{26}:[0-9a-f]{64}")
BLOCKS = [commands(block) for block in BLOCK.findall(PAGE)]
SETUP, DEPOSIT, RAW, READING, LEDGER, STORE, ON_S3 = BLOCKS
PORTS = ("8001", "8003", "7070")

pytestmark = pytest.mark.timeout(150)


@dataclass
class Typist:
    """A terminal in a folder that looks like a checkout. `ports`: where what the page says is on a port really is."""

    folder: Path
    ports: dict[str, str]
    environment: dict[str, str] = field(default_factory=lambda: {**os.environ, "no_proxy": "*"})  # noqa: TID251

    def type(self, command: str) -> str:
        for port, really in self.ports.items():
            command = command.replace(f"127.0.0.1:{port}", f"127.0.0.1:{really}")
        if command.startswith("export "):
            self.environment |= dict(word.split("=", 1) for word in shlex.split(command)[1:])
            return ""
        done = subprocess.run(
            command, shell=True, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{command}\n{done.stderr}\n{done.stdout}"
        return done.stdout


@pytest.fixture
def typist(tmp_path: Path) -> Typist:
    shutil.copytree(ROOT / "examples" / "quickstart", tmp_path / ".metagate" / "resources")
    for name in ("LICENSE", "SECURITY.md"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    made = Typist(tmp_path, {port: str(free_port()) for port in PORTS})
    for command in SETUP[1:-1]:
        made.type(command)
    return made


@contextmanager
def running(typist: Typist, **environment: str) -> Iterator[None]:
    """The last command of the setup, on free ports."""
    assert SETUP[0] == "make run ONCE=1"
    assert SETUP[-1] == ".venv/bin/metagate dev --resources .metagate/resources --with depotgate"
    named = {"MEMORYGATE_PORT": typist.ports["8001"], "DEPOTGATE_PORT": typist.ports["8003"], **environment}
    resources = typist.folder / ".metagate" / "resources"
    dev = Dev(resources, typist.folder / "data", "--with", "depotgate", **named)
    try:
        dev.ready()
        dev.until(lambda: httpx.get(f"http://127.0.0.1:{typist.ports['8003']}/readyz").status_code == 200, 30)
        yield
    finally:
        assert dev.stop() == 0


def walk(typist: Typist) -> None:
    """What a reader types once the gate is there, and sees."""
    *deposits, show = DEPOSIT
    for command in deposits:
        typist.type(command)
    pointer = typist.type(show).strip()
    assert POINTER.fullmatch(pointer)
    assert re.search(r"^depot:01M9…", re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)[0])
    second = POINTER.search(typist.type(RAW[0]))
    assert second is not None
    get, compare, part, listing = READING
    typist.type(get)
    typist.type(compare)
    assert typist.type(part) == (ROOT / "LICENSE").read_text()[:11]
    listed = typist.type(listing)
    assert {pointer, second[0]} == set(POINTER.findall(listed))
    assert "SECURITY.md" in listed
    assert {pointer, second[0]} <= set(POINTER.findall(typist.type(LEDGER[0])))


def test_on_files(typist: Typist) -> None:
    with running(typist):
        walk(typist)
    assert len([path for path in (typist.folder / "data" / "depot").rglob("*") if path.is_file()]) == 2


def test_on_an_s3_server(typist: Typist, object_store: ObjectStore) -> None:
    """The store of the page is started as the page says; where it is on nobody's PATH, by the binary of the tests."""
    make, serve = STORE
    install, keys, start = ON_S3
    assert install == "make install"
    typist.environment["PATH"] = f"{object_store.binary.parent}:{typist.environment['PATH']}"
    typist.type(make)
    serve = serve.replace("7070", typist.ports["7070"])
    store = subprocess.Popen(f"exec env {serve}", shell=True, cwd=typist.folder, env=typist.environment)
    try:
        variable, _, rest = start.partition(" ")
        assert rest == SETUP[-1]
        typist.type(keys)
        chosen = {name: value for name, value in typist.environment.items() if name.startswith("AWS_")}
        name, _, value = variable.partition("=")
        with running(typist, **chosen, **{name: value}):
            walk(typist)
    finally:
        store.kill()
        store.wait()
    objects = [path for path in (typist.folder / "objects" / "artifacts").glob("*/*") if len(path.name) == 26]
    assert len(objects) == 2
    assert not (typist.folder / "data" / "depot").exists()
