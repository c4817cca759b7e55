"""InterView of MetaGate: what is served in a tenant and how its startup sessions stand."""

from uuid import UUID

from legivellum.base.timestamps import rfc3339
from legivellum.gate.interview import Interview, InterviewHandler
from legivellum.http.exchange import Exchange
from metagate_api.callers import Caller
from metagate_api.gate import Gate
from metagate_api.request_parameters import revalidated
from metagate_store.rows import InterviewCounts


def interview_handler(gate: Gate) -> InterviewHandler:
    async def authenticate(exchange: Exchange) -> Caller:
        return await revalidated(gate, await gate.caller_authenticator.authenticate(exchange))

    async def ask(tenant: UUID) -> Interview:
        return _interview(await gate.reader.interview(tenant))

    return InterviewHandler("metagate", gate.settings.version, authenticate=authenticate, ask=ask)


def _interview(counted: InterviewCounts) -> Interview:
    counts = {
        "principals": counted.principals,
        "principals_suspended": counted.suspended,
        "bindings": counted.bindings,
        "bindings_incomplete": counted.unbound,
        "startups_open": counted.opened,
        "startups_overdue": counted.overdue,
        "startups_ready": counted.ready,
        "startups_failed": counted.failed,
    }
    # Many sessions are not all counted: the numbers are those of the newest, and the reader has to know since when.
    since = counted.counted_since
    notes = [] if since is None else [f"Startups are counted from {rfc3339(since)} on."]
    return Interview(counted.at, counts, {"startups_open": counted.oldest_open}, notes)
