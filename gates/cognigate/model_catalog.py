"""The models that a job may name, as the Manifest declares them: services of type `chat-completions` (CG-11)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from cognigate.extractive import EXTRACT_NAME, ExtractiveModel
from legivellum_worker.chat_completions import ChatCompletions
from legivellum_worker.models import ModelClient
from legivellum_worker.results import AUTHORITY_INSUFFICIENT, Failed
from metagate_client.errors import MisconfiguredError
from metagate_client.packet import Packet
from metagate_client.settings import environment, read_credential

MODEL_SERVICE: Final = "chat-completions"
DEFAULT_ALIAS: Final = "default"
_ADVICE: Final = "write the key of the model's provider into it"

Declared = tuple[ModelClient, str]
"""The client, and the model's name as its provider has it."""


class ModelCatalog:
    """By the names that authorities use."""

    def __init__(self, models: Mapping[str, Declared]) -> None:
        self._models = models

    def choose(self, permitted: tuple[str, ...], wanted: Any) -> tuple[str, ModelClient, str]:
        """The model that the job names, or else the first that is permitted, behind its alias. Raises Failed."""
        names = permitted if wanted is None else [name for name in permitted if name == wanted]
        alias = next((name for name in names if name in self._models), None)
        if alias is None:
            raise Failed(AUTHORITY_INSUFFICIENT, "no permitted model is declared")
        return (alias, *self._models[alias])

    def __len__(self) -> int:
        return len(self._models)

    @classmethod
    def builtin(cls) -> ModelCatalog:
        """For trying things out: what it is stands in each of its outputs."""
        return cls(dict.fromkeys((DEFAULT_ALIAS, EXTRACT_NAME), (ExtractiveModel(), EXTRACT_NAME)))

    @classmethod
    def of_endpoint(cls, url: str, model: str, key_file: str | None) -> ModelCatalog:
        key = None if key_file is None else _file_key(key_file)
        return cls({DEFAULT_ALIAS: (ChatCompletions(model, url, key=key), model)})

    @classmethod
    def of_packet(cls, packet: Packet) -> ModelCatalog:
        """Raises MisconfiguredError for a declaration that cannot be used."""
        models: dict[str, Declared] = {}
        for name, service in sorted(packet.services(MODEL_SERVICE).items()):
            metadata = service.get("metadata") or {}
            structured = metadata.get("structured", "json_schema")
            if structured not in {"json_schema", "json_object", "none"}:
                raise MisconfiguredError(f"structured of the service {name} is json_schema, json_object or none")
            for alias, model in (metadata.get("models") or {}).items():
                client = ChatCompletions(
                    str(model), str(service["endpoint"]), key=_declared_key(packet, service), structured=structured
                )
                models.setdefault(str(alias), (client, str(model)))
        return cls(models)


def _file_key(path: str) -> Callable[[], str]:
    return lambda: read_credential(path, "API key", _ADVICE)


def _declared_key(packet: Packet, service: Mapping[str, Any]) -> Callable[[], str] | None:
    """How to read the secret that the service's `auth.secretRef` names: a variable or a file of this pod."""
    reference = (service.get("auth") or {}).get("secretRef")
    if reference is None:
        return None
    kind, name = packet.secret(reference)
    return _file_key(name) if kind.lower() == "file" else lambda: environment().get(name, "")
