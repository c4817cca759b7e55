"""What InterroGate counts beside what every gate counts. No label ever carries a name somebody declared or sent."""

from __future__ import annotations

from typing import Final, get_args

from prometheus_client import Counter, Histogram

from interrogate.decision import Decision
from interrogate.tool_call import AnsweredState, EscalateReason
from legivellum.gate.metrics import GateMetrics
from legivellum.http.metrics import LATENCY_BUCKETS

METRICS: Final = GateMetrics("interrogate")

DECISIONS: Final = Counter(
    "interrogate_decisions", "Decisions that were stored.", ("outcome", "reason"), registry=METRICS.registry
)
DECISION_SECONDS: Final = Histogram(
    "interrogate_decision_seconds",
    "Time from a parsed request to its stored decision.",
    buckets=LATENCY_BUCKETS,
    registry=METRICS.registry,
)
MOVED: Final = Counter(
    "interrogate_moved",
    "Decisions that were made again because what they rest on had changed.",
    registry=METRICS.registry,
)
FAIL_CLOSED: Final = Counter(
    "interrogate_fail_closed", "Requests about which nothing was decided.", ("cause",), registry=METRICS.registry
)
POLICY_AGE: Final = METRICS.gauge(
    "interrogate_policy_age_seconds", "How old what is known of policies is; -1: nothing is.", "livemax"
)
FORWARDS: Final = Counter(
    "interrogate_forwards", "Forwards by how they ended.", ("state", "reason"), registry=METRICS.registry
)
FORWARDS_PENDING: Final = METRICS.gauge(
    "interrogate_forwards_pending", "Forwards that were admitted and not finished yet, in the database.", "livemax"
)
SHADOW_DISAGREEMENTS: Final = Counter(
    "interrogate_shadow_disagreements",
    "Decisions that the shadow policy would have made otherwise.",
    registry=METRICS.registry,
)
RULE_FAILURES: Final = Counter(
    "interrogate_rule_failures",
    "Requests denied because a rule could not be evaluated, or was not boolean.",
    registry=METRICS.registry,
)

MCP_OPEN: Final = METRICS.gauge("interrogate_mcp_open", "Requests to `/mcp` that are open.", "livesum")
MCP_CALLS: Final = Counter(
    "interrogate_mcp_calls",
    "Calls of tools by how they were answered: `answered`, `refused` (a result that says so), `error` of the protocol.",
    ("outcome",),
    registry=METRICS.registry,
)
MCP_CALL_SECONDS: Final = Histogram(
    "interrogate_mcp_call_seconds",
    "Time from a call of a tool to its answer.",
    buckets=(*LATENCY_BUCKETS, 2.5, 5.0, 10.0, 30.0, 60.0),
    registry=METRICS.registry,
)

TOOL_CALLS: Final = Counter(
    "interrogate_tool_calls",
    "Calls of tools at MCP servers by how they ended: as in the receipt of the outcome.",
    ("outcome",),
    registry=METRICS.registry,
)
for _outcome in (*get_args(AnsweredState), *get_args(EscalateReason)):
    # From the start: an alert on the increase of a series does not see the first increment of one that appears.
    TOOL_CALLS.labels(_outcome)


def count_decision(decision: Decision, seconds: float) -> None:
    """Count a decision that was stored now; replays are not counted again."""
    DECISIONS.labels(decision.outcome.value, decision.reason_code.value if decision.reason_code else "").inc()
    DECISION_SECONDS.observe(seconds)
