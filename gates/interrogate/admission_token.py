"""What a target is shown instead of the caller's credential: a token of one minute for this admission (IG-10).

The receiver declares a TokenIssuer for this gate and checks signature, audience, admission and the payload's digest.
The token opens no other tenant's doors: its subject is bound to the namespace of the tenant.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from legivellum.http import strict_json
from legivellum.identity.packet_signing import PacketSigner

LIFETIME_SECONDS: Final = 60


class AdmissionTokens:
    """Makes tokens with one private key. `public_jwk` is what receivers verify them with."""

    def __init__(self, pem: bytes, *, issuer: str, clock: Callable[[], float] = time.time) -> None:
        """`pem`: an unencrypted PKCS#8 Ed25519 private key. Raises ValueError for anything else."""
        self._signer = PacketSigner(pem)
        self.public_jwk = self._signer.public_jwk
        self._issuer = issuer
        self._clock = clock

    @classmethod
    def from_file(cls, path: str | None, *, issuer: str) -> AdmissionTokens | None:
        """None without a file. Raises OSError, ValueError."""
        return None if path is None else cls(Path(path).read_bytes(), issuer=issuer)

    def token(self, *, namespace: str, audience: str, admission: str, task: str, payload_sha256: str) -> str:
        """`audience`: whom the target declares itself to be; another receiver must refuse the token."""
        now = int(self._clock())
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "sub": f"interrogate:{namespace}",
            "aud": audience,
            "iat": now,
            "nbf": now,
            "exp": now + LIFETIME_SECONDS,
            "admission": admission,
            "task": task,
            "payload_sha256": payload_sha256,
        }
        return self._signer.sign_attached(strict_json.encode(claims))
