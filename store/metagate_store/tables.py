"""The tables a publish writes, in the order it writes them."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Table:
    key: tuple[str, ...]
    served: bool = True
    """Whether a change here is a new revision; verdicts and references alone are not."""


TABLES: Mapping[str, Table] = {
    "principal": Table(("tenant", "principal_key")),
    "subject": Table(("issuer", "subject")),
    "api_key": Table(("sha256",)),
    "binding": Table(("tenant", "principal_key")),
    "profile": Table(("tenant", "name")),
    "manifest": Table(("tenant", "name")),
    "policy_profile": Table(("tenant", "name")),
    "problemata": Table(("tenant", "name")),
    "plan_template": Table(("tenant", "name")),
    "issuer": Table(("issuer",)),
    "issuer_key": Table(("issuer", "kid")),
    "reference": Table(("owner", "path"), served=False),
    "resource": Table(("owner",), served=False),
}
