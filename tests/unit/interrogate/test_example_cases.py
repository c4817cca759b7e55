"""The policy of the quickstart, and what the cases beside it expect of it."""

from pathlib import Path

import yaml

from interrogate.policy_cases import run_files

EXAMPLES = Path(__file__).parents[3] / "examples"
CASES = EXAMPLES / "interrogate" / "front-desk.yaml"


def test_the_cases_are_about_the_policy_of_the_quickstart() -> None:
    """Word for word the same rules: whoever changes one changes the other."""
    declared = yaml.safe_load((EXAMPLES / "quickstart" / "policy.yaml").read_text())
    assert yaml.safe_load(CASES.read_text())["policy"] == declared["spec"]


def test_every_case_is_decided_as_it_expects() -> None:
    """What `interrogate test` prints nothing bad about."""
    results = run_files([CASES])
    assert len(results) >= 7
    assert [(result.name, result.problem) for result in results if result.problem is not None] == []
