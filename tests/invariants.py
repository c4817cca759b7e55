"""Print which invariants of `docs/invariants.md` are proven by which tests, and which by none.

Run by `make invariants`. Exit status 1 when a test claims an invariant that does not exist.
"""

import contextlib
import io
import re
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ROW = re.compile(r"^\| ((?:INV|EXT)-\d+) \| (.*?) \|$")


class Marks:
    """A pytest plugin that notes each collected test's invariants and runs none of them."""

    def __init__(self) -> None:
        self.tests: dict[str, set[str]] = defaultdict(set)

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            for mark in item.iter_markers("invariant"):
                for name in mark.args:
                    self.tests[name].add(item.nodeid.split("[")[0])


def declared() -> dict[str, str]:
    lines = (ROOT / "docs" / "invariants.md").read_text(encoding="utf-8").splitlines()
    return {match[1]: match[2] for line in lines if (match := ROW.match(line))}


def main() -> int:
    marks = Marks()
    with contextlib.redirect_stdout(io.StringIO()) as output:
        status = pytest.main(["--collect-only", "-qq", str(ROOT / "tests")], plugins=[marks])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        print(output.getvalue(), "the tests could not be collected", sep="\n", file=sys.stderr)
        return 2
    invariants = declared()
    missing = [name for name in invariants if name not in marks.tests]
    for name, statement in invariants.items():
        count = len(marks.tests.get(name, ()))
        print(f"{name}  {f'{count:3d} tests' if count else '  -      '}  {statement}")
    print(f"\n{len(invariants) - len(missing)} of {len(invariants)} have a test. None yet: {' '.join(missing) or '-'}")
    if unknown := sorted(marks.tests.keys() - invariants.keys()):
        print(f"claimed by tests but not declared: {' '.join(unknown)}", file=sys.stderr)
    return bool(unknown)


if __name__ == "__main__":
    sys.exit(main())
