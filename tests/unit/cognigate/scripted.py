"""A model whose replies a test writes down: the port without a wire."""

import hashlib
from dataclasses import dataclass, field

from legivellum_worker.models import Ask, ModelAway, ModelReply, TokenCounts


@dataclass
class WrittenModel:
    replies: list[str] = field(default_factory=list)
    name: str = "scripted-1"
    deterministic: bool = True

    def reply(self, ask: Ask, deadline: float) -> ModelReply:
        if not self.replies:
            raise ModelAway("nothing is written down any more")
        text = self.replies[0]
        counts = TokenCounts(sum(len(str(message["content"])) for message in ask.messages) // 4, len(text) // 4)
        return ModelReply(text, "stop", counts, self.name, hashlib.sha256(text.encode()).hexdigest())
