#!/usr/bin/env python3
"""Write the chart's files/rbac.yaml from the rights that the code declares (`metagate_operator.cluster.rbac`).

The chart cannot ask Python what the operator needs, so every form it may take is written down: watching everything, and
watching chosen namespaces, each split by where a rule is granted.
"""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from metagate_operator.cluster.rbac import RbacRight, Where, admission_rights, operator_rights

TARGET = Path(__file__).parent / "metagate" / "files" / "rbac.yaml"
WATCHED = "WATCHED-NAMESPACES"
"""Stands for the list of them, which only the values know."""


def split(rights: Sequence[RbacRight]) -> dict[str, list[dict[str, Any]]]:
    return {where.value: [each.rule() for each in rights if each.where is where] for where in Where}


def text() -> str:
    forms = {
        "operator": {"everything": split(operator_rights()), "namespaces": split(operator_rights((WATCHED,)))},
        "admission": {
            "self": split(admission_rights(self_managed=True)),
            "mounted": split(admission_rights(self_managed=False)),
        },
    }
    head = "# Generated from metagate_operator.cluster.rbac by charts/rbac.py; a test compares.\n"
    return head + yaml.safe_dump(forms, sort_keys=False)


if __name__ == "__main__":
    if "--check" in sys.argv:
        sys.exit(TARGET.read_text(encoding="utf-8") != text())
    TARGET.write_text(text(), encoding="utf-8")
