"""The cookie: who signed in, signed, for a short time; and the tokens that show that a form is one of ours.

It holds what the credential *was* (the digest of the key, or issuer, subject and key id of the token, with its audience
and algorithm, for HS256 a fingerprint of the secret) and never the credential: whoever steals a cookie has the console
until it expires, and nothing else. What it names is looked up again for every page, so a revoked credential, a
suspended or demoted principal, an issuer that is believed no more is out at once (D-45).
"""

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Collection
from dataclasses import astuple, dataclass
from typing import Final
from uuid import UUID

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import OctKey

from legivellum.http.exchange import RawHeaders
from legivellum.identity.caller import Caller, Credential, VerificationContext

PATH: Final = "/console"
LONGEST: Final = 3_800
"""Bytes of a cookie that every browser keeps."""

_ALGORITHM: Final = "HS256"
_NONCE: Final = re.compile(r"[A-Za-z0-9_-]{22}\Z")


@dataclass(frozen=True, slots=True)
class Session:
    """What a cookie says. `expires_at` in seconds since the epoch."""

    credential: Credential
    verification: VerificationContext | None
    tenant: UUID
    principal_key: str
    expires_at: int
    nonce: str


@dataclass(frozen=True, slots=True)
class Viewer:
    """The principal who looks at the pages: of a session that the gate has just confirmed."""

    tenant: UUID
    namespace: str
    principal_key: str
    type: str
    everywhere: bool
    """Reads every tenant (D-51)."""
    session: Session
    rights: Collection[str] = ()

    @property
    def admin(self) -> bool:
        """Sees what the API shows to admins only."""
        return self.type == "admin"


class CookieTooLong(Exception):  # noqa: N818 - it names what is wrong with the credential
    """The subject of the credential does not fit into a cookie."""


class SessionCookies:
    """Makes and reads them. `gate` names them; `secure`: only ever sent over https."""

    def __init__(
        self, secret: bytes, *, gate: str, lifetime: int, secure: bool, clock: Callable[[], float] = time.time
    ) -> None:
        self.session_name = f"{gate}_console"
        self.form_name = f"{gate}_console_form"
        self._key = OctKey.import_key(hmac.digest(secret, f"{gate} console session".encode(), "sha256"))
        self._forms = hmac.digest(secret, f"{gate} console form".encode(), "sha256")
        self._lifetime = lifetime
        self._attributes = "; ".join(
            ("", f"Path={PATH}", "HttpOnly", "SameSite=Strict", *(("Secure",) if secure else ()))
        )
        self._clock = clock

    # ── sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────

    def opened(self, caller: Caller) -> tuple[bytes, bytes]:
        """The header that signs this caller in, until the credential expires at the latest. Raises CookieTooLong."""
        now = int(self._clock())
        until = now + self._lifetime
        if caller.expires_at is not None:
            until = min(until, int(caller.expires_at.timestamp()))
        credential, verification = caller.credential, caller.verification
        word = jwt.encode(
            {"alg": _ALGORITHM},
            {
                "kind": credential.kind,
                "iss": credential.issuer,
                "sub": credential.subject,
                "kid": credential.kid,
                "verification": None if verification is None else list(astuple(verification)),
                "tenant": str(caller.tenant),
                "principal_key": caller.principal_key,
                "exp": until,
                "jti": new_nonce(),
            },
            self._key,
        )
        if len(word) > LONGEST:
            raise CookieTooLong
        return self._set(self.session_name, word, max(0, until - now))

    def session(self, headers: RawHeaders) -> Session | None:
        """Whoever signed in with the cookie of this request; None without one, or with a forged or expired one."""
        word = cookie(headers, self.session_name)
        # What is longer than any cookie of ours is not worth a signature.
        if word is None or len(word) > LONGEST:
            return None
        try:
            claims = jwt.decode(word, self._key, algorithms=[_ALGORITHM]).claims
            session = Session(
                Credential(claims["kind"], claims["iss"], claims["sub"], claims["kid"]),
                None if claims["verification"] is None else VerificationContext(*claims["verification"]),
                UUID(claims["tenant"]),
                claims["principal_key"],
                int(claims["exp"]),
                claims["jti"],
            )
        except (JoseError, ValueError, KeyError, TypeError):
            return None
        return session if session.expires_at > self._clock() else None

    def closed(self) -> tuple[bytes, bytes]:
        return self._set(self.session_name, "", 0)

    # ── forms ────────────────────────────────────────────────────────────────────────────────────────────────────────

    def form(self, headers: RawHeaders) -> tuple[str, tuple[bytes, bytes]]:
        """The token of a form for somebody who is not signed in, and the cookie that it must come back with."""
        nonce = cookie(headers, self.form_name)
        if nonce is None or not _NONCE.match(nonce):
            nonce = new_nonce()
        return self.token(nonce), self._set(self.form_name, nonce, self._lifetime)

    def token(self, nonce: str) -> str:
        return hmac.new(self._forms, nonce.encode(), hashlib.sha256).hexdigest()

    def ours(self, token: str, nonce: str | None) -> bool:
        """Whether a form with this token was made by this gate for the browser that has this nonce."""
        return nonce is not None and hmac.compare_digest(self.token(nonce).encode(), token.encode())

    def _set(self, name: str, value: str, seconds: int) -> tuple[bytes, bytes]:
        return b"set-cookie", f"{name}={value}; Max-Age={seconds}{self._attributes}".encode()


def new_nonce() -> str:
    return secrets.token_urlsafe(16)


def has_cookie(headers: RawHeaders, name: str) -> bool:
    return bool(_values(headers, name))


def cookie(headers: RawHeaders, name: str) -> str | None:
    """Its value; None when it is not there, or there more than once: no choice between two would be safe."""
    values = _values(headers, name)
    try:
        return values[0].decode("ascii") if len(values) == 1 else None
    except UnicodeDecodeError:
        return None


def _values(headers: RawHeaders, name: str) -> list[bytes]:
    pairs = (pair.strip().partition(b"=") for key, value in headers if key == b"cookie" for pair in value.split(b";"))
    return [value for key, _, value in pairs if key == name.encode()]
