"""Alerts and dashboard ask for metrics and labels that the code really exports."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from tests.chart.rendering import CHART, ENVIRONMENT, MATRIX, Chart, find_tool, of_kind

from metagate_api.metrics import REGISTRY
from metagate_operator import overdue
from metagate_operator.cluster import reporter
from metagate_operator.cluster.admission import certificate_source, webhook
from metagate_operator.cluster.metrics import OperatorMetrics
from metagate_operator.issuers import key_refresher
from metagate_operator.ledger import relay
from metagate_operator.reconcile.health import WriterHealth

ADDED = {"Counter": ("_total", "_created"), "Gauge": ("",), "Histogram": ("_bucket", "_sum", "_count")}
SCRAPED = {"le", "pod", "job", "instance"}
SERIES = re.compile(r"((?:metagate|legivellum)_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(?:=~|!~|!=|=)\s*"')
GROUPED = re.compile(r"(?:by|without) \(([^)]*)\)")


def exported() -> dict[str, set[str]]:
    """Label names by series, as a scrape shows them."""
    registered: CollectorRegistry = REGISTRY
    metrics = {collector for collector in registered._collector_to_names if isinstance(collector, MetricWrapperBase)}
    for module in (reporter, webhook, certificate_source, key_refresher, overdue, relay):
        metrics |= {value for value in vars(module).values() if isinstance(value, MetricWrapperBase)}
    passes = OperatorMetrics(WriterHealth().facts, registry=CollectorRegistry()).collect()
    return {sample.name: set(sample.labels) for metric in passes for sample in metric.samples} | {
        f"{metric._name}{suffix}": set(metric._labelnames)
        for metric in metrics
        for suffix in ADDED[type(metric).__name__]
    }


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def expressions() -> Iterator[tuple[str, str]]:
    for rule in alerts():
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


def test_every_metric_is_on_the_dashboard():
    """What is counted is shown: no metric of API, operator or admission is missing from the dashboard."""
    text = " ".join(expression for _, expression in list(expressions()))
    endings = re.compile(r"_(total|created|bucket|sum|count)$")
    missing = {endings.sub("", name) for name in exported() if not name.endswith("_created")}
    assert {name for name in missing if name not in text} == set()


def test_alerts_say_what_to_do():
    """Each alert has a severity, a summary and a description, and its name is used once."""
    rules = alerts()
    assert len({rule["alert"] for rule in rules}) == len(rules) >= 20
    for rule in rules:
        assert rule["labels"]["severity"] in {"critical", "warning"}
        assert {"summary", "description"} <= set(rule["annotations"])


def test_every_runbook_shows_its_alert():
    """Severity, expression and text of the notification, as the rule has them: `make crds` writes them."""
    assert subprocess.run([sys.executable, "charts/runbooks.py", "--check"], check=False).returncode == 0
    page = Path("docs/runbooks/MetaGateBrakeHeld.md").read_text()
    [rule] = [rule for rule in alerts() if rule["alert"] == "MetaGateBrakeHeld"]
    assert rule["expr"].strip() in page
    assert f"**Severity:** {rule['labels']['severity']}" in page


def test_every_alert_has_a_runbook():
    """Its address is a page of the docs, and there is no page about an alert that does not exist."""
    pages = {rule["alert"]: rule["annotations"]["runbook_url"] for rule in alerts()}
    assert pages == {name: f"docs/runbooks/{name}.md" for name in pages}
    assert {page.stem for page in Path("docs/runbooks").glob("MetaGate*.md")} == pages.keys()
    for name, page in pages.items():
        text = Path(page).read_text()
        assert text.startswith(f"# {name}\n")
        for heading in ("## What it means", "## What to look at", "## What to do"):
            assert heading in text, f"{page} lacks {heading}"


@pytest.fixture(scope="session")
def promtool() -> str:
    """A failure in CI where there is none: it is built with the cluster."""
    result = find_tool("promtool")
    if result is None:
        line = "NOT RUN: the alerts' tests need promtool: make cluster-build, or install it"
        if ENVIRONMENT.get("CI", "").lower() == "true":
            pytest.fail(line)
        pytest.skip(line)
    return result


def test_prometheus_takes_every_query(promtool: str, tmp_path: Path):
    """Alerts, and what the dashboard asks as rules of their own: `promtool check rules` parses all of them."""
    requests = {
        "groups": [
            {
                "name": "dashboard",
                "rules": [
                    {"record": f"dashboard:{number}", "expr": expression.replace("$__rate_interval", "5m")}
                    for number, (_, expression) in enumerate(expressions())
                ],
            }
        ]
    }
    file = tmp_path / "dashboard.yaml"
    file.write_text(yaml.safe_dump(requests))
    done = subprocess.run(
        [promtool, "check", "rules", CHART / "files" / "alerts.yaml", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_alerts_ring_when_they_should(promtool: str, tmp_path: Path):
    """`promtool test rules`: every alert is quiet while all is well, and each rings in the case made for it."""
    tests = Path(__file__).with_name("alerts.test.yaml")
    names = {rule["alert"] for rule in alerts()}
    quiet, *others = yaml.safe_load(tests.read_text())["tests"]
    assert {case["alertname"] for case in quiet["alert_rule_test"]} == names
    rung = json.dumps([case["promql_expr_test"] for case in others])
    assert {name for name in names if name in rung} == names
    shutil.copy(tests, tmp_path)
    shutil.copy(CHART / "files" / "alerts.yaml", tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / tests.name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_shipped_as_they_are(chart: Chart):
    """PrometheusRule and dashboard arrive unchanged: Helm's templates do not eat Prometheus' and Grafana's."""
    objects: list[dict[str, Any]] = chart.render(MATRIX["everything optional"])
    [rule] = of_kind(objects, "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((CHART / "files" / "alerts.yaml").read_text())
    shipped = of_kind(objects, "ConfigMap")["bootstrap-authority-dashboard"]["data"]["metagate.json"]
    elsewhere = {"monitoring": {"prometheusRule": {"enabled": True, "runbooks": "https://docs.example.com/runbooks/"}}}
    [rule] = of_kind(chart.render(elsewhere), "PrometheusRule").values()
    addresses = {item["annotations"]["runbook_url"] for item in rule["spec"]["groups"][0]["rules"]}
    assert "https://docs.example.com/runbooks/MetaGateAbsent.md" in addresses
    assert shipped == (CHART / "files" / "dashboard.json").read_text()


def test_monitors_find_the_ports(chart: Chart):
    """Every port that a monitor names is a container's port of each pod it is meant for."""
    objects = chart.render(MATRIX["everything optional"])
    [monitor] = of_kind(objects, "PodMonitor").values()
    selector = monitor["spec"]["selector"]["matchLabels"]
    result = {}
    for name, item in of_kind(objects, "Deployment").items():
        template = item["spec"]["template"]
        assert selector.items() <= template["metadata"]["labels"].items()
        result[name.rsplit("-", 1)[1]] = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    named = {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]}
    assert {component: ports & named for component, ports in result.items()} == {
        "operator": {"metrics"}, "api": {"metrics"}, "admission": {"webhook"},
    }  # fmt: skip
