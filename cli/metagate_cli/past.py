"""`metagate history`, `diff` and `rollback`: what changed, how revisions differ, how it was."""

from __future__ import annotations

import json
import re
import sys
from typing import Annotated, Any, Final

import typer

from metagate_cli.asking import CaFile, Gate, KeyFile, Refused, Tenant, TokenFile, Url, gate, told
from metagate_cli.output import Output, Printed, structured, table
from metagate_cli.plain import LONGEST, plain, value
from metagate_cli.terminal import FOUND, Stop, painted, say, working

Revision = Annotated[int, typer.Argument(min=1, help="A revision, as history and packets name it.")]
_KINDS: Final = ("principal", "profile", "manifest", "binding", "policy-profile")
_OBJECT: Final = re.compile(rf"({'|'.join(_KINDS)})/[a-z0-9][-.a-z0-9]{{0,252}}")
_DIGEST: Final = 12


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
    output: Printed = Output.TABLE,
) -> None:
    """List what changed, newest first: everything, or one object; of a principal also what bound it."""
    if what is not None and _OBJECT.fullmatch(what) is None:
        raise Stop(f"history of what? KIND/NAME, like manifest/prod; KIND is {', '.join(_KINDS)}", code=FOUND)
    asked = gate(url, key_file, token_file, ca_file, tenant)
    try:
        with working("asking"):
            page = asked.get("/v1/admin/history", object=what, limit=limit)
    except Refused as error:
        raise told(error) from error
    if output.structured:
        print(structured(page["items"], output))
        return
    wide = output is Output.WIDE
    headings = ["REVISION", "CHANGED", "HOW", "OBJECT", "GENERATION", "PACKET", "APPLIED BY"]
    print(table([*headings, "UID"] if wide else headings, [_happening(each, wide=wide) for each in page["items"]]))
    if page["next_cursor"] is not None:
        say(f"older changes exist: --limit shows more than {limit}")


def _happening(each: dict[str, Any], *, wide: bool) -> list[str]:
    where = f"{plain(each['namespace'])}/" if each["namespace"] else ""
    served = each["served_generation"]
    kept = f" ({served} stays served)" if served not in {None, each["generation"]} else ""
    packet = each["packet_digest"] or "-"
    row = [
        str(each["revision"]),
        str(each["changed_at"]),
        str(each["how"]),
        f"{each['kind']} {where}{plain(each['name'])}",
        f"{each['generation']}{kept}",
        packet if wide else packet[:_DIGEST],
        plain(each["manager"] or "-"),
    ]
    return [*row, str(each["uid"])] if wide else row


def diff(
    first: Revision,
    second: Revision,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    output: Printed = Output.TABLE,
) -> None:
    """Say how the declared objects of two revisions differ, path by path. Exit 0 whether or not they do."""
    from metagate_crds.telling import pointer

    asked = gate(url, key_file, token_file, ca_file, tenant)
    with working("asking"):
        before, after = _objects(asked, first), _objects(asked, second)
    found: list[dict[str, Any]] = []
    for key in sorted(before.keys() | after.keys()):
        changes = _changes(before.get(key), after.get(key))
        if changes:
            how = "added" if key not in before else "removed" if key not in after else "changed"
            told_ = [{"path": pointer(path), **sides} for path, sides in changes]
            found.append({"kind": key[0], "namespace": key[1], "name": key[2], "how": how, "differences": told_})
    if output.structured:
        print(structured(found, output))
        return
    for each in found:
        print(painted(f"{each['how']} {each['kind']} {plain(each['namespace'])}/{plain(each['name'])}", "bold"))
        for change in each["differences"]:
            for mark, side, style in (("-", "before", "red"), ("+", "after", "green")):
                if side in change:
                    shown = value(change[side], None if output is Output.WIDE else LONGEST)
                    print(painted(f"  {mark} {plain(change['path'])}: {shown}", style))
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
    """
    import yaml

    from metagate_cli.current import declaration
    from metagate_crds.telling import resource

    asked = gate(url, key_file, token_file, ca_file, tenant)
    with working("asking"):
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
        print("# Everything declared then is served so now; --all prints it, to mend what was broken since.")


def _objects(asked: Gate, revision: int | None) -> dict[tuple[str, str, str], dict[str, Any]]:
    try:
        found = asked.items("/v1/admin/history/objects", revision=revision, key_digests="true")
        return {(each["kind"], each["namespace"], each["name"]): each for each in found}
    except Refused as error:
        raise told(error) from error
