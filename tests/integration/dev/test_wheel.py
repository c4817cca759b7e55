"""What `make wheel` builds: the same bytes for the same sources, and all that somebody needs who has no checkout."""

import hashlib
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from tests.checkouts import ROOT, copy_checkout

QUIET = {name: value for name, value in os.environ.items() if not name.startswith(("METAGATE_", "JWT_"))}  # noqa: TID251


def build(source: Path, into: Path) -> dict[str, str]:
    """Name and digest of what is built out of `source`."""
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", str(into)],
        cwd=source,
        env={**QUIET, "SOURCE_DATE_EPOCH": "1700000000"},
        capture_output=True,
        check=True,
    )
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in into.iterdir()}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist of this checkout."""
    folder = tmp_path_factory.mktemp("dist")
    build(copy_checkout(tmp_path_factory.mktemp("first")), folder)
    return folder


def test_the_same_sources_give_the_same_bytes(built: Path, tmp_path: Path) -> None:
    """Twice, in two places, with other times and another umask: wheel and sdist are the same to the byte."""
    before = os.umask(0o077)
    try:
        source = copy_checkout(tmp_path / "elsewhere")
    finally:
        os.umask(before)
    for path in source.rglob("*"):
        os.utime(path, (1, 1))
    digests = build(source, tmp_path / "dist")
    assert sorted(name.rpartition("-")[2] for name in digests) == ["0.1.0.tar.gz", "any.whl"]
    assert digests == {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in built.iterdir()}


def test_the_sdist_builds_the_same_wheel(built: Path, tmp_path: Path) -> None:
    """Whoever builds from the sdist gets the wheel that is in the checkout's dist."""
    (sdist,) = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    digests = build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "dist")
    (wheel,) = built.glob("*.whl")
    assert digests[wheel.name] == hashlib.sha256(wheel.read_bytes()).hexdigest()


@pytest.mark.slow
def test_a_bare_environment_runs_the_quickstart(built: Path, tmp_path: Path) -> None:
    """The wheel alone has the client; with the extra `standalone` it starts everything, far from any checkout."""
    (wheel,) = built.glob("*.whl")
    uv = Path(sys.executable).with_name("uv")
    binaries = tmp_path / "environment/bin"

    def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            list(map(str, command)), cwd=tmp_path, env=QUIET, capture_output=True, text=True, timeout=150, check=False
        )

    assert run(uv, "venv", "-q", "--python", sys.executable, tmp_path / "environment").returncode == 0
    install = (uv, "pip", "install", "-q", "--python", binaries / "python", "--no-build")
    assert run(*install, wheel).returncode == 0
    bare = run(binaries / "metagate", "quickstart", "--once")
    assert (bare.returncode, "install the extra standalone" in bare.stderr) == (3, True), bare.stderr
    assert run(binaries / "metagate", "bootstrap", "--help").returncode == 0
    installed = run(*install, "-c", ROOT / "requirements-run.lock", f"{wheel}[standalone]")
    if installed.returncode:
        pytest.skip(f"no package index can be asked here: {installed.stderr.strip().splitlines()[-1]}")
    done = run(binaries / "metagate", "quickstart", "--once", "--port", "0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "READY" in done.stdout
    assert run(binaries / "metagate", "crds").stdout.count("CustomResourceDefinition") >= 6
    assert run(binaries / "metagate", "--version").stdout == "0.1.0\n"
    assert "install the extra operator" in run(binaries / "metagate", "crds", "apply").stderr
    assert run(binaries / "memorygate", "--help").returncode == 0
