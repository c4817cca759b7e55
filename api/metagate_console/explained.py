"""A packet with the layer and the object that gave each of its values, for the pages that show one."""

from typing import Any, Final
from uuid import UUID

from legivellum.http.problems import Problem, RequestRefused
from metagate_console.page import PageRequest
from metagate_store.history import Boot

LEAVES: Final = 600
"""Lines of a packet that a page shows; more are told by the command line."""


async def explained_packet(request: PageRequest, tenant: UUID, boot: Boot | None) -> dict[str, Any]:
    """Packet and layers, or why there are none: a packet that cannot be made again is told loudly; the rest stays."""
    values: dict[str, Any] = {"boot": boot, "explained": None, "problem": None, "leaves": ()}
    if boot is None:
        return values
    try:
        explanation = await request.explain(tenant, boot)
    except RequestRefused as refused:
        return {**values, "problem": _only_of_packets(refused)}
    return {**values, "explained": explanation, "leaves": explanation["leaves"][:LEAVES]}


def _only_of_packets(refused: RequestRefused) -> Problem:
    if refused.problem.code.name not in {"NOT_REBUILT", "BINDING_INCOMPLETE"}:
        raise refused
    return refused.problem
