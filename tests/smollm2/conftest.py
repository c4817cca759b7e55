"""A real model behind a real server: `make test-smollm2`. Without METAGATE_SMOLLM2=1 nothing here is collected.

The model has 135 million parameters: it shows that the protocol is spoken, and nothing about how well jobs are done.
"""

import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.integration.cognigate.conftest import cogni_gates  # noqa: F401 - a fixture
from tests.integration.memorygate.ledger_fixture import free_port

ENVIRONMENT = os.environ  # noqa: TID251 - whether this suite runs
PYTHON = Path(__file__).resolve().parents[2] / ".venv-smollm2" / "bin" / "python"

if ENVIRONMENT.get("METAGATE_SMOLLM2") != "1":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def model_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The base address of llama.cpp's server."""
    if not PYTHON.exists():
        pytest.skip("a real model: the packages of tests/smollm2/requirements.txt do not install here")
    port, log = free_port(), tmp_path_factory.mktemp("smollm2") / "server.log"
    with log.open("wb") as output:
        server = subprocess.Popen([str(PYTHON), str(Path(__file__).with_name("serve.py")), str(port)], stdout=output, stderr=output)  # fmt: skip
    try:
        until = time.monotonic() + 60
        while True:
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                    break
            except OSError:
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        server.kill()
        server.wait(20)
