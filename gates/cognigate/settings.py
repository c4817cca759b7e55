"""Everything an installation of CogniGate can choose: what every gate has, and its own.

Where the gates are and who it is, it has from its packet and from `METAGATE_…` variables, as every worker.
"""

from typing import Final

from pydantic import Field

from legivellum.gate.settings import ServedGateSettings, prefixed

_MODEL_VARIABLES: Final = {"llm_url": "LLM_URL", "llm_model": "LLM_MODEL", "llm_key_file": "LLM_KEY_FILE"}


class Settings(ServedGateSettings):
    """One field per setting; docs/cognigate/settings.md shows the same table."""

    model_config = prefixed("COGNIGATE", {name: (variable,) for name, variable in _MODEL_VARIABLES.items()})

    port: int = Field(8006, description="Port to listen on; 0 picks one.", ge=0, le=65_535)

    capabilities: str = Field(
        "document.summarise,document.merge,plan.draft",
        description="What it asks AsyncGate for, at most 15 names with commas between them.",
        min_length=1,
    )
    parallel: int = Field(4, description="Most jobs at once.", ge=1, le=32)
    ask_seconds: float = Field(
        120.0, description="How long one answer of a model may take; the seconds of a job bound it too.", gt=0, le=7_200
    )
    builtin_model: bool = Field(
        False,
        description="Without a declared model use `builtin/extract-1`, which is not a language model; `metagate dev`"
        " sets it.",
    )
    llm_url: str | None = Field(
        None, description="Base address of a chat-completions endpoint, instead of what the packet declares."
    )
    llm_model: str | None = Field(None, description="The model to ask there, which authorities call `default`.")
    llm_key_file: str | None = Field(None, description="File that holds its key; unset: none is sent.")

    @property
    def capability_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name.strip() for name in self.capabilities.split(",") if name.strip()))
