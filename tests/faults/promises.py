"""The promises I1…I11 of a history, each a pure function that says what broke it (docs/faults.md has their wording)."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tests.faults.history import BROKEN, HUNG, RecordedCall, RequestHistory, StoredSession, percentile


@dataclass(frozen=True, slots=True)
class Bounds:
    """What a row may ask for. Seconds; bytes. `breaks`: connections may break (somebody killed what they led to).

    `deadline` None: requests could not be answered in time by the nature of the fault (the gate itself was stopped).
    `lost`: acknowledged sessions that the row allows to be lost (an asynchronous replica without its tail).
    """

    deadline: float | None = 0.5
    slack: float = 0.1
    recovery: float = 5.0
    success: float = 0.99
    rss: int = 96 << 20
    connections: int = 24
    files: int = 400
    breaks: bool = False
    lost: bool = False


@dataclass(frozen=True, slots=True)
class FaultFigures:
    """What the tables show. Seconds."""

    calls: int
    acked: int
    refused: int
    lost: int
    duplicate: int
    mixed: int
    unacked: int
    replayed: int
    worst: float
    worst_wall: float
    recovery: float


def lost(history: RequestHistory) -> Iterator[str]:
    """I1: every acknowledged bootstrap is stored, for the same principal, component and packet."""
    stored = {session.startup_id: session for session in history.stored}
    for call in _boots(history):
        session = stored.get(call.answer["startup_id"])
        if session is None:
            yield f"{call.key}: acknowledged as {call.answer['startup_id']}, and not stored"
        elif (session.client, session.component) != (call.client, call.key):
            yield f"{call.key}: stored for {session.client} and {session.component}, not for {call.client}"
        elif call.answer.get("digest", session.digest) != session.digest:
            yield f"{call.key}: told {call.answer['digest']}, stored {session.digest}"


def duplicate(history: RequestHistory) -> Iterator[str]:
    """I2: one session per key, the same one for every answer; an unacknowledged commit is what a retry is given."""
    sessions: dict[tuple[str, str], list[StoredSession]] = defaultdict(list)
    for session in history.stored:
        sessions[session.client, session.component].append(session)
    for (client, key), result in sessions.items():
        if len(result) > 1:
            yield f"{client} {key}: {len(result)} sessions"
    answers: dict[tuple[str, str], set[str]] = defaultdict(set)
    for call in _boots(history):
        answers[call.client, call.key].add(call.answer["startup_id"])
    for (client, key), ids in answers.items():
        if len(ids) > 1:
            yield f"{client} {key}: answered as {len(ids)} different sessions"


def mixed(history: RequestHistory) -> Iterator[str]:
    """I3: each packet is of one revision, a revision is one packet for a client, and it never goes backwards for it."""
    editions: dict[tuple[str, int], str] = {}
    clients: dict[str, list[RecordedCall]] = defaultdict(list)
    for call in _boots(history):
        if len(set(call.answer.get("marks", ()))) > 1:
            yield f"{call.key}: a packet of several editions {call.answer['marks']}"
        if call.answer.get("whole") is False:
            yield f"{call.key}: the packet is not what its digest says"
        if "revision" not in call.answer:
            continue
        digest = editions.setdefault((call.client, call.answer["revision"]), call.answer["digest"])
        if digest != call.answer["digest"]:
            yield f"{call.key}: revision {call.answer['revision']} is two packets"
        if not call.answer.get("replayed"):
            clients[call.client].append(call)
    for calls in clients.values():
        yield from _backwards(calls)


def _backwards(calls: list[RecordedCall]) -> Iterator[str]:
    """A call that began after another's answer may not see an older revision than it."""
    ended = sorted(calls, key=lambda call: call.end)
    newest, at = 0, 0
    for call in sorted(calls, key=lambda call: call.start):
        while at < len(ended) and ended[at].end < call.start:
            newest = max(newest, ended[at].answer["revision"])
            at += 1
        if call.answer["revision"] < newest:
            yield f"{call.key}: revision {call.answer['revision']} after {newest} had been told"


