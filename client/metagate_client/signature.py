"""Is this packet the one that MetaGate signed (EXT-09)? Needs the extra `metagate[verify]`, and to be asked for.

The public key is the installation's: it comes on another way than the packet, or it proves nothing more than TLS.
"""

from __future__ import annotations

import base64
import json

from metagate_client.errors import MisconfiguredError, UntrustedError

HEADER = "metagate-packet-signature"


def verify_signature(body: bytes, headers: dict[str, str], key_file: str) -> None:
    """Raises UntrustedError unless the packet is signed with this key, MisconfiguredError if that cannot be checked."""
    try:
        import rfc8785
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError as error:
        raise MisconfiguredError("verifying packets needs the extra verify (cryptography and rfc8785)") from error
    try:
        with open(key_file, "rb") as file:  # noqa: PTH123 - pathlib is not cheap
            jwk = json.loads(file.read(65_536))
        if jwk["kty"] != "OKP" or jwk["crv"] != "Ed25519":
            raise ValueError("not an Ed25519 key")  # noqa: TRY301
        key = Ed25519PublicKey.from_public_bytes(_decoded(jwk["x"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise MisconfiguredError(f"{key_file} does not hold an Ed25519 public key as a JWK") from error
    try:
        head, empty, signature = headers.get(HEADER, "").split(".")
        if empty or json.loads(_decoded(head)) != {"alg": "EdDSA", "kid": jwk.get("kid")}:
            raise ValueError("another header")  # noqa: TRY301
        payload = base64.urlsafe_b64encode(rfc8785.dumps(json.loads(body))).rstrip(b"=")
        key.verify(_decoded(signature), head.encode() + b"." + payload)
    except (ValueError, InvalidSignature, RecursionError) as error:
        raise UntrustedError("the packet is not signed with the configured key, and is not used") from error


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
