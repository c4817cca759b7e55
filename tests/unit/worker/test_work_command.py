"""`legivellum work` before it asks anybody: what cannot work, and what importing the library costs."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
ALONE = "import sys; sys.path[:0] = [{path!r}]; from legivellum_worker.main import main; sys.exit(main())"
IMPORTED = """
import sys, time
sys.path[:0] = [{path!r}]
began = time.process_time()
import legivellum_worker
print(time.process_time() - began)
print([name for name in ("asyncio", "subprocess", "argparse", "http.client", "dataclasses") if name in sys.modules])
"""


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the client, the worker library and nothing else."""
    folder = tmp_path_factory.mktemp("alone")
    for name in ("metagate_client", "legivellum_worker"):
        shutil.copytree(ROOT / "client" / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--capability", "index"], "which program?"),
        (["--capability", "index", "--", "/no/such/program"], "there is no program /no/such/program"),
    ],
)
def test_what_cannot_work_is_not_started(alone: Path, tmp_path: Path, words: list[str], said: str) -> None:
    (tmp_path / "key").write_text("mgk_worker")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ALONE.format(path=str(alone)), *words],
        env={"METAGATE_ASYNCGATE_URL": "http://127.0.0.1:9", "METAGATE_API_KEY_FILE": str(tmp_path / "key")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_importing_is_cheap(alone: Path) -> None:
    """Below 50 ms of processor time, the best of five; nothing that only some workers need."""
    command = [sys.executable, "-I", "-S", "-c", IMPORTED.format(path=str(alone))]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines() for _ in range(5)]
    assert {names for _, names in runs} == {"[]"}
    assert min(float(seconds) for seconds, _ in runs) < 0.05


def test_the_command_line_hands_over() -> None:
    """`legivellum work --help` comes from the worker library, without typer."""
    code = "import sys; sys.argv = {}; from metagate_cli.main import legivellum; legivellum()"
    for words, start in ((["work"], "usage: legivellum work "), ([], "Usage: legivellum ")):
        command = [sys.executable, "-c", code.format(["legivellum", *words, "--help"])]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        assert done.stdout.strip().startswith(start)
    assert "Take tasks, and run a program for each." in done.stdout
