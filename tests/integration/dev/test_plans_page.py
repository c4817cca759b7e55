"""The pages docs/tutorial/plans.md and docs/howto/a-story-that-does-not-end.md, typed line by line on one machine."""

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from tests.docs.typed_page import TypedPage, blocks, steady
from tests.integration.dev.running import Dev
from tests.integration.memorygate.ledger_fixture import free_port

ROOT = Path(__file__).resolve().parents[3]
TUTORIAL = ROOT / "docs" / "tutorial" / "plans.md"
ON_CALL = ROOT / "docs" / "howto" / "a-story-that-does-not-end.md"
PORTS = {"8001": "MEMORYGATE", "8002": "ASYNCGATE", "8003": "DEPOTGATE", "8004": "DELEGATE"}
WRITES = os.environ.get("PLANS_PAGE") == "write"  # noqa: TID251 - a developer's, who wants the pages written anew

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def typed_page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TypedPage]:
    """A shell beside the gates that the tutorial starts; only `make run` and `dev` are this test's own."""
    folder = tmp_path_factory.mktemp("plans-page")
    ports = {shown: str(free_port()) for shown in PORTS}
    page = TypedPage(folder, ports)
    shutil.copytree(ROOT / "examples", folder / "examples")
    (folder / ".venv").symlink_to(sys.prefix)
    (setup, _), *_ = blocks(TUTORIAL.read_text(encoding="utf-8"))
    assert setup[0] == "make run ONCE=1"
    assert setup[-1] == ".venv/bin/metagate dev --resources .metagate/plans --with delegate"
    for command in setup[1:-1]:
        page.type(command)
    environment = {f"{gate}_PORT": ports[shown] for shown, gate in PORTS.items()}
    dev = Dev(folder / ".metagate" / "plans", folder / ".metagate" / "data", "--with", "delegate", **environment)
    try:
        dev.ready()
        page.ports["8000"] = dev.url.rpartition(":")[2]
        gate = f"http://127.0.0.1:{ports['8004']}"
        dev.until(lambda: httpx.get(f"{gate}/readyz").status_code == 200, 30)
        yield page
    finally:
        page.close()
        assert dev.stop() == 0


def type_blocks(page: TypedPage, file: Path, *, after: int = 0) -> None:
    """Each block behind the first `after` prints what the page says."""
    text = file.read_text(encoding="utf-8")
    for commands, shown in blocks(text)[after:]:
        printed = "".join(page.type(command) for command in commands)
        if WRITES:
            lines = "".join(f"$ {command}\n" for command in commands)
            text = text.replace(f"{lines}{shown and shown + chr(10)}```", f"{lines}{page.shown(printed)}```")
        else:
            assert steady(printed) == steady(page.here(shown)), printed
    if WRITES:
        file.write_text(text, encoding="utf-8")


@pytest.mark.invariant("INV-086")
def test_the_tutorial_is_typed_line_by_line(typed_page: TypedPage) -> None:
    """A draft with mistakes, mended, sent, held, shown, approved, worked on by two programs, closed."""
    type_blocks(typed_page, TUTORIAL, after=1)


def test_a_story_that_does_not_end_is_read_and_ended(typed_page: TypedPage) -> None:
    """A plan that waits for its approver, then for a worker, then for nobody: each line prints what the page says."""
    type_blocks(typed_page, ON_CALL)
