"""The conformance suite of MCP against the gateway as it is served, with tools that only these tests have."""

from pathlib import Path

import pytest
import pytest_asyncio
import yaml
from tests.conformance.fixture_tools import ServedGateway
from tests.conformance.suite import ConformanceSuite, SuiteRun
from tests.node.environment import install
from tests.node.header_proxy import adding_headers

EXPECTED_FAILURES = Path(__file__).with_name("expected_failures.yml")
REQUIRED = (
    "server-stateless",
    "tools-list",
    "dns-rebinding-protection",
    "caching",
    "http-header-validation",
    "tasks-lifecycle",
    "tasks-capability-negotiation",
    "tasks-wire-fields",
    "tasks-request-state-removal",
    "tasks-request-headers",
    "tasks-dispatch-and-envelope",
    "tasks-required-task-error",
)
NOT_OFFERED = {
    "caching": {
        "sep-2549-prompts-list-caching-hints",
        "sep-2549-resources-list-caching-hints",
        "sep-2549-resources-templates-list-caching-hints",
    }
}
"""Checks of a required scenario that ask for methods which the gateway does not have."""

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def suite() -> ConformanceSuite:
    return ConformanceSuite(install())


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def run(gateway: ServedGateway, suite: ConformanceSuite, tmp_path_factory: pytest.TempPathFactory) -> SuiteRun:
    """All scenarios, once, as a principal whose key the proxy adds: the suite knows no credentials."""
    output = tmp_path_factory.mktemp("conformance")
    async with adding_headers(gateway.url, gateway.caller.headers) as address:
        return await suite.run(f"{address}/mcp", EXPECTED_FAILURES, output)


async def test_nothing_else_fails_than_what_is_expected(run: SuiteRun) -> None:
    """Neither a scenario that is not listed, nor a line that has become stale."""
    assert run.code == 0, run.verdict


async def test_every_scenario_ran(run: SuiteRun, suite: ConformanceSuite) -> None:
    """Each scenario for servers left its checks: nothing is skipped in silence."""
    assert sorted(run.checks) == sorted(await suite.scenarios())


@pytest.mark.parametrize("scenario", REQUIRED)
async def test_a_required_scenario_passes(run: SuiteRun, scenario: str) -> None:
    """Whatever the list of expected failures says: no check fails but those of methods that are not offered."""
    assert {check["id"] for check in run.checks[scenario] if check["status"] == "SUCCESS"}
    failures = run.failures(scenario)
    assert failures.keys() <= NOT_OFFERED.get(scenario, set()), failures


def test_what_must_pass_is_not_expected_to_fail() -> None:
    listed = yaml.safe_load(EXPECTED_FAILURES.read_text(encoding="utf-8"))["server"]
    allowed = {f"{scenario}:{check}" for scenario, checks in NOT_OFFERED.items() for check in checks}
    assert {line for line in listed if line.partition(":")[0] in REQUIRED} == allowed
