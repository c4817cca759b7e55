#!/usr/bin/env python3
"""Copy charts/gate-lib into the charts that use it, and those into charts/legivellum; `--check` only compares.

A copy, not a link and not a dependency that Helm fetches: `helm install charts/metagate` works from a checkout, without
a network, and tools that leave symbolic links out find everything in one folder.
"""

import filecmp
import shutil
import sys
from pathlib import Path

CHARTS = Path(__file__).parent
LIBRARY = CHARTS / "gate-lib"
USERS = ("metagate", "memorygate", "interrogate", "asyncgate", "depotgate", "delegate", "cognigate")


UMBRELLA = "legivellum"


def copies() -> list[tuple[Path, Path]]:
    """Pairs of a chart and its copy; those in the umbrella last, because they hold copies of the library."""
    library = [(LIBRARY, CHARTS / name / "charts" / LIBRARY.name) for name in (*USERS, UMBRELLA)]
    return library + [(CHARTS / name, CHARTS / UMBRELLA / "charts" / name) for name in USERS]


def differs(original: Path, copy: Path) -> bool:
    def files(folder: Path) -> list[Path]:
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())

    return files(copy) != files(original) or any(
        not filecmp.cmp(copy / path, original / path, shallow=False) for path in files(original)
    )


def main() -> int:
    if "--check" in sys.argv:
        return int(any(differs(original, copy) for original, copy in copies()))
    for original, copy in copies():
        if differs(original, copy):
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(original, copy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
