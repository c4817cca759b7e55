"""`metagate explain`, `history`, `diff`, `rollback`: what was, and why. They ask a running MetaGate, and only ask."""

from __future__ import annotations

import json
import sys
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

import typer

from metagate_cli.asking import CaFile, Gate, KeyFile, Refused, Tenant, TokenFile, Url, gate, told
from metagate_cli.plain import plain, value
from metagate_cli.terminal import FOUND, Stop, say


class Output(StrEnum):
    TEXT = "text"
    JSON = "json"


Printed = Annotated[Output, typer.Option("--output", "-o", help="How the answer is printed.")]
Revision = Annotated[int, typer.Argument(min=1, help="A revision, as history and packets name it.")]


def explain(
    what: Annotated[str, typer.Argument(metavar="principal/NAME|startup/ID", help="Whose packet.")],
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    output: Printed = Output.TEXT,
) -> None:
    """Say for every value of a packet which layer gave it, which object, and who applied that.

    A startup's packet is made again from its revision and compared to the byte. Exit 1 when that cannot be done.

    Example: metagate explain startup/0197a0c2-… --url http://127.0.0.1:8000 --key-file admin.key
    """
    kind, _, name = what.partition("/")
    if kind not in {"principal", "startup"} or not name:
        raise Stop("explain what? principal/NAME or startup/ID", code=FOUND)
    if kind == "startup":
        try:
            UUID(name)
        except ValueError as error:
            raise Stop("startup/ID: the id is a UUID", code=FOUND) from error
    asked = gate(url, key_file, token_file, ca_file, tenant)
    try:
        found = asked.get(f"/v1/admin/explain/{kind}/{name}")
    except Refused as error:
        if error.code == "NOT_REBUILT":
            raise Stop(f"THE ANSWER CANNOT BE REBUILT: {plain(error)}", code=FOUND) from error
        raise told(error) from error
    print(json.dumps(found, indent=2) if output is Output.JSON else explanation(found))


def explanation(found: dict[str, Any]) -> str:
    """For a terminal."""
    objects = {each["layer"]: each for each in found["objects"]}
    named = {"override": objects["binding"], **objects}
    lines = [f"principal {plain(found['principal_key'])}, revision {found['revision']}, packet {found['digest'][:12]}"]
    if found["startup_id"] is not None:
        booted = f"startup {found['startup_id']} of {plain(found['component_key'])}, opened {found['opened_at']}"
        lines = [booted, *lines, "made again from its revision: the same to the byte"]
    lines.append("")
    for each in found["objects"]:
        manager = f", applied by {plain(each['manager'])}" if each["manager"] else ""
        since = f"served since revision {each['revision']}"
        named_ = f"{each['kind']} {plain(each['namespace'])}/{plain(each['name'])}"
        lines.append(f"{each['layer']:9} {named_} generation {each['generation']} uid {each['uid']}, {since}{manager}")
    lines.append("")
    for leaf in found["leaves"]:
        each = named[leaf["layer"]]
        default = " (default)" if leaf["default"] else ""
        lines.append(f"{plain(leaf['path'])} = {value(leaf['value'])}")
        lines.append(f"    {leaf['layer']}: {each['kind']} {plain(each['name'])} {plain(leaf['origin'])}{default}")
    return "\n".join(lines)


def history(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND/NAME]", help="principal, profile, manifest, binding or policy-profile, and its name."
        ),
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 20,
    output: Printed = Output.TEXT,
) -> None:
    """List what changed, newest first: everything, or one object; of a principal also what bound it.

    Example: metagate history manifest/prod --url http://127.0.0.1:8000 --key-file admin.key
    """
    asked = gate(url, key_file, token_file, ca_file, tenant)
    try:
        page = asked.get("/v1/admin/history", object=what, limit=limit)
    except Refused as error:
        raise told(error) from error
    if output is Output.JSON:
        print(json.dumps(page["items"], indent=2))
        return
    for each in page["items"]:
        print(_happening(each))
    if page["next_cursor"] is not None:
        say(f"older changes exist: --limit shows more than {limit}")


