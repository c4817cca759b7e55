"""The gates that DeleGate asks, over HTTP with the tenant's credential: the ledger, DepotGate, AsyncGate, InterroGate.

Whatever is sent may be sent again: ids are derived from the plan's (DG-04), so a repeat is a replay. A gate that cannot
be reached, is overloaded, or does not take a credential that MetaGate publishes as good counts as away: a 503 that
names it. What a gate refuses otherwise is a `GateRefused`, for the caller to judge.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote, urlencode

import httpx2

from delegate import metrics
from delegate.credentials import ServedTenant
from delegate.problem_codes import Code
from delegate.settings import Settings
from legivellum.base.settings import UnusableSettingError
from legivellum.http import strict_json
from legivellum.http.problems import Problem, RequestRefused

PLAN_MEDIA_TYPE: Final = "application/vnd.legivellum.plan+json"
LARGEST_ANSWER: Final = 4 * 1_024 * 1_024
_BATCH_RECEIPTS: Final = 256
_BATCH_BYTES: Final = 480 * 1_024
_LOOKED_UP: Final = 256
_PAGE: Final = 500
_REPEATS: Final = 2
_CREDENTIAL_REFUSALS: Final = frozenset({"PRINCIPAL_UNKNOWN", "PRINCIPAL_SUSPENDED"})

GateName = Literal["memorygate", "depotgate", "asyncgate", "interrogate"]


class GateAway(RequestRefused):
    """A gate gave no usable answer: 503, and it is named. Nothing is known of what it did with the request."""

    def __init__(self, gate: GateName, why: str = "cannot be reached", *, retry_after: int | None = None) -> None:
        super().__init__(Problem(Code.UNAVAILABLE, f"{gate} {why}.", retry_after=retry_after))
        self.gate = gate


class GateRefused(Exception):  # noqa: N818 - what another gate decided, not an error of this one
    """A gate understood the request and refuses it."""

    def __init__(self, gate: GateName, status: int, code: str, detail: str) -> None:
        super().__init__(f"{gate}: {status} {code}")
        self.gate = gate
        self.status = status
        self.code = code
        self.detail = detail


@dataclass(frozen=True, slots=True)
class ReceiptAnswer:
    """What became of one receipt. `refusal`: the ledger's code; None where it is stored, now or before."""

    refusal: str | None
    detail: str
    replayed: bool
    receipt_id: str
    stored_at: str


@dataclass(frozen=True, slots=True)
class ObligationState:
    """An obligation as the ledger has it; one that nobody opened has state None."""

    obligation_id: str
    state: str | None
    custodian: str | None
    opened_by: str | None
    closed_by: str | None
    task_id: str | None = None
    root_task_id: str | None = None
    principal_ai: str | None = None

    @property
    def is_open(self) -> bool:
        return self.state == "open"


@dataclass(frozen=True, slots=True)
class StoredPlan:
    """The artifact of a plan. `body` is what DepotGate keeps, whoever stored it first (DG-06)."""

    pointer: str
    sha256: str
    location: str
    receipt_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class TaskAnswer:
    """AsyncGate's answer for one task of a batch."""

    task_id: str
    status: int
    code: str | None
    detail: str

    @property
    def refused(self) -> bool:
        return self.status >= 400


@dataclass(frozen=True, slots=True)
class AdmissionVerdict:
    """InterroGate's decision, and its receipt."""

    allowed: bool
    receipt_id: str
    reason_code: str | None
    detail: str


