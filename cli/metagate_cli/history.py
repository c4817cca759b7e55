"""`metagate history`, `diff` and `rollback`: what changed, how revisions differ, how it was."""

from __future__ import annotations

import json
import re
import sys
from datetime import UTC, datetime
from typing import Annotated, Any, Final

import typer

from metagate_cli.api_client import ApiClient, ApiError, CaFile, KeyFile, Tenant, TokenFile, Url, connect, stop_for
from metagate_cli.output import (
    NO_LIMIT,
    VALUE_LIMIT,
    OutputFormat,
    OutputOption,
    json_line,
    safe_text,
    structured,
    table,
)
from metagate_cli.terminal import FAILURE, Stop, colored, print_note, progress

Revision = Annotated[int, typer.Argument(min=1, help="A revision, as history and packets name it.")]
_KINDS: Final = ("principal", "profile", "manifest", "binding", "policy-profile", "problemata", "plan-template")
_OBJECT: Final = re.compile(rf"({'|'.join(_KINDS)})/[a-z0-9][-.a-z0-9]{{0,252}}")


def history(
    what: Annotated[
        str | None,
        typer.Argument(
            metavar="[KIND/NAME]",
            help="principal, profile, manifest, binding, policy-profile, problemata or plan-template, and its name.",
        ),
    ] = None,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    limit: Annotated[int, typer.Option(min=1, max=500, help="At most so many, newest first.")] = 20,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """List what changed, newest first: everything, or one object; of a principal also what bound it."""
    if what is not None and _OBJECT.fullmatch(what) is None:
        raise Stop(f"history of what? KIND/NAME, like manifest/prod; KIND is {', '.join(_KINDS)}", code=FAILURE)
    api = connect(url, key_file, token_file, ca_file, tenant)
    try:
        with progress("asking"):
            page = api.get("/v1/admin/history", object=what, limit=limit)
    except ApiError as error:
        raise stop_for(error) from error
    if what is not None and not page["items"]:
        raise Stop(f"{what}: there is none, and there never was (`metagate history` lists all)", code=FAILURE)
    if output.structured:
        print(structured(page["items"], output))
        return
    wide = output is OutputFormat.WIDE
    headings = [
        "REVISION",
        "CHANGED",
        "HOW",
        "OBJECT",
        "GENERATION",
        "APPLIED BY",
        *(["PACKET", "UID"] if wide else []),
    ]
    rows = [_event_row(item, wide=wide) for item in page["items"]]
    print(table(headings, rows, NO_LIMIT if wide else None))
    if page["next_cursor"] is not None:
        print_note(f"older changes exist: --limit shows more than {limit}")


def _event_row(event: dict[str, Any], *, wide: bool) -> list[str]:
    where = f"{safe_text(event['namespace'])}/" if event["namespace"] else ""
    served = event["served_generation"]
    kept = f" ({served} stays served)" if served not in {None, event["generation"]} else ""
    row = [
        str(event["revision"]),
        str(event["changed_at"]) if wide else _to_the_second(event["changed_at"]),
        str(event["how"]),
        f"{event['kind']} {where}{safe_text(event['name'])}",
        f"{event['generation']}{kept}",
        safe_text(event["manager"] or "-"),
    ]
    return [*row, event["packet_digest"] or "-", str(event["uid"])] if wide else row


def _to_the_second(moment: str) -> str:
    return datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def diff(
    first: Revision,
    second: Revision,
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    output: OutputOption = OutputFormat.TABLE,
) -> None:
    """Say how the declared objects of two revisions differ, path by path. Exit 0 whether or not they do."""
    from metagate_crds.plan.serialization import json_pointer

    api = connect(url, key_file, token_file, ca_file, tenant)
    with progress("asking"):
        before, after = _objects(api, first), _objects(api, second)
    changed_objects: list[dict[str, Any]] = []
    for key in sorted(before.keys() | after.keys()):
        changes = _changes(before.get(key), after.get(key))
        if changes:
            how = "added" if key not in before else "removed" if key not in after else "changed"
            differences_ = [{"path": json_pointer(path), **sides} for path, sides in changes]
            changed_objects.append(
                {"kind": key[0], "namespace": key[1], "name": key[2], "how": how, "differences": differences_}
            )
    if output.structured:
        print(structured(changed_objects, output))
        return
    for item in changed_objects:
        print(colored(f"{item['how']} {item['kind']} {safe_text(item['namespace'])}/{safe_text(item['name'])}", "bold"))
        for change in item["differences"]:
            for mark, side, style in (("-", "before", "red"), ("+", "after", "green")):
                if side in change:
                    shown = json_line(change[side], None if output is OutputFormat.WIDE else VALUE_LIMIT)
                    print(colored(f"  {mark} {safe_text(change['path'])}: {shown}", style))
    if not changed_objects:
        print_note("no difference")


def _changes(before: Any, after: Any) -> list[tuple[Any, dict[str, Any]]]:
    from metagate_crds.plan.packet_diff import ABSENT, diff_packets

    sides = [None if item is None else json.dumps({"spec": item["spec"]}).encode() for item in (before, after)]
    return [
        (
            difference.path,
            {n: v for n, v in (("before", difference.before), ("after", difference.after)) if v is not ABSENT},
        )
        for difference in diff_packets(*sides)
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

    from metagate_cli.current_state import declared_from_item
    from metagate_crds.plan.serialization import resource_to_dict

    api = connect(url, key_file, token_file, ca_file, tenant)
    with progress("asking"):
        then, now = _objects(api, revision), _objects(api, None)
    print(f"# Declared at revision {revision}. Look at it, then apply it; nothing was changed by printing it.")
    for key in sorted(now.keys() - then.keys()):
        kind, namespace, name = map(safe_text, key)
        print(f"# not declared then: {kind} {namespace}/{name}; remove it if it should be gone")
    objects = [item for key, item in sorted(then.items()) if all_ or key not in now or now[key]["spec"] != item["spec"]]
    for item in objects:
        # ASCII, so that no name or value does anything but be read
        yaml.safe_dump(
            resource_to_dict(declared_from_item(item)),
            sys.stdout,
            sort_keys=False,
            explicit_start=True,
            allow_unicode=False,
        )
    if not objects:
        print("# Everything declared then is served so now; --all prints it, to mend what was broken since.")


def _objects(api: ApiClient, revision: int | None) -> dict[tuple[str, str, str], dict[str, Any]]:
    try:
        items = api.items("/v1/admin/history/objects", revision=revision, key_digests="true")
        return {(item["kind"], item["namespace"], item["name"]): item for item in items}
    except ApiError as error:
        raise stop_for(error, f"revision {revision}", "`metagate history` lists them") from error