def _happening(each: dict[str, Any]) -> str:
    where = f"{plain(each['namespace'])}/" if each["namespace"] else ""
    manager = f" by {plain(each['manager'])}" if each["manager"] else ""
    served = each["served_generation"]
    kept = f", generation {served} stays served" if served not in {None, each["generation"]} else ""
    packet = f", packet {each['packet_digest'][:12]}" if each["packet_digest"] else ""
    return (
        f"{each['revision']:>6}  {each['changed_at']}  {each['how']:8} {each['kind']} {where}{plain(each['name'])} "
        f"generation {each['generation']}{kept}{packet}{manager}"
    )


def diff(
    first: Revision,
    second: Revision,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    output: Printed = Output.TEXT,
) -> None:
    """Say how the declared objects of two revisions differ, path by path. Exit 0 whether or not they do.

    Example: metagate diff 41 42 --url http://127.0.0.1:8000 --key-file admin.key
    """
    from metagate_crds.telling import pointer

    asked = gate(url, key_file, token_file, ca_file, tenant)
    before, after = _objects(asked, first), _objects(asked, second)
    found: list[dict[str, Any]] = []
    for key in sorted(before.keys() | after.keys()):
        changes = _changes(before.get(key), after.get(key))
        if changes:
            how = "added" if key not in before else "removed" if key not in after else "changed"
            told_ = [{"path": pointer(path), **sides} for path, sides in changes]
            found.append({"kind": key[0], "namespace": key[1], "name": key[2], "how": how, "differences": told_})
    if output is Output.JSON:
        print(json.dumps(found, indent=2))
        return
    for each in found:
        print(f"{each['how']} {each['kind']} {plain(each['namespace'])}/{plain(each['name'])}")
        for change in each["differences"]:
            for mark, side in (("-", "before"), ("+", "after")):
                if side in change:
                    print(f"  {mark} {plain(change['path'])}: {value(change[side])}")
    if not found:
        say("no difference")


def _changes(before: Any, after: Any) -> list[tuple[Any, dict[str, Any]]]:
    from metagate_crds.planning import ABSENT, differences

    sides = [None if each is None else json.dumps({"spec": each["spec"]}).encode() for each in (before, after)]
    return [
        (one.path, {n: v for n, v in (("before", one.before), ("after", one.after)) if v is not ABSENT})
        for one in differences(*sides)
    ]


def rollback(
    revision: Revision,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    all_: Annotated[bool, typer.Option("--all", help="Also what is the same now.")] = False,
) -> None:
    """Print the declared objects as they were at a revision, for you to apply. Nothing is changed by this.

    Objects that did not exist then are named in comments. Only valid versions are remembered; TokenIssuers are not a
    tenant's, and are left out.

    Example: metagate rollback 41 --url … --key-file admin.key | kubectl apply -f -
    """
    import yaml

    from metagate_cli.current import declaration
    from metagate_crds.telling import resource

    asked = gate(url, key_file, token_file, ca_file, tenant)
    then, now = _objects(asked, revision), _objects(asked, None)
    print(f"# Declared at revision {revision}. Look at it, then apply it; nothing was changed by printing it.")
    for key in sorted(now.keys() - then.keys()):
        print(f"# not declared then: {plain(key[0])} {plain(key[1])}/{plain(key[2])}; remove it if it should be gone")
    wanted = [each for key, each in sorted(then.items()) if all_ or key not in now or now[key]["spec"] != each["spec"]]
    for each in wanted:
        # ASCII, so that no name or value does anything but be read
        yaml.safe_dump(
            resource(declaration(each)), sys.stdout, sort_keys=False, explicit_start=True, allow_unicode=False
        )
    if not wanted:
        print("# Everything declared then is declared so now.")


def _objects(asked: Gate, revision: int | None) -> dict[tuple[str, str, str], dict[str, Any]]:
    try:
        found = asked.items("/v1/admin/history/objects", revision=revision)
        return {(each["kind"], each["namespace"], each["name"]): each for each in found}
    except Refused as error:
        raise told(error) from error
