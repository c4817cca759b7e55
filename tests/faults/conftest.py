"""One harness for the rows that can share one; results are written and printed at the end of the run."""

import platform
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
import pytest_asyncio
from tests.faults import results, table
from tests.faults.fault_harness import FaultHarness, fault_harness

HERE = "tests/faults/"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long variants are for `make faults` alone; the rest of a run is not touched."""
    ours = [item for item in items if item.nodeid.startswith(HERE)]
    for item in ours:
        item.add_marker(pytest.mark.faults)
    if not table.whole():
        left = [item for item in ours if item.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=left)
        items[:] = [item for item in items if item not in left]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def shared() -> AsyncIterator[FaultHarness]:
    async with fault_harness() as made:
        yield made


def gather(terminalreporter: pytest.TerminalReporter) -> None:
    """Outcomes by row, those of the rows' tests in other folders too: only the whole run's summary sees them."""
    for outcome in ("passed", "skipped", "failed", "error"):
        for report in terminalreporter.stats.get(outcome, ()):
            for row in table.rows_of(getattr(report, "nodeid", "")):
                result = results.of(row)
                result.outcomes[report.nodeid] = "failed" if outcome == "error" else outcome
                if outcome == "skipped" and isinstance(report.longrepr, tuple):
                    result.reasons.append(str(report.longrepr[2]).removeprefix("Skipped: "))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    gather(terminalreporter)
    if not results.FOUND:
        return
    terminalreporter.section("faults")
    for line in table.lines(results.FOUND):
        terminalreporter.write_line(line)
    results.write(
        date=datetime.now(UTC).date().isoformat(),
        machine=table.machine(),
        python=platform.python_version(),
        whole=table.whole(),
    )
