"""Alerts and dashboard ask for metrics and labels that the code really exports."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from tests.chart.rendering import CHART, MATRIX, Chart, of_kind

from metagate_api.metrics import REGISTRY
from metagate_operator.cluster import reporter
from metagate_operator.cluster.admission import webhook

ADDED = {"Counter": ("_total", "_created"), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
SCRAPED = {"le", "pod", "job", "instance"}
SERIES = re.compile(r"(metagate_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPED = re.compile(r"(?:by|without) \(([^)]*)\)")


def exported() -> dict[str, set[str]]:
    """Label names by series, as a scrape shows them."""
    registered: CollectorRegistry = REGISTRY
    metrics = {each for each in registered._collector_to_names if isinstance(each, MetricWrapperBase)}
    for module in (reporter, webhook):
        metrics |= {each for each in vars(module).values() if isinstance(each, MetricWrapperBase)}
    return {f"{each._name}{suffix}": set(each._labelnames) for each in metrics for suffix in ADDED[type(each).__name__]}


def expressions() -> Iterator[tuple[str, str]]:
    alerts = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    for group in alerts["groups"]:
        for rule in group["rules"]:
            yield rule["alert"], rule["expr"]
    dashboard = json.loads((CHART / "files" / "dashboard.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


@pytest.mark.parametrize(("name", "expression"), list(expressions()))
def test_asks_for_what_is_exported(name: str, expression: str):
    """Every series exists, every label in a matcher or a grouping belongs to it, brackets close."""
    known = exported()
    series = SERIES.findall(expression)
    assert series, name
    labels: set[str] = set()
    for metric, matchers in series:
        assert metric in known, f"{name} asks for {metric}"
        assert set(MATCHER.findall(matchers)) <= known[metric] | SCRAPED
        labels |= known[metric]
    for grouping in GROUPED.findall(expression):
        assert {label.strip() for label in grouping.split(",")} <= labels | SCRAPED
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)


def test_every_metric_of_the_api_is_on_the_dashboard():
    """What is counted is shown: no series of the code is missing from the dashboard."""
    asked = " ".join(expression for _, expression in list(expressions()))
    missing = [
        each._name
        for each in REGISTRY._collector_to_names
        if isinstance(each, MetricWrapperBase) and each._name not in asked
    ]
    assert missing == []


def test_alerts_say_what_to_do():
    """Each alert has a severity, a summary and a description, and its name is used once."""
    rules = [
        rule
        for group in yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
        for rule in group["rules"]
    ]
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 10
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} <= set(rule["annotations"])


def test_shipped_as_they_are(chart: Chart):
    """PrometheusRule and dashboard arrive unchanged: Helm's templates do not eat Prometheus' and Grafana's."""
    objects: list[dict[str, Any]] = chart.render(MATRIX["everything optional"])
    [rule] = of_kind(objects, "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    shipped = of_kind(objects, "ConfigMap")["bootstrap-authority-dashboard"]["data"]["metagate.json"]
    assert shipped == (CHART / "files" / "dashboard.json").read_text()


def test_monitors_find_the_ports(chart: Chart):
    """Every port that a monitor names is a container's port of each pod it is meant for."""
    objects = chart.render(MATRIX["everything optional"])
    [monitor] = of_kind(objects, "PodMonitor").values()
    selector = monitor["spec"]["selector"]["matchLabels"]
    found = {}
    for name, each in of_kind(objects, "Deployment").items():
        template = each["spec"]["template"]
        assert selector.items() <= template["metadata"]["labels"].items()
        found[name.rsplit("-", 1)[1]] = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    named = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert {component: ports & named for component, ports in found.items()} == {
        "operator": {"metrics"}, "api": {"metrics"}, "admission": {"webhook"},
    }  # fmt: skip
