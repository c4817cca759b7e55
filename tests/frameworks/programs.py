"""Programs that people have: run in an environment that holds their frameworks and our client, and nothing else of ours."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PYTHON = ROOT / ".venv-frameworks" / "bin" / "python"
EXAMPLES = ROOT / "examples" / "frameworks"


def examples_at(folder: Path, **ports: str) -> Path:
    """The examples as they are, but for where the ledger (`p8001`) and Temporal (`p7233`) are."""
    copied = folder / "examples" / "frameworks"
    shutil.copytree(EXAMPLES, copied, ignore=shutil.ignore_patterns("__pycache__"))
    for file in copied.glob("*.py"):
        text = file.read_text(encoding="utf-8")
        for name, port in ports.items():
            text = re.sub(rf"(?<=:){name.removeprefix('p')}\b", port, text)
        file.write_text(text, encoding="utf-8")
    return copied


def environment() -> dict[str, str]:
    """Without what would tell a program of this test's own gates or packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "PYTHON"))}  # noqa: TID251
    return {**kept, "no_proxy": "*", "NO_COLOR": "1"}


def run(folder: Path, *words: str, code: int = 0) -> str:
    """What the program prints."""
    done = subprocess.run(
        [str(PYTHON), *words], cwd=folder, env=environment(), capture_output=True, text=True, check=False, timeout=120
    )
    print(done.stderr, file=sys.stderr)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr[-3000:])
    return done.stdout
