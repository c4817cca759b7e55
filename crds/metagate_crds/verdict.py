"""The result of compiling one object, as it is reported in its status: conditions, generation, digest."""

from dataclasses import dataclass
from typing import Literal

from metagate_crds.objects import ObjectKey

Status = Literal["True", "False", "Unknown"]


@dataclass(frozen=True, slots=True)
class Condition:
    """A condition without its times: those belong to whoever writes the status."""

    type: str
    status: Status
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of compiling one object.

    `served_generation` is the generation whose content is in the snapshot, None when nothing of it is.
    `uses` counts the Bindings that name this Principal, Profile or Manifest. `digest` is a Binding's packet.
    """

    key: ObjectKey
    uid: str
    generation: int
    served_generation: int | None
    conditions: tuple[Condition, ...]
    uses: int = 0
    digest: str | None = None

    def condition(self, name: str) -> Condition | None:
        return next((condition for condition in self.conditions if condition.type == name), None)

    @property
    def ready(self) -> bool:
        condition = self.condition("Ready")
        return condition is not None and condition.status == "True"
