"""Detached Ed25519 signatures of receipts: whose keys are known, and where they are required (D-28).

The credential says who speaks; a signature lets others check years later, without the ledger, that he said it. Policy
and public keys come from one file, read at start; a file that is named and cannot be read ends the start (EXT-19):

    tenants:
      0d6f…-uid-of-the-namespace:
        required: true
        emitters:
          indexer: {2027-a: "<32 bytes, base64url>"}
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from legivellum.receipts.receipt import Signature


class SignersUnreadable(Exception):  # noqa: N818 - what the file is
    """The file of signers cannot be used."""


@dataclass(frozen=True, slots=True)
class Signers:
    """`keys` by (tenant, emitter, key id)."""

    required: frozenset[str]
    keys: Mapping[tuple[str, str, str], Ed25519PublicKey]

    @classmethod
    def none(cls) -> Signers:
        return cls(frozenset(), {})

    @classmethod
    def from_file(cls, path: Path) -> Signers:
        """Raises SignersUnreadable, naming the place, never a value."""
        try:
            read = yaml.safe_load(path.read_text(encoding="utf-8"))
            tenants: Mapping[str, Any] = read["tenants"]
            required = frozenset(tenant for tenant, policy in tenants.items() if policy.get("required", False) is True)
            keys = {
                (tenant, emitter, key_id): _key(text)
                for tenant, policy in tenants.items()
                for emitter, ids in policy.get("emitters", {}).items()
                for key_id, text in ids.items()
            }
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SignersUnreadable(f"{path}: cannot be read as YAML ({type(error).__name__})") from error
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise SignersUnreadable(f"{path}: is not tenants → emitters → key id → public key") from error
        return cls(required, keys)

    def judge(self, tenant: str, emitter: str, form: bytes, signature: Signature | None) -> str | None:
        """None when it may pass, else what is wrong. A signature that is there must hold, required or not."""
        if signature is None:
            return "This tenant requires signed receipts." if tenant in self.required else None
        key = self.keys.get((tenant, emitter, signature.key_id))
        if key is None:
            return "The signature's key is not one of this emitter's."
        try:
            key.verify(base64.urlsafe_b64decode(signature.value + "=="), form)
        except (InvalidSignature, binascii.Error):
            return "The signature does not fit the receipt's canonical form."
        return None


def _key(text: Any) -> Ed25519PublicKey:
    if not isinstance(text, str):
        raise TypeError("a key is text")
    return Ed25519PublicKey.from_public_bytes(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
