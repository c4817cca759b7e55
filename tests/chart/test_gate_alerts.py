"""The alerts of the gates' charts: each asks for what is exported, has its page, and rings when it should."""

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import generate_latest
from tests.chart import test_asyncgate, test_cognigate, test_delegate, test_depotgate, test_interrogate
from tests.chart.rendering import ROOT, Chart, of_kind
from tests.chart.test_memorygate import rendered
from tests.chart.test_monitoring import GROUPED, SERIES, promtool

from asyncgate.metrics import METRICS as ASYNCGATE_METRICS
from cognigate.metrics import METRICS as COGNIGATE_METRICS
from delegate.metrics import METRICS as DELEGATE_METRICS
from depotgate.metrics import METRICS as DEPOTGATE_METRICS
from interrogate.metrics import METRICS as INTERROGATE_METRICS
from legivellum.gate.metrics import GateMetrics

__all__ = ["promtool"]


@dataclass(frozen=True, slots=True)
class AlertingChart:
    """`prefix`: with which its alerts, and so their pages, begin. `everything`: values that ask for the monitors."""

    name: str
    prefix: str
    metrics: GateMetrics
    everything: Mapping[str, Any]

    @property
    def folder(self) -> Path:
        return ROOT / "charts" / self.name

    @property
    def alerts(self) -> list[dict[str, Any]]:
        groups = yaml.safe_load((self.folder / "files" / "alerts.yaml").read_text())["groups"]
        return [rule for group in groups for rule in group["rules"]]


ALERTING = (
    AlertingChart("interrogate", "InterroGate", INTERROGATE_METRICS, test_interrogate.EVERYTHING),
    AlertingChart("asyncgate", "AsyncGate", ASYNCGATE_METRICS, test_asyncgate.EVERYTHING),
    AlertingChart("depotgate", "DepotGate", DEPOTGATE_METRICS, test_depotgate.EVERYTHING),
    AlertingChart("delegate", "DeleGate", DELEGATE_METRICS, test_delegate.EVERYTHING),
    AlertingChart("cognigate", "CogniGate", COGNIGATE_METRICS, test_cognigate.EVERYTHING),
)
OF_EACH = pytest.mark.parametrize("gate", ALERTING, ids=lambda gate: gate.name)


@pytest.mark.parametrize(
    ("gate", "rule"), [pytest.param(gate, rule, id=rule["alert"]) for gate in ALERTING for rule in gate.alerts]
)
def test_an_alert_asks_for_what_is_exported_and_has_a_runbook(gate: AlertingChart, rule: dict[str, Any]):
    series = re.compile(SERIES.pattern.replace("metagate", gate.name))
    exported = generate_latest(gate.metrics.registry).decode()
    names = {name for name, _ in series.findall(rule["expr"])}
    assert names
    for name in names:
        assert f"# TYPE {name.removesuffix('_total')}" in exported, name
    labels = {label for collector in gate.metrics.registry._collector_to_names for label in collector._labelnames}
    for grouping in GROUPED.findall(rule["expr"]):
        assert {label.strip() for label in grouping.split(",")} <= labels
    page = (ROOT / rule["annotations"]["runbook_url"]).read_text()
    assert page.startswith(f"# {rule['alert']}\n")
    assert rule["expr"].strip() in page
    assert all(heading in page for heading in ("## What it means", "## What to look at", "## What to do"))
    assert rule["labels"]["severity"] in {"critical", "warning"}


@OF_EACH
def test_there_is_no_page_about_an_alert_that_does_not_exist(gate: AlertingChart):
    pages = {path.stem for path in (ROOT / "docs" / "runbooks").glob(f"{gate.prefix}*.md")}
    assert pages == {rule["alert"] for rule in gate.alerts}


@OF_EACH
def test_alerts_ring_when_they_should(gate: AlertingChart, promtool: str, tmp_path: Path):
    """`promtool test rules`: every alert is quiet while all is well, and each rings in the case made for it."""
    cases = Path(__file__).with_name(f"{gate.name}.alerts.test.yaml")
    quiet, *others = yaml.safe_load(cases.read_text())["tests"]
    names = {rule["alert"] for rule in gate.alerts}
    assert {case["alertname"] for case in quiet["alert_rule_test"]} == names
    assert {case["promql_expr_test"][0]["expr"].split('"')[1] for case in others} == names
    shutil.copy(cases, tmp_path)
    shutil.copy(gate.folder / "files" / "alerts.yaml", tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", tmp_path / cases.name], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@OF_EACH
def test_monitors_and_rules_arrive_as_they_are(gate: AlertingChart, chart: Chart):
    objects = rendered(chart, gate.everything, gate.name, gate.folder)
    [rule] = of_kind(objects, "PrometheusRule").values()
    assert rule["spec"] == yaml.safe_load((gate.folder / "files" / "alerts.yaml").read_text())
    [monitor] = of_kind(objects, "PodMonitor").values()
    [deployment] = of_kind(objects, "Deployment").values()
    template = deployment["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= template["metadata"]["labels"].items()
    ports = {port["name"] for port in template["spec"]["containers"][0]["ports"]}
    assert {endpoint["port"] for endpoint in monitor["spec"]["podMetricsEndpoints"]} <= ports
