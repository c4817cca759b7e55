"""docs/operator.md names every option and metric of the operator, and none that is not there."""

import re
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.metrics import MetricWrapperBase
from typer.main import get_command

from metagate_cli.admission import app as admission_app
from metagate_cli.operator import app as operator_app
from metagate_operator import overdue
from metagate_operator.cluster import reporter
from metagate_operator.cluster.admission import certificate_source, webhook
from metagate_operator.cluster.metrics import OperatorMetrics
from metagate_operator.issuers import key_refresher
from metagate_operator.ledger import relay
from metagate_operator.reconcile.health import WriterHealth

PAGE = Path("docs/operator.md").read_text(encoding="utf-8")


def options(app: Any) -> set[str]:
    command: Any = get_command(app)
    return {param.opts[0] for param in command.params if param.opts[0].startswith("--") and not param.hidden}


def test_every_option_of_the_operator_is_described() -> None:
    """The table has each option, and no other."""
    table = PAGE.partition("| Option |")[2].partition("\n\n")[0]
    answer = set(re.findall(r"`(--[a-z-]+)`", table)) - {"--no-lease"}
    assert answer == options(operator_app) - {"--help", "--install-completion", "--show-completion"}


def test_what_is_said_of_the_webhook_exists() -> None:
    """Options named on the page are options of the webhook or of the configuration it prints."""
    command: Any = get_command(admission_app)
    known = options(admission_app) | {param.opts[0] for param in command.commands["configuration"].params}
    names = set(re.findall(r"`(--(?:tls|failure)[a-z-]+)", PAGE))
    assert names
    assert names <= known


def test_every_metric_is_described() -> None:
    """Those of passes, and whatever else the two processes count."""
    measured = {metric.name for metric in OperatorMetrics(WriterHealth().facts, registry=CollectorRegistry()).collect()}
    modules = (reporter, key_refresher, overdue, relay, webhook, certificate_source)
    counted = [value for module in modules for value in vars(module).values() if isinstance(value, MetricWrapperBase)]
    written = {str(item._name) for item in counted}
    answer = {name.removesuffix("_total") for name in re.findall(r"`(metagate_[a-z_]+)", PAGE)}
    assert measured | written <= answer
    assert {name for name in answer if not name.startswith("metagate_operator")} <= measured | written
