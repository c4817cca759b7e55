#!/usr/bin/env python3
"""Write a chart repository: every chart as helm packages it, `index.yaml`, `artifacthub-repo.yml`.

`python charts/package.py [--directory dist/charts] [--url https://charts.example.com]`. Without an address the index
names the archives beside it, so the folder can be copied to any web server as it is.
"""

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

CHARTS = Path(__file__).resolve().parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")  # noqa: TID251 - where the test cluster lies


def find_helm() -> str:
    """Helm of the PATH, else the one that `make cluster-build` built."""
    home = Path(os.environ.get("CLUSTER_HOME") or CACHE / "legivellum-cluster")  # noqa: TID251
    built = sorted(home.glob("v*/helm"))
    helm = shutil.which("helm") or (str(built[-1]) if built else None)
    if helm is None:
        sys.exit("charts/package.py needs helm: install it, or build it with make cluster-build")
    return helm


def package(helm: str, directory: Path, url: str | None) -> None:
    shutil.rmtree(directory, ignore_errors=True)  # an archive of an earlier version would stay in the index
    directory.mkdir(parents=True)
    for chart in sorted(CHARTS.glob("*/Chart.yaml")):
        _run(helm, "package", str(chart.parent), "--destination", str(directory))
    _run(helm, "repo", "index", str(directory), *(("--url", url) if url else ()))
    shutil.copy(CHARTS / "artifacthub-repo.yml", directory)


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - helm, found above
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a chart repository that any web server can serve.")
    parser.add_argument("--directory", type=Path, default=Path("dist/charts"))
    parser.add_argument("--url", help="where the archives will be served, when not beside the index")
    options = parser.parse_args()
    package(find_helm(), options.directory, options.url)
    print(*sorted(map(str, options.directory.iterdir())), sep="\n")  # noqa: T201 - what was written


if __name__ == "__main__":
    main()
