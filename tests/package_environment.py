"""A virtual environment with packages of other people, for tests that show that ours work with them.

They are not in the lock: no more than these tests needs them.
"""

import subprocess
import sys
import venv
from pathlib import Path

import pytest


def environment_with(folder: Path, *packages: str) -> Path:
    """Its `bin`; the test is skipped where the packages cannot be fetched."""
    venv.create(folder, with_pip=False)
    done = subprocess.run(
        [Path(sys.executable).with_name("uv"), "pip", "install", "--python", folder / "bin" / "python", *packages],
        check=False, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    if done.returncode:
        pytest.skip(f"NOT RUN: {', '.join(packages)} cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return folder / "bin"
