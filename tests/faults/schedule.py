"""Which faults come when: drawn from a seed, so that what failed can be played again.

A turn is one to three faults at once. Every fault has its turn before any has its second, so ten minutes play all of
them several times, each with other companions. What a turn draws depends on the seed and its number alone, not on how
long anything took.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

COMPANIONS = (0, 0, 1, 1, 1, 2)
"""How many faults accompany the one whose turn it is: drawn from these."""


@dataclass(frozen=True, slots=True)
class ScheduledTurn:
    number: int
    faults: tuple[str, ...]
    seed: str

    def random(self, fault: str) -> Random:
        """The numbers of one fault in this turn."""
        return Random(f"{self.seed}/{fault}")


def draw_turns(seed: int, holds: Mapping[str, str]) -> Iterator[ScheduledTurn]:
    """Turns without end. `holds`: each fault's name, and what it takes hold of; two of a turn never hold the same."""
    number = 0
    while True:
        order = sorted(holds)
        Random(f"{seed}/{number}").shuffle(order)
        for fault in order:
            random = Random(f"{seed}/{number}")
            drawn = [fault]
            for _ in range(random.choice(COMPANIONS)):
                held = {holds[item] for item in drawn}
                if free := [name for name in sorted(holds) if holds[name] not in held]:
                    drawn.append(random.choice(free))
            yield ScheduledTurn(number, tuple(drawn), f"{seed}/{number}")
            number += 1