class GateClients:
    """One per process. Every method takes the tenant whose credential is sent; each raises GateAway and GateRefused."""

    def __init__(self, settings: Settings) -> None:
        self._urls: Mapping[GateName, str] = {
            "memorygate": settings.memorygate_url.rstrip("/"),
            "depotgate": settings.depotgate_url.rstrip("/"),
            "asyncgate": settings.asyncgate_url.rstrip("/"),
            "interrogate": settings.interrogate_url.rstrip("/"),
        }
        self._seconds = settings.gate_ms / 1_000
        # No proxy, no `.netrc`, no cookie: nothing of the environment goes to a gate.
        self._client = httpx2.AsyncClient(
            trust_env=False,
            verify=_trust(settings),
            follow_redirects=False,
            timeout=None,
            limits=httpx2.Limits(max_connections=None, max_keepalive_connections=64, keepalive_expiry=10),
            headers={"user-agent": f"delegate/{settings.version}", "accept-encoding": "identity"},
        )

    async def close(self) -> None:
        await self._client.aclose()

    # --- the ledger

    async def post_receipts(self, tenant: ServedTenant, receipts: Sequence[bytes]) -> list[ReceiptAnswer]:
        """One answer for each, in their order; the receipts are JSON as it is sent."""
        answers: list[ReceiptAnswer] = []
        for part in _parts(receipts):
            body = b'{"receipts":[%s]}' % b",".join(part)
            answer = await self._ask("memorygate", tenant, "POST", "/receipts/batch", body)
            with decoding("memorygate"):
                answers += [_receipt_answer(item) for item in _items(answer, len(part))]
        return answers

    async def receipt(self, tenant: ServedTenant, receipt_id: str) -> Mapping[str, Any] | None:
        """A receipt of the tenant."""
        return await self._read("memorygate", tenant, f"/receipts/{_segment(receipt_id)}")

    async def task_receipts(self, tenant: ServedTenant, task_id: str) -> list[Mapping[str, Any]]:
        """All receipts of a task, by ledger time."""
        path = f"/receipts/task/{_segment(task_id)}"
        return [item async for item in self._pages("memorygate", tenant, path, {})]

    async def obligations(self, tenant: ServedTenant, obligation_ids: Sequence[str]) -> list[ObligationState]:
        """One for each, in their order: whether it is open, and with whom."""
        states: list[ObligationState] = []
        for start in range(0, len(obligation_ids), _LOOKED_UP):
            part = obligation_ids[start : start + _LOOKED_UP]
            answer = await self._ask(
                "memorygate", tenant, "POST", "/v1/obligations/lookup", strict_json.encode({"obligation_ids": part})
            )
            with decoding("memorygate"):
                states += [_obligation_state(item) for item in _items(answer, len(part))]
        return states

    async def inbox(self, tenant: ServedTenant, **filters: str) -> list[Mapping[str, Any]]:
        """All open obligations in this delegate's custody."""
        return [item async for item in self._pages("memorygate", tenant, "/inbox", filters)]

    async def inbox_page(
        self, tenant: ServedTenant, *, limit: int, cursor: str | None, **filters: str
    ) -> tuple[list[Mapping[str, Any]], str | None]:
        """A page of them, and the cursor of the next one."""
        query = {**filters, "limit": str(limit), **({} if cursor is None else {"cursor": cursor})}
        answer = await self._ask("memorygate", tenant, "GET", f"/inbox?{urlencode(query)}")
        with decoding("memorygate"):
            return answer["items"], answer["next_cursor"]

    # --- DepotGate

    async def deposit_plan(
        self, tenant: ServedTenant, *, plan_id: str, artifact_id: str, body: bytes, caused_by_receipt_id: str
    ) -> StoredPlan:
        """Keep the plan. Where another one is kept under the id already, that one is what is returned (DG-06)."""
        query = urlencode(
            {
                "role": "plan",
                "task_id": plan_id,
                "artifact_id": artifact_id,
                "caused_by_receipt_id": caused_by_receipt_id,
                "name": "plan.json",
            }
        )
        try:
            answer = await self._ask(
                "depotgate", tenant, "POST", f"/artifacts?{query}", body, media_type=PLAN_MEDIA_TYPE
            )
        except GateRefused as refused:
            if refused.code != "ARTIFACT_CONFLICT":
                raise
            stored = await self.stored_plan(tenant, plan_id=plan_id, artifact_id=artifact_id)
            if stored is None:
                raise
            return stored
        with decoding("depotgate"):
            return StoredPlan(answer["pointer"], answer["sha256"], answer["location"], answer["receipt_id"], body)

    async def stored_plan(self, tenant: ServedTenant, *, plan_id: str, artifact_id: str) -> StoredPlan | None:
        """The plan that is kept under the id; None where none is."""
        pages = self._pages("depotgate", tenant, "/artifacts", {"task_id": plan_id, "role": "plan"})
        async for manifest in pages:
            with decoding("depotgate"):
                pointer, sha256, receipt_id = (manifest[name] for name in ("pointer", "sha256", "receipt_id"))
            if pointer.split(":")[1:2] == [artifact_id]:
                body = await self.plan_body(tenant, pointer)
                if body is None:
                    return None
                receipt = await self.receipt(tenant, receipt_id)
                location = "" if receipt is None else receipt.get("artifact_location", "")
                return StoredPlan(pointer, sha256, location, receipt_id, body)
        return None

    async def plan_body(self, tenant: ServedTenant, pointer: str) -> bytes | None:
        """The bytes of an artifact; None where there is none, or it was retired."""
        try:
            body = await self._call("depotgate", tenant, "GET", f"/artifacts/{_segment(pointer)}")
        except GateRefused as refused:
            if refused.status in {404, 410}:
                return None
            raise
        # What is minted is what the plan receipt names: bytes of another digest are no plan of anybody's.
        if hashlib.sha256(body).hexdigest() != pointer.rpartition(":")[2]:
            raise GateAway("depotgate", "answered other bytes than those of the pointer")
        return body

    # --- AsyncGate

    async def check_tasks(self, tenant: ServedTenant, tasks: Sequence[Mapping[str, Any]]) -> list[TaskAnswer]:
        """Whether AsyncGate would take them; it stores nothing."""
        answers: list[TaskAnswer] = []
        for start in range(0, len(tasks), _LOOKED_UP):
            items = [{"task": task} for task in tasks[start : start + _LOOKED_UP]]
            answers += await self._batch(tenant, {"items": items, "check": True})
        return answers

    async def enqueue(
        self, tenant: ServedTenant, tasks: Sequence[Mapping[str, Any]], admissions: Sequence[str] = ()
    ) -> list[TaskAnswer]:
        """Hand over all of them or none. `admissions`: a receipt for each task, or none at all."""
        items: list[dict[str, Any]] = [{"task": task} for task in tasks]
        if admissions:
            items = [{**item, "admission": admission} for item, admission in zip(items, admissions, strict=True)]
        return await self._batch(tenant, {"items": items, "all_or_none": True})

    async def revoke(self, tenant: ServedTenant, task_id: str, reason: str) -> None:
        """End a task that waits or runs."""
        body = strict_json.encode({"what": "task", "reason": reason})
        await self._ask("asyncgate", tenant, "POST", f"/tasks/{_segment(task_id)}/revoke", body)

    async def _batch(self, tenant: ServedTenant, body: Mapping[str, Any]) -> list[TaskAnswer]:
        answer = await self._ask("asyncgate", tenant, "POST", "/tasks/batch", strict_json.encode(body))
        tasks = [item["task"]["task_id"] for item in body["items"]]
        with decoding("asyncgate"):
            answers = [
                TaskAnswer(task_id, int(result["status"]), result.get("code"), result.get("detail", ""))
                for task_id, result in zip(tasks, answer["items"], strict=True)
            ]
        for task in answers:
            # An item fails for itself where the gate could not judge it: that is no verdict on the plan.
            if task.status >= 500 or task.status == 429:
                raise GateAway("asyncgate", "could not judge a task")
        return answers

    # --- InterroGate

    async def admit(self, tenant: ServedTenant, envelope: Mapping[str, Any], payload: bytes) -> AdmissionVerdict:
        """Ask for a decision on the payload, which is sent byte for byte. "Too often" is no verdict: GateAway.

        Without a key: an admitted task is answered as it was however late it is asked for again, and what was refused
        for being asked too often is decided anew. Under a key that refusal would be remembered for a day.
        """
        body = strict_json.encode(envelope)[:-1] + b',"payload":' + payload + b"}"
        status, content, retry_after = await self._exchange(
            "interrogate", tenant, "POST", "/v1/evaluate", body, headers={}
        )
        decision = _json("interrogate", content)
        # Also 502 is an admission: only a target that was called did not answer.
        if "outcome" not in decision:
            raise _refusal("interrogate", status, decision, retry_after)
        if decision.get("reason_code") == "RATE_LIMITED":
            raise GateAway("interrogate", "is asked too often", retry_after=retry_after)
        allowed = decision["outcome"] == "ALLOW"
        with decoding("interrogate"):
            return AdmissionVerdict(
                allowed, decision["receipt_id"], decision.get("reason_code"), decision.get("detail") or ""
            )

    # --- how they are asked

    async def _pages(
        self, gate: GateName, tenant: ServedTenant, path: str, query: Mapping[str, str]
    ) -> AsyncIterator[Mapping[str, Any]]:
        cursor: str | None = None
        while True:
            asked = {**query, "limit": str(_PAGE), **({} if cursor is None else {"cursor": cursor})}
            page = await self._ask(gate, tenant, "GET", f"{path}?{urlencode(asked)}")
            with decoding(gate):
                items, cursor = [*page["items"]], page["next_cursor"]
            for item in items:
                yield item
            if cursor is None:
                return

    async def _read(self, gate: GateName, tenant: ServedTenant, path: str) -> Mapping[str, Any] | None:
        try:
            return await self._ask(gate, tenant, "GET", path)
        except GateRefused as refused:
            if refused.status == 404:
                return None
            raise

    async def _ask(
        self,
        gate: GateName,
        tenant: ServedTenant,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = "application/json",
    ) -> dict[str, Any]:
        return _json(gate, await self._call(gate, tenant, method, path, body, media_type=media_type))

    async def _call(
        self,
        gate: GateName,
        tenant: ServedTenant,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        media_type: str = "application/json",
    ) -> bytes:
        headers = {} if body is None else {"content-type": media_type}
        status, content, retry_after = await self._exchange(gate, tenant, method, path, body, headers=headers)
        if 200 <= status < 300:
            return content
        raise _refusal(gate, status, _json(gate, content), retry_after)

    async def _exchange(
        self,
        gate: GateName,
        tenant: ServedTenant,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str],
    ) -> tuple[int, bytes, int | None]:
        """Status, body and Retry-After. Raises GateAway."""
        sent = {"content-type": "application/json", **headers, **tenant.headers}
        began = time.perf_counter()
        outcome = "away"
        try:
            async with asyncio.timeout(self._seconds):
                answer = await self._repeated(gate, method, self._urls[gate] + path, body, sent)
            outcome = str(answer[0])
        except TimeoutError:
            raise GateAway(gate, "did not answer in time") from None
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise GateAway(gate) from error
        else:
            return answer
        finally:
            metrics.GATE_CALLS.labels(gate, outcome).inc()
            metrics.GATE_SECONDS.labels(gate).observe(time.perf_counter() - began)

    async def _repeated(
        self, gate: GateName, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, int | None]:
        """A kept connection that the gate closed meanwhile is no outage: the same request goes out on another one."""
        for left in reversed(range(_REPEATS)):
            try:
                return await self._send(gate, method, url, body, headers)
            except (httpx2.ReadError, httpx2.WriteError, httpx2.RemoteProtocolError):
                if not left:
                    raise
        raise AssertionError("unreachable")

    async def _send(
        self, gate: GateName, method: str, url: str, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, bytes, int | None]:
        content = bytearray()
        async with self._client.stream(method, url, content=body, headers=headers) as response:
            async for part in response.aiter_raw():
                content += part
                if len(content) > LARGEST_ANSWER:
                    raise GateAway(gate, "answered more than may be believed")
            retry_after = response.headers.get("retry-after", "")
        return response.status_code, bytes(content), _whole_seconds(retry_after)


