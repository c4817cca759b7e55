"""The chart as Helm renders it: no cluster, no node."""

import pytest
from tests.chart.rendering import Chart, find_helm


@pytest.fixture(scope="session")
def chart() -> Chart:
    helm = find_helm()
    if helm is None:
        pytest.skip("NOT RUN: the chart's tests need helm: make cluster-build, or install it")
    return Chart(helm)
