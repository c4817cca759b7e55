"""docs/howto/postgres-cluster.md: its manifests parse and fit each other, and what it says of poolers is so."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "howto" / "postgres-cluster.md").read_text(encoding="utf-8")
SOURCES = [
    path
    for root in ("api", "cli", "gates", "kit", "operator", "store")
    for suffix in ("py", "sql")
    for path in sorted((ROOT / root).rglob(f"*.{suffix}"))
]


def manifests() -> dict[str, dict[str, Any]]:
    blocks = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    return {document["kind"]: document for block in blocks for document in yaml.safe_load_all(block)}


def sources_with(pattern: str) -> set[str]:
    expression = re.compile(pattern)
    return {path.name for path in SOURCES if expression.search(path.read_text(encoding="utf-8"))}


def test_the_manifests_fit_each_other() -> None:
    """A commit waits for a standby; the pooler is one of that cluster, and tracks prepared statements."""
    cluster, pooler = manifests()["Cluster"], manifests()["Pooler"]
    synchronous = cluster["spec"]["postgresql"]["synchronous"]
    assert synchronous == {"method": "any", "number": 1, "dataDurability": "required"}
    assert cluster["spec"]["instances"] > synchronous["number"] + 1
    assert pooler["spec"]["cluster"]["name"] == cluster["metadata"]["name"]
    assert pooler["metadata"]["namespace"] == cluster["metadata"]["namespace"]
    pgbouncer = pooler["spec"]["pgbouncer"]
    assert pgbouncer["poolMode"] == "transaction"
    assert int(pgbouncer["parameters"]["max_prepared_statements"]) > 0


def test_nothing_in_a_session_outlives_its_transaction() -> None:
    """What transaction mode cannot carry: notifications nowhere, locks of a session in migrations only."""
    assert sources_with(r"\bLISTEN \w|\badd_listener\(|\bpg_notify\(") == set()
    assert sources_with(r"\bpg_(try_)?advisory_lock(_shared)?\(") == {"migrations.py", "migrating.py"}
    settings = sources_with(r"""["']SET (?!LOCAL|ROLE)\w+ ?[=\w]""")
    assert settings <= {"verifying.py", "migrations.py", "migrating.py"}, settings