def _trust(settings: Settings) -> ssl.SSLContext:
    """Raises OSError, UnusableSettingError: before anything is served."""
    if settings.gates_ca_file is None:
        return ssl.create_default_context()
    content = Path(settings.gates_ca_file).read_text(encoding="ascii", errors="replace")
    try:
        return ssl.create_default_context(cadata=content)
    except ssl.SSLError:
        name = settings.variable("gates_ca_file")
        raise UnusableSettingError(f"{name}: {settings.gates_ca_file} holds no certificates in PEM") from None


def _whole_seconds(text: str) -> int | None:
    """Of Retry-After. A date there, or more than a day, is not handed on."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else None


@contextmanager
def decoding(gate: GateName) -> Iterator[None]:
    """An answer without the members that every answer of the gate has is none of the gate's."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise GateAway(gate, "did not answer as a gate does") from error


def _refusal(gate: GateName, status: int, problem: Mapping[str, Any], retry_after: int | None) -> Exception:
    """What an answer that is no success means here."""
    code = str(problem.get("code", ""))
    if status == 401 or code in _CREDENTIAL_REFUSALS:
        # MetaGate publishes the credential as good, so this gate does not know it yet, or any more.
        return GateAway(gate, "does not accept the credential of this tenant's delegate now")
    if status == 429:
        return GateAway(gate, "is asked too often", retry_after=retry_after)
    if status >= 500 or not code:
        return GateAway(gate, "cannot answer now", retry_after=retry_after)
    return GateRefused(gate, status, code, str(problem.get("detail", "")))


