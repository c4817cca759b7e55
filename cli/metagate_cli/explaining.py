"""`metagate explain`: why a packet says what it says, value by value."""

from __future__ import annotations

from typing import Annotated, Any, Final
from uuid import UUID

import typer

from metagate_cli.asking import CaFile, KeyFile, Refused, Tenant, TokenFile, Url, gate, told
from metagate_cli.output import Output, Printed, structured, table
from metagate_cli.plain import plain, value
from metagate_cli.terminal import FOUND, Stop, painted, working

_LONGEST: Final = 60
_DIGEST: Final = 12


def explain(
    what: Annotated[str, typer.Argument(metavar="principal/NAME|startup/ID", help="Whose packet.")],
    url: Url = None,
    key_file: KeyFile = None,
    token_file: TokenFile = None,
    ca_file: CaFile = None,
    tenant: Tenant = None,
    output: Printed = Output.TABLE,
) -> None:
    """Say for every value of a packet which layer gave it, which object, and who applied that.

    A startup's packet is made again from its revision and compared to the byte. Exit 1 when that cannot be done.
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
        with working("asking"):
            found = asked.get(f"/v1/admin/explain/{kind}/{name}")
    except Refused as error:
        if error.code == "NOT_REBUILT":
            raise Stop(f"THE ANSWER CANNOT BE REBUILT: {plain(error)}", code=FOUND) from error
        raise told(error) from error
    print(structured(found, output) if output.structured else explanation(found, wide=output is Output.WIDE))


def explanation(found: dict[str, Any], *, wide: bool = False) -> str:
    """For people: what was served, the objects it was made of, and each value with its origin."""
    objects = {each["layer"]: each for each in found["objects"]}
    named = {"override": objects["binding"], **objects}
    digest = found["digest"] if wide else found["digest"][:_DIGEST]
    lines = [f"principal {plain(found['principal_key'])}, revision {found['revision']}, packet {digest}"]
    if found["startup_id"] is not None:
        booted = f"startup {found['startup_id']} of {plain(found['component_key'])}, opened {found['opened_at']}"
        lines = [booted, *lines, painted("made again from its revision: the same to the byte", "green")]
    headings = ["LAYER", "OBJECT", "GENERATION", "SINCE REVISION", "APPLIED BY", "UID"]
    rows = [
        [
            each["layer"],
            f"{each['kind']} {plain(each['namespace'])}/{plain(each['name'])}",
            str(each["generation"]),
            str(each["revision"]),
            plain(each["manager"] or "-"),
            each["uid"],
        ]
        for each in found["objects"]
    ]
    leaves = [_leaf(leaf, named[leaf["layer"]], wide=wide) for leaf in found["leaves"]]
    values = table(["PATH", "VALUE", "LAYER", "FROM"], leaves)
    return "\n".join([*lines, "", table(headings, rows), "", values])


def _leaf(leaf: dict[str, Any], giver: dict[str, Any], *, wide: bool) -> list[str]:
    default = " (default)" if leaf["default"] else ""
    origin = f"{giver['kind']} {plain(giver['name'])} {plain(leaf['origin'])}{default}"
    return [plain(leaf["path"]), value(leaf["value"], None if wide else _LONGEST), leaf["layer"], origin]
