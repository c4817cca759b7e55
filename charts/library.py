#!/usr/bin/env python3
"""Copy charts/gate-lib into the charts that use it; `--check` only compares.

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


def differs(copy: Path) -> bool:
    def files(folder: Path) -> list[Path]:
        return sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())

    return files(copy) != files(LIBRARY) or any(
        not filecmp.cmp(copy / path, LIBRARY / path, shallow=False) for path in files(LIBRARY)
    )


def main() -> int:
    stale = [copy for name in USERS if differs(copy := CHARTS / name / "charts" / "gate-lib")]
    if "--check" in sys.argv:
        return int(bool(stale))
    for copy in stale:
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(LIBRARY, copy)
    return 0


if __name__ == "__main__":
    sys.exit(main())
