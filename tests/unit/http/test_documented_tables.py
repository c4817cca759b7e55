"""The tables of the documentation say what the code does: regenerate with `python -m tests.unit.http.test_documented_tables`."""

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic_core import PydanticUndefined

from asyncgate import problem_codes as asyncgate_codes
from asyncgate.gate import GATE as ASYNCGATE
from asyncgate.settings import Settings as AsyncGateSettings
from cognigate.gate import GATE as COGNIGATE
from cognigate.settings import Settings as CogniGateSettings
from delegate import problem_codes as delegate_codes
from delegate.gate import GATE as DELEGATE
from delegate.settings import Settings as DeleGateSettings
from depotgate import problem_codes as depotgate_codes
from depotgate.gate import GATE as DEPOTGATE
from depotgate.settings import Settings as DepotGateSettings
from interrogate import problem_codes as interrogate_codes
from interrogate.gate import GATE as INTERROGATE
from interrogate.settings import Settings as InterrogateSettings
from legivellum.gate.metrics import ServedMetrics
from legivellum.gate.settings import ServedGateSettings
from legivellum.http import problem_codes
from legivellum.http.endpoints import Endpoint
from legivellum.http.problem_codes import ProblemCode
from memorygate import problem_codes as memorygate_codes
from memorygate.gate import GATE as MEMORYGATE
from metagate_api import metrics
from metagate_api import problem_codes as metagate_codes
from metagate_api.endpoints import ENDPOINTS as METAGATE_ENDPOINTS
from metagate_api.settings import Settings, names

DOCS = Path(__file__).resolve().parents[3] / "docs"
END = "<!-- end of table -->"


def codes(*gates: type[problem_codes.Code]) -> list[str]:
    """The codes of the first class that the others have not."""
    own = gates[0].registered().keys() - {name for gate in gates[1:] for name in gate.registered()}
    rows = sorted((code for name, code in gates[0].registered().items() if name in own), key=lambda code: code.status)
    return [
        "| Status | Code | Title | When | What to do |",
        "|---|---|---|---|---|",
        *[f"| {code.status} | `{code}` | {code.title} | {code.meaning} | {code.remedy} |" for code in rows],
    ]


def endpoints(table: tuple[Endpoint, ...]) -> list[str]:
    lines = ["| Endpoint | Who | Purpose | Answers | Codes |", "|---|---|---|---|---|"]
    for endpoint in table:
        replies = ", ".join(str(reply.status) for reply in endpoint.replies)
        refusals = " ".join(f"`{code}`" for code in dict.fromkeys(endpoint.codes)) or "–"
        lines.append(f"| `{endpoint.key}` | {endpoint.auth} | {endpoint.summary} | {replies} | {refusals} |")
    return lines


def settings() -> list[str]:
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for field in Settings.model_fields.values():
        default = None if field.default is PydanticUndefined else field.default
        shown = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        shown = "(unset)" if shown is None else f"`{str(shown).lower() if isinstance(shown, bool) else shown}`"
        lines.append(f"| {', '.join(f'`{name}`' for name in names(field))} | {shown} | {field.description} |")
    return lines


def counted() -> list[str]:
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for family in sorted(
        (value for value in vars(metrics).values() if hasattr(value, "_documentation")), key=lambda one: one._name
    ):
        name = family._name + ("_total" if family._type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in family._labelnames) or "–"
        lines.append(f"| `{name}` | {family._type} | {labels} | {family._documentation} |")
    return lines


def gate_settings(chosen: type[ServedGateSettings]) -> list[str]:
    lines = ["| Variable | Default | Meaning |", "|---|---|---|"]
    for name, field in chosen.model_fields.items():
        default = field.default
        shown = default.get_secret_value() if hasattr(default, "get_secret_value") else default
        shown = "(unset)" if shown is None else f"`{shown}`" if shown != "" else "(empty)"
        lines.append(f"| `{chosen.variable(name)}` | {shown} | {field.description} |")
    return lines


def gate_metrics(gate: ServedMetrics) -> list[str]:
    """What the gate's registry exposes, by the name that a query uses."""
    lines = ["| Metric | Type | Labels | Meaning |", "|---|---|---|---|"]
    for collector in sorted(gate.registry._collector_to_names, key=lambda collector: collector._name):
        name = collector._name + ("_total" if collector._type == "counter" else "")
        labels = ", ".join(f"`{label}`" for label in collector._labelnames) or "–"
        lines.append(f"| `{name}` | {collector._type} | {labels} | {collector._documentation} |")
    return lines


