"""Runs the command line as a person does."""

import os
import subprocess
import sys
from pathlib import Path


def metagate(*arguments: str | Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    quiet = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "JWT_"))}  # noqa: TID251
    return subprocess.run(
        [sys.executable, "-m", "metagate_cli.main", *map(str, arguments)],
        env={**quiet, **environment},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
