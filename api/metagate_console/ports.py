"""What the console needs of the gate that mounts it."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from legivellum.http.edge import Observer
from legivellum.http.exchange import Exchange
from legivellum.http.problems import Problem, RequestRefused
from legivellum.identity.caller import Caller, VerificationContext
from metagate_store.history import Boot
from metagate_store.reader import Reader


class Explain(Protocol):
    """Why a packet is as it is, as `metagate explain` gives it. Raises Refused: BINDING_INCOMPLETE, NOT_REBUILT."""

    async def __call__(self, tenant: UUID, boot: Boot) -> Mapping[str, Any]: ...


Authenticate = Callable[[Exchange], Awaitable[Caller | RequestRefused]]
"""Who an exchange's headers speak for, as the gate's own doors decide it (401, 429 and 503 raised, 403 returned)."""


IsCurrent = Callable[[str, str | None, VerificationContext | None], bool]
"""Whether this gate would still accept a credential of this issuer ("" for a key) and key id, verified like this."""


@dataclass(frozen=True, slots=True)
class Ports:
    """`secret` signs cookies and is the same in every process that may be asked with them; `seconds` bounds an answer,
    `lifetime` (seconds) a session; `at_once`: how many connections of the gate's pool the pages may have together;
    `secure`: people reach the console over https only; `public_url`: where they reach it, "" when that is not known;
    `snapshot`: another value whenever anything was published or withdrawn; `streams`: told of each stream that begins
    (1) and ends (-1).
    """

    authenticate: Authenticate
    is_current: IsCurrent
    reader: Callable[[], Reader]
    explain: Explain
    problem: Callable[[Exception, Exchange | None], Problem]
    observe: Observer
    api_key_header: str
    secret: bytes
    seconds: float
    lifetime: int
    at_once: int
    secure: bool
    public_url: str
    snapshot: Callable[[], object]
    streams: Callable[[int], None]
