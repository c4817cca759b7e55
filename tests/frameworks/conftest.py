"""Receipts under other people's frameworks: `make test-frameworks`. Without METAGATE_FRAMEWORKS=1 nothing here is collected."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.frameworks.temporal_server import TEMPORAL_JARS, TemporalServer
from tests.integration.interrogate.conftest import admission_database  # noqa: F401 - a fixture
from tests.integration.interrogate.mcp.conftest import gateway  # noqa: F401 - a fixture
from tests.integration.receipted.conftest import relayed, served  # noqa: F401 - fixtures

ENVIRONMENT = os.environ  # noqa: TID251 - whether this suite runs

if ENVIRONMENT.get("METAGATE_FRAMEWORKS") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def temporal_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TemporalServer | None]:
    """None where it cannot run."""
    if shutil.which("java") is None or not TEMPORAL_JARS.joinpath(".installed").exists():
        yield None
        return
    folder: Path = tmp_path_factory.mktemp("temporal")
    with TemporalServer(folder / "server.log").running() as server:
        yield server
