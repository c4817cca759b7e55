"""How many attacks were tried and what became of them: said at the end of every run, whatever else is captured."""

from collections import Counter, defaultdict

TRIED: defaultdict[str, Counter[str]] = defaultdict(Counter)


def count(corpus: str, outcome: object, number: int = 1) -> None:
    TRIED[corpus][str(outcome)] += number


def lines() -> list[str]:
    return [
        f"attack corpus, {corpus}: {sum(outcomes.values())} tried: "
        + ", ".join(f"{number} × {outcome}" for outcome, number in sorted(outcomes.items()))
        for corpus, outcomes in sorted(TRIED.items())
    ]
