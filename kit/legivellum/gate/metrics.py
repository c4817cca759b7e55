"""The metrics every gate has. No label ever carries a name that somebody declared or sent."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from legivellum.http.metrics import LATENCY_BUCKETS


class ServedMetrics:
    """A registry with what is counted of answers, under a gate's prefix; the gate adds its own to `registry`."""

    def __init__(self, prefix: str) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            f"{prefix}_http_requests", "Answers by route and status.", ("route", "status"), registry=self.registry
        )
        self.latency = Histogram(
            f"{prefix}_http_request_seconds",
            "Time from request to answer.",
            ("route",),
            buckets=LATENCY_BUCKETS,
            registry=self.registry,
        )
        # The one name without the gate's own: all gates together are one graph of who calls whom (CO-02).
        self.edges = Counter(
            "legivellum_edge",
            "Requests by the type of the principal that sent them (`none` without a good credential) and route.",
            ("from_type", "route"),
            registry=self.registry,
        )

    def gauge(self, name: str, description: str, across_workers: str) -> Gauge:
        """`across_workers`: how the values of several workers become one (prometheus-client's multiprocess modes)."""
        return Gauge(name, description, registry=self.registry, multiprocess_mode=across_workers)  # type: ignore[arg-type]


class RequestMetrics(ServedMetrics):
    """Those, and what is counted of callers with credentials."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.auth_failures = Counter(
            f"{prefix}_auth_failures", "Refused credentials by reason.", ("reason",), registry=self.registry
        )
        self.rate_limited = Counter(
            f"{prefix}_rate_limited", "Requests over a principal's rate.", registry=self.registry
        )


class IdentityMetrics(RequestMetrics):
    """Those, and what a process measures that follows MetaGate's identity and has no database of its own."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.identity_age = self.gauge(
            f"{prefix}_identity_age_seconds", "How old what is known of principals and keys is.", "livemax"
        )


class GateMetrics(IdentityMetrics):
    """Those, and what a process measures that has a database and streams."""

    def __init__(self, prefix: str) -> None:
        super().__init__(prefix)
        self.streams = self.gauge(f"{prefix}_streams", "Open streams.", "livesum")
        self.database_up = self.gauge(f"{prefix}_database_up", "Whether the gate's database answers.", "livemin")
