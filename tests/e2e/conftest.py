"""One node, one release, a story in chapters: `make test-e2e`. Without METAGATE_E2E=1 nothing here is collected."""

from collections.abc import Callable, Iterator

import pytest
from tests.e2e.kubernetes import ENVIRONMENT, NodeCluster, start_node, stop_node
from tests.e2e.release import InstalledRelease, installed

CHAPTERS = (
    "install",
    "booting",
    "rights",
    "admission",
    "databases",
    "faults",
    "memorygate",
    "interrogate",
    "asyncgate",
    "depotgate",
    "delegate",
    "upgrade",
    "uninstall",
    "legivellum",
    "readme",
    "previous_release",
)
FIGURES: list[str] = []

if ENVIRONMENT.get("METAGATE_E2E") != "1":
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Chapters in their order: the upgrade comes after what it must not disturb, the uninstall last."""
    ours = [item for item in items if "tests/e2e" in str(item.path)]
    if len(ours) == len(items):
        items.sort(key=lambda each: CHAPTERS.index(each.path.stem.removeprefix("test_")))
    for each in ours:
        each.add_marker(pytest.mark.node)
        each.add_marker(pytest.mark.timeout(420))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("measured")
        for line in FIGURES:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def say(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Puts a figure into the summary of the run, and on the terminal now."""
    reporter = request.config.pluginmanager.getplugin("terminalreporter")

    def add_line(line: str) -> None:
        FIGURES.append(line)
        if reporter is not None:
            reporter.write_line(f"  {line}")

    return add_line


@pytest.fixture(scope="session")
def cluster(say: Callable[[str], None]) -> Iterator[NodeCluster]:
    if ENVIRONMENT.get("USE_EXISTING_CLUSTER") == "true":
        yield NodeCluster((), ENVIRONMENT)
        return
    yield start_node(say)
    stop_node()


@pytest.fixture(scope="session")
def release(cluster: NodeCluster, say: Callable[[str], None]) -> InstalledRelease:
    return installed(cluster, say)