def slow(history: RequestHistory, bounds: Bounds) -> Iterator[str]:
    """I4: every request is answered within the deadline; a refusal is 503 with a Retry-After of 1 to 10 seconds."""
    for call in history.calls:
        if call.status == HUNG:
            yield f"{call.operation} {call.key}: no answer after {call.end - call.start:.1f} s"
        elif call.status == BROKEN and not bounds.breaks:
            yield f"{call.operation} {call.key}: the connection broke ({call.answer.get('error')})"
        elif call.status == 503 and not 1 <= call.answer.get("retry_after", 0) <= 10:
            yield f"{call.operation} {call.key}: 503 with Retry-After {call.answer.get('retry_after')}"
        elif bounds.deadline is not None and call.seconds > bounds.deadline + bounds.slack:
            yield f"{call.operation} {call.key}: {call.status} after {call.seconds:.3f} s (stall {call.stall:.3f} s)"


def unrecovered(history: RequestHistory, bounds: Bounds) -> Iterator[str]:
    """I5: at most `recovery` seconds after the fault, nearly everything succeeds again."""
    if not _after(history):
        yield "nothing was asked after the fault"
    elif (seconds := recovery(history, bounds.success)) > bounds.recovery:
        yield f"recovered {seconds:.1f} s after the fault"


def recovery(history: RequestHistory, success: float = 0.99) -> float:
    """Seconds from the end of the fault until calls succeed for good; infinite when they never do."""
    calls = sorted(_after(history), key=lambda call: call.start)
    failed = sum(not _well(call) for call in calls)
    since = history.fault[1]
    for at, call in enumerate(calls):
        remaining = len(calls) - at
        if remaining - failed >= success * remaining:
            return max(0.0, call.start - since) if at else 0.0
        failed -= not _well(call)
    return float("inf") if calls else 0.0


def open_to_strangers(history: RequestHistory) -> Iterator[str]:
    """I6: who is nobody, or asks nonsense, gets nothing and is told so; the only 5xx is 503."""
    for call in history.calls:
        if call.status >= 500 and call.status != 503:
            yield f"{call.operation} {call.key}: {call.status} {call.answer.get('code')}"
        if call.operation == "stranger" and call.status not in {
            HUNG,
            BROKEN,
            400,
            401,
            403,
            404,
            409,
            413,
            415,
            422,
            503,
        }:
            yield f"a stranger ({call.key}) was answered {call.status}"


def foreign(history: RequestHistory) -> Iterator[str]:
    """I7: nothing of another tenant in any answer."""
    owners = {session.startup_id: session.client.partition("/")[0] for session in history.stored}
    for call in history.calls:
        for tenant in call.answer.get("tenants", ()):
            if tenant != call.tenant:
                yield f"{call.operation} {call.key}: {call.tenant} was shown something of {tenant}"
        for startup in call.answer.get("startups", ()):
            if owners.get(startup, call.tenant) != call.tenant:
                yield f"{call.operation}: {call.tenant} was shown session {startup} of {owners[startup]}"


def rewritten(history: RequestHistory) -> Iterator[str]:
    """I8: a terminal state is written once, is the one that was acknowledged, and is late when it was."""
    stored = {session.startup_id: session for session in history.stored}
    answers: dict[str, set[tuple[str, str]]] = defaultdict(set)
    for call in history.calls:
        if call.operation in {"ready", "failed"} and call.acked:
            answers[call.key].add((call.operation.upper(), call.answer["acknowledged_at"]))
            session = stored.get(call.key)
            if session is None:
                yield f"{call.key}: {call.operation} was acknowledged, and no such session is stored"
            elif session.status != call.operation.upper():
                yield f"{call.key}: {call.operation} was acknowledged, {session.status} is stored"
            elif call.answer.get("late", session.late) != session.late:
                yield f"{call.key}: told late={call.answer['late']}, stored late={session.late}"
    for startup, states in answers.items():
        if len(states) > 1:
            yield f"{startup}: acknowledged as {sorted(states)}"
    for session in history.stored:
        if session.acknowledged_at is not None and session.late != (session.acknowledged_at > session.deadline_at):
            yield f"{session.startup_id}: late={session.late}, {session.acknowledged_at} against {session.deadline_at}"


def ageless(history: RequestHistory) -> Iterator[str]:
    """I9: each packet says when it was compiled."""
    for call in _boots(history):
        if "revision" in call.answer and not call.answer.get("compiled_at"):
            yield f"{call.key}: a packet without its age"


