#!/usr/bin/env python3
"""Print a CycloneDX bill of materials of the environment this runs in.

Standard library only, because it runs inside the image while that is built: the Python distributions that
`metagate` and the named extras pull in, with their licences, and with `--dpkg` the Debian packages below them.
`--licences` prints a table for reading instead.
"""

import argparse
import json
import re
import subprocess
import sys
import uuid
from email.message import Message
from importlib import metadata
from typing import Any, Final, cast

Component = dict[str, Any]


EXTRAS: Final = ("api", "operator", "interrogate", "depotgate", "delegate", "cogni", "embedded")


def normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(root: str, extras: tuple[str, ...]) -> list[metadata.Distribution]:
    """The root and everything it needs; what is not installed has a marker that is false here."""
    by_name: dict[str, metadata.Distribution] = {}
    queue = [(root, extras)]
    done: set[tuple[str, tuple[str, ...]]] = set()
    while queue:
        name, wanted = queue.pop()
        if (normalised(name), wanted) in done:
            continue
        done.add((normalised(name), wanted))
        try:
            distribution = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            continue
        by_name[normalised(name)] = distribution
        for requirement in distribution.requires or []:
            match = re.match(r"\s*([A-Za-z0-9][\w.-]*)\s*(?:\[([^\]]*)\])?", requirement)
            assert match, requirement
            gates = re.findall(r"extra\s*==\s*['\"]([^'\"]+)['\"]", requirement)
            if gates and not set(gates) & set(wanted):
                continue
            parts = (part.strip() for part in (match[2] or "").split(","))
            queue.append((match[1], tuple(sorted(filter(None, parts)))))
    return [by_name[name] for name in sorted(by_name)]


def licence(distribution: metadata.Distribution) -> str:
    message = cast("Message", distribution.metadata)  # what it is; the protocol lacks `get` before Python 3.12
    if expression := message.get("License-Expression"):
        return str(expression)
    classified = [
        line.rsplit(" :: ", 1)[1] for line in message.get_all("Classifier") or [] if line.startswith("License :: ")
    ]
    written = (message.get("License") or "").strip().splitlines()
    return ", ".join(classified) or (written[0] if written else "unknown")


def python_component(distribution: metadata.Distribution) -> Component:
    name, version = normalised(distribution.metadata["Name"]), distribution.version
    reference = f"pkg:pypi/{name}@{version}"
    expression = licence(distribution)
    return {
        "type": "library",
        "bom-ref": reference,
        "name": name,
        "version": version,
        "purl": reference,
        "licenses": [{"expression": expression}]
        if re.fullmatch(r"[\w.+-]+", expression)
        else [{"license": {"name": expression}}],
    }


def debian_components() -> list[Component]:
    listed = subprocess.run(
        ["dpkg-query", "-W", "-f", "${Package}\t${Version}\t${Architecture}\n"],  # noqa: S607
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    rows = [line.split("\t") for line in listed.splitlines()]
    return [
        {
            "type": "library",
            "bom-ref": f"pkg:deb/debian/{name}@{version}?arch={arch}",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={arch}",
        }
        for name, version, arch in rows
    ]


def bill(distributions: list[metadata.Distribution], *, dpkg: bool) -> Component:
    components = [python_component(distribution) for distribution in distributions]
    root = next(component for component in components if component["name"] == "metagate")
    rest = [component for component in components if component is not root] + (debian_components() if dpkg else [])
    serial = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([root, rest], sort_keys=True))  # the same content, the same bill
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": {**root, "type": "application"}},
        "components": rest,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--extra", action="append", default=None, help=f"default: {', '.join(EXTRAS)}")
    parser.add_argument("--dpkg", action="store_true", help="the Debian packages of this system too")
    parser.add_argument("--licences", action="store_true", help="a table of names and licences instead")
    arguments = parser.parse_args()
    distributions = closure("metagate", tuple(sorted(arguments.extra or EXTRAS)))
    if arguments.licences:
        for distribution in distributions:
            sys.stdout.write(f"{distribution.metadata['Name']:28} {distribution.version:14} {licence(distribution)}\n")
        return
    json.dump(bill(distributions, dpkg=arguments.dpkg), sys.stdout, indent=1)
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
