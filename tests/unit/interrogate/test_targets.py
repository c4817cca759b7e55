"""Which addresses a tenant can make the gate call."""

import pytest

from interrogate.targets import TargetHosts

ALLOWED = TargetHosts.parse("tools.example.com, *.partner.example:8443 ,127.0.0.1:9000, ::1")


@pytest.mark.parametrize(
    ("url", "resolved"),
    [
        # A bare host is the tenant's own service, whatever a service of that name in the gate's namespace is.
        ("http://worker", "http://worker.team-a.svc"),
        ("http://worker:8004/plans?x=1", "http://worker.team-a.svc:8004/plans?x=1"),
        ("http://localhost:8005/", "http://localhost.team-a.svc:8005/"),
        ("http://2130706433/", "http://2130706433.team-a.svc/"),
        ("https://tools.example.com/mcp", "https://tools.example.com/mcp"),
        ("https://TOOLS.example.com/mcp#there", "https://TOOLS.example.com/mcp"),
        ("https://a.partner.example:8443/x", "https://a.partner.example:8443/x"),
        ("http://127.0.0.1:9000/", "http://127.0.0.1:9000/"),
        ("http://[::1]:9000/", "http://[::1]:9000/"),
    ],
)
def test_allowed(url: str, resolved: str) -> None:
    assert ALLOWED.resolve(url, "team-a") == resolved


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest/meta-data",
        "http://worker.team-b.svc/",
        "http://worker.team-b/",
        "http://worker./",
        "http://kubernetes.default.svc",
        "http://127.0.0.1:9001/",
        "http://127.0.0.1/",
        "http://[::ffff:127.0.0.1]:9000/",
        "https://a.partner.example/x",
        "https://tools.example.com.evil.example/",
        "https://evil.example/tools.example.com",
        "http://tools.example.com@evil.example/",
        "http://user:word@tools.example.com/",
        "ftp://tools.example.com/",
        "file:///etc/passwd",
        "http://",
        "http://tools.example.com:http/",
        "worker",
        "",
    ],
)
def test_refused(url: str) -> None:
    """Metadata services, neighbours, the gate's own machine, and what only looks like an allowed host."""
    assert ALLOWED.resolve(url, "team-a") is None


def test_nothing_outside_the_namespace_is_allowed_unless_the_installation_says_so() -> None:
    assert TargetHosts.parse("").resolve("http://tools.example.com/", "team-a") is None
    assert TargetHosts.parse("").resolve("http://worker/", "team-a") == "http://worker.team-a.svc/"
