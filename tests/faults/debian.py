"""What a fault needs of Debian is installed where that is possible: a fault that is skipped proves nothing."""

import functools
import os
import shutil
import subprocess
from pathlib import Path

import pytest


@functools.cache
def install(package: str) -> bool:
    """Whether Debian's package is there now; False without root, without apt, or without its archive."""
    apt = shutil.which("apt-get")
    if apt is None or os.geteuid() != 0:
        return False
    command = ["install", "-y", "-qq", "--no-install-recommends", package]
    # a fresh image has no lists of packages
    return _done(apt, *command) or (_done(apt, "update", "-qq") and _done(apt, *command))


def _done(*command: str) -> bool:
    quietly = ["env", "DEBIAN_FRONTEND=noninteractive", *command]
    done = subprocess.run(quietly, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, timeout=300)
    return done.returncode == 0


def faketime() -> str:
    for attempt in (lambda: True, lambda: install("libfaketime")):
        if attempt():
            for library in Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"):
                return str(library)
    pytest.skip("there is no libfaketime here, and it cannot be installed")


def wrong_clock(minutes: int) -> dict[str, str]:
    """The environment of a process whose clock is ahead by so many minutes; what it measures by a monotonic clock is right."""
    return {"LD_PRELOAD": faketime(), "FAKETIME": f"{minutes * 60:+d}s", "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