def secrets_told(history: RequestHistory) -> Iterator[str]:
    """I10: no secret in what was logged, counted or stored."""
    for place, text in history.output.items():
        for number, secret in enumerate(history.secrets):
            if secret in text:
                yield f"secret {number} is in {place}"


def unbounded(history: RequestHistory, bounds: Bounds) -> Iterator[str]:
    """I11: memory, connections and files of the gate stay bounded."""
    if not history.samples:
        return
    first = history.samples[0]
    for what, most, limit in (
        ("bytes of memory more", max(sample.rss for sample in history.samples) - first.rss, bounds.rss),
        ("connections", max(sample.connections for sample in history.samples), bounds.connections),
        ("files", max(sample.files for sample in history.samples), bounds.files),
    ):
        if most > limit:
            yield f"{most} {what}, {limit} are allowed"


def broken(history: RequestHistory, bounds: Bounds | None = None) -> dict[str, list[str]]:
    """What broke each promise; a promise that held is not in it."""
    bounds = bounds or Bounds()
    judged: dict[str, Callable[[], Iterator[str]]] = {
        "I1": lambda: lost(history),
        "I2": lambda: duplicate(history),
        "I3": lambda: mixed(history),
        "I4": lambda: slow(history, bounds),
        "I5": lambda: unrecovered(history, bounds),
        "I6": lambda: open_to_strangers(history),
        "I7": lambda: foreign(history),
        "I8": lambda: rewritten(history),
        "I9": lambda: ageless(history),
        "I10": lambda: secrets_told(history),
        "I11": lambda: unbounded(history, bounds),
    }
    if bounds.lost:
        del judged["I1"], judged["I8"]
    return {name: items for name, judge in judged.items() if (items := list(judge()))}


def figures(history: RequestHistory) -> FaultFigures:
    answered = [call for call in history.calls if call.status not in {HUNG, BROKEN}]
    during = {call.answer["startup_id"] for call in _boots(history) if not call.settling}
    return FaultFigures(
        calls=len(history.calls),
        acked=sum(call.acked for call in history.calls),
        refused=Counter(call.status for call in history.calls)[503],
        lost=len(list(lost(history))),
        duplicate=len(list(duplicate(history))),
        mixed=len(list(mixed(history))),
        unacked=sum(session.startup_id not in during for session in history.stored),
        replayed=sum(bool(call.answer.get("replayed")) for call in _boots(history)),
        worst=round(max((call.seconds for call in answered), default=0.0), 3),
        worst_wall=round(max((call.end - call.start for call in answered), default=0.0), 3),
        recovery=round(recovery(history), 2),
    )


def broken_of_any_gate(
    history: RequestHistory, bounds: Bounds, own: Mapping[str, Iterator[str]]
) -> dict[str, list[str]]:
    """What every gate promises, beside a gate's `own` promises, which are about what it stores."""
    judged = {
        **own,
        "I4": slow(history, bounds),
        "I5": unrecovered(history, bounds),
        "I6": open_to_strangers(history),
        "I10": secrets_told(history),
        "I11": unbounded(history, bounds),
    }
    return {name: items for name, sentences in judged.items() if (items := list(sentences))}


def figures_of_any_gate(
    history: RequestHistory, *, acked: int, lost: int, duplicate: int, unacked: int, replayed: int
) -> FaultFigures:
    answered = [call for call in history.calls if call.status not in {HUNG, BROKEN}]
    return FaultFigures(
        calls=len(history.calls),
        acked=acked,
        refused=sum(call.status == 503 for call in history.calls),
        lost=lost,
        duplicate=duplicate,
        mixed=0,
        unacked=unacked,
        replayed=replayed,
        worst=round(max((call.seconds for call in answered), default=0.0), 3),
        worst_wall=round(max((call.end - call.start for call in answered), default=0.0), 3),
        recovery=round(recovery(history), 2),
    )


def refusal_p99(history: RequestHistory) -> float:
    return percentile((call.seconds for call in history.calls if call.status == 503), 0.99)


def _boots(history: RequestHistory) -> list[RecordedCall]:
    return [call for call in history.calls if call.operation == "bootstrap" and call.acked]


def _after(history: RequestHistory) -> list[RecordedCall]:
    end = history.fault[1]
    return [call for call in history.calls if call.start >= end and not call.settling and call.operation != "stranger"]


def _well(call: RecordedCall) -> bool:
    return call.acked or call.status == 409
