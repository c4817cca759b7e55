"""Alerts and dashboard ask real processes: the operator, the API and the webhook as they run, after some work."""

import re
import ssl
import urllib.request

from tests.chart.test_monitoring import SERIES, expressions
from tests.cluster.control_plane import eventually
from tests.integration.api.processes import started
from tests.operator.machinery import Admission, Operator, Tenancy

FAMILY = re.compile(r"^# TYPE (\w+) (\w+)$", re.MULTILINE)
LABELS = re.compile(r'(\w+)="')
SUFFIXES = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
KNOWN = {"route", "status", "outcome", "reason", "statement", "kind", "answer", "code", "le"}


def scraped(url: str) -> str:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with urllib.request.urlopen(url, context=context if url.startswith("https") else None, timeout=5) as response:
        return str(response.read().decode())


async def test_every_query_finds_its_series(tenancy: Tenancy, operator: Operator, admission: Admission) -> None:
    """Each series that an alert or a panel names is exposed by a running process; no label is anything but one of nine
    enumerations, so that nothing somebody declares makes a new series (names of pods come from the scrape)."""
    tenancy.apply(*tenancy.world())
    tenancy.wait_ready("pb/indexer")
    with started(tenancy.database) as (_, port):
        eventually(lambda: "metagate_snapshot_revision 0.0" not in scraped(f"http://127.0.0.1:{port}/metrics"))
        pages = [
            scraped(f"http://127.0.0.1:{port}/metrics"),
            scraped(f"http://127.0.0.1:{operator.port}/metrics"),
            scraped(f"https://127.0.0.1:{admission.port}/metrics"),
        ]
    text = "\n".join(pages)
    exposed = {f"{name}{suffix}" for name, kind in FAMILY.findall(text) for suffix in SUFFIXES.get(kind, ("",))}
    requests = {series for _, expression in expressions() for series, _ in SERIES.findall(expression)}
    assert requests - exposed == set()
    ours = [line for line in text.splitlines() if line.startswith("metagate_")]
    assert {label for line in ours for label in LABELS.findall(line)} <= KNOWN
    assert not any(tenancy.namespace in line or "indexer" in line for line in ours)
    ends = re.search(r"^metagate_certificate_not_after_timestamp_seconds (\S+)", pages[2], re.MULTILINE)
    assert ends is not None
    assert float(ends[1]) > 0