FROM_CODE = "from the code"
TABLES: dict[tuple[str, str], Callable[[], list[str]]] = {
    ("errors.md", "every gate"): lambda: codes(problem_codes.Code),
    ("errors.md", "MetaGate"): lambda: codes(metagate_codes.Code, problem_codes.Code),
    ("errors.md", "MemoryGate"): lambda: codes(memorygate_codes.Code, problem_codes.Code),
    ("api.md", FROM_CODE): lambda: endpoints(METAGATE_ENDPOINTS),
    ("memorygate/api.md", FROM_CODE): lambda: endpoints(MEMORYGATE.all_endpoints),
    ("memorygate/metrics.md", FROM_CODE): lambda: gate_metrics(MEMORYGATE.metrics),
    ("errors.md", "InterroGate"): lambda: codes(interrogate_codes.Code, problem_codes.Code),
    ("interrogate/api.md", FROM_CODE): lambda: endpoints(INTERROGATE.all_endpoints),
    ("interrogate/settings.md", FROM_CODE): lambda: gate_settings(InterrogateSettings),
    ("interrogate/metrics.md", FROM_CODE): lambda: gate_metrics(INTERROGATE.metrics),
    ("errors.md", "AsyncGate"): lambda: codes(asyncgate_codes.Code, problem_codes.Code),
    ("asyncgate/api.md", FROM_CODE): lambda: endpoints(ASYNCGATE.all_endpoints),
    ("asyncgate/settings.md", FROM_CODE): lambda: gate_settings(AsyncGateSettings),
    ("asyncgate/metrics.md", FROM_CODE): lambda: gate_metrics(ASYNCGATE.metrics),
    ("errors.md", "DepotGate"): lambda: codes(depotgate_codes.Code, problem_codes.Code),
    ("depotgate/api.md", FROM_CODE): lambda: endpoints(DEPOTGATE.all_endpoints),
    ("depotgate/settings.md", FROM_CODE): lambda: gate_settings(DepotGateSettings),
    ("depotgate/metrics.md", FROM_CODE): lambda: gate_metrics(DEPOTGATE.metrics),
    ("errors.md", "DeleGate"): lambda: codes(delegate_codes.Code, problem_codes.Code),
    ("delegate/api.md", FROM_CODE): lambda: endpoints(DELEGATE.all_endpoints),
    ("delegate/settings.md", FROM_CODE): lambda: gate_settings(DeleGateSettings),
    ("delegate/metrics.md", FROM_CODE): lambda: gate_metrics(DELEGATE.metrics),
    ("cognigate/api.md", FROM_CODE): lambda: endpoints(COGNIGATE.all_endpoints),
    ("cognigate/settings.md", FROM_CODE): lambda: gate_settings(CogniGateSettings),
    ("cognigate/metrics.md", FROM_CODE): lambda: gate_metrics(COGNIGATE.metrics),
    ("settings.md", FROM_CODE): settings,
    ("metrics.md", FROM_CODE): counted,
}
"""By page and by the word in the marker before the table."""


def split(page: str, word: str) -> tuple[str, str, str]:
    """The page before the table, the table, the rest."""
    before, _, rest = page.partition(f"<!-- table: {word} -->")
    table, _, after = rest.partition(END)
    return before, table.strip(), after


@pytest.mark.parametrize(("name", "word"), TABLES)
def test_table_is_the_codes(name: str, word: str) -> None:
    """The page's table is exactly what the code says."""
    assert split((DOCS / name).read_text(), word)[1].splitlines() == TABLES[name, word]()


@pytest.mark.parametrize(
    ("gate", "table"),
    [
        (metagate_codes.Code, METAGATE_ENDPOINTS),
        (memorygate_codes.Code, MEMORYGATE.all_endpoints),
        (interrogate_codes.Code, INTERROGATE.all_endpoints),
        (asyncgate_codes.Code, ASYNCGATE.all_endpoints),
        (depotgate_codes.Code, DEPOTGATE.all_endpoints),
        (delegate_codes.Code, DELEGATE.all_endpoints),
    ],
    ids=["MetaGate", "MemoryGate", "InterroGate", "AsyncGate", "DepotGate", "DeleGate"],
)
def test_every_code_has_one_meaning(gate: type[problem_codes.Code], table: tuple[Endpoint, ...]) -> None:
    """Each code has a status, a title, a use and a remedy; an endpoint refuses with registered ones, never with 500."""
    registered = gate.registered()
    for name, code in registered.items():
        assert (code.name, str(code)) == (name, name)
        assert all((code.title, code.meaning, code.remedy))
    documented = {code for endpoint in table for code in endpoint.all_codes}
    assert documented <= set(registered.values())
    assert problem_codes.Code.INTERNAL_ERROR not in documented
    assert {code.status for code in registered.values() if code.status >= 500} == {500, 503}


def test_a_gate_cannot_give_a_common_code_another_meaning() -> None:
    """A caller may switch on the code alone, at any gate."""
    with pytest.raises(TypeError, match="NOT_FOUND"):
        type("Code", (problem_codes.Code,), {"NOT_FOUND": ProblemCode(410, "Gone", "It is gone.", "Nothing.")})


if __name__ == "__main__":
    for (name, word), table in TABLES.items():
        path = DOCS / name
        before, _, after = split(path.read_text(), word)
        path.write_text(f"{before}<!-- table: {word} -->\n" + "\n".join(table()) + f"\n{END}{after}")