def _json(gate: GateName, content: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise GateAway(gate, "did not answer as a gate does")
    return answer


def _items(answer: Mapping[str, Any], number: int) -> list[Mapping[str, Any]]:
    """One for each that was sent. Raises ValueError."""
    items: list[Mapping[str, Any]] = answer["items"]
    if len(items) != number:
        raise ValueError("another number of answers")
    return items


def _receipt_answer(item: Mapping[str, Any]) -> ReceiptAnswer:
    if item["status"] >= 500:
        raise GateAway("memorygate", "could not store a receipt")
    if item["status"] >= 400:
        return ReceiptAnswer(item["code"], item.get("detail", ""), replayed=False, receipt_id="", stored_at="")
    return ReceiptAnswer(None, "", item["replayed"], item["receipt_id"], item["stored_at"])


def _obligation_state(item: Mapping[str, Any]) -> ObligationState:
    names = ("state", "custodian", "opened_by", "closed_by", "task_id", "root_task_id", "principal_ai")
    return ObligationState(item["obligation_id"], **{name: item.get(name) for name in names})


def _parts(receipts: Sequence[bytes]) -> Iterator[list[bytes]]:
    """As many at once as the ledger takes, by number and by bytes."""
    part: list[bytes] = []
    size = 0
    for receipt in receipts:
        if part and (len(part) == _BATCH_RECEIPTS or size + len(receipt) > _BATCH_BYTES):
            yield part
            part, size = [], 0
        part.append(receipt)
        size += len(receipt) + 1
    if part:
        yield part


def _segment(text: str) -> str:
    return quote(text, safe="")
