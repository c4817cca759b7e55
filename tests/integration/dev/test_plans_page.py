"""The page docs/tutorial/plans.md, typed line by line."""

import os
import shutil
import sys
from pathlib import Path

import httpx
import pytest
from tests.docs.typed_page import TypedPage, blocks, steady
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port

ROOT = Path(__file__).resolve().parents[3]
FILE = ROOT / "docs" / "tutorial" / "plans.md"
PORTS = {"8001": "MEMORYGATE", "8002": "ASYNCGATE", "8003": "DEPOTGATE", "8004": "DELEGATE"}
WRITES = os.environ.get("PLANS_PAGE") == "write"  # noqa: TID251 - a developer's, who wants the page written anew

pytestmark = pytest.mark.timeout(180)


@pytest.mark.invariant("INV-086")
def test_the_page_is_typed_line_by_line(tmp_path: Path) -> None:
    """A draft with mistakes, mended, sent, held, shown, approved, worked on by two programs, closed: each line prints what the
    page says; only `make run` and `dev` are this test's own."""
    text = FILE.read_text(encoding="utf-8")
    ports = {shown: str(free_port()) for shown in PORTS}
    page = TypedPage(tmp_path, ports)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / ".venv").symlink_to(sys.prefix)
    (setup, _), *typed = blocks(text)
    assert setup[0] == "make run ONCE=1"
    assert setup[-1] == ".venv/bin/metagate dev --resources .metagate/plans --with delegate"
    for command in setup[1:-1]:
        page.type(command)
    environment = {f"{gate}_PORT": ports[shown] for shown, gate in PORTS.items()}
    dev = Dev(tmp_path / ".metagate" / "plans", tmp_path / ".metagate" / "data", "--with", "delegate", **environment)
    try:
        dev.ready()
        gate = f"http://127.0.0.1:{ports['8004']}"
        dev.until(lambda: httpx.get(f"{gate}/readyz").status_code == 200, 30)
        for commands, shown in typed:
            printed = "".join(page.type(command) for command in commands)
            if WRITES:
                lines = "".join(f"$ {command}\n" for command in commands)
                text = text.replace(f"{lines}{shown and shown + chr(10)}```", f"{lines}{page.shown(printed)}```")
            else:
                assert steady(printed) == steady(page.here(shown)), printed
        if WRITES:
            FILE.write_text(text, encoding="utf-8")
    finally:
        page.close()
        assert dev.stop() == 0
