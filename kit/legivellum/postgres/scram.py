"""What PostgreSQL stores for a password (RFC 5803), so that the password itself never travels in a statement."""

import base64
import hashlib
import hmac
import secrets


def scram_verifier(password: str, *, salt: bytes | None = None, iterations: int = 4096) -> str:
    salt = secrets.token_bytes(16) if salt is None else salt
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, iterations)
    stored = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    spelt = [base64.b64encode(part).decode() for part in (salt, stored, server)]
    return f"SCRAM-SHA-256${iterations}:{spelt[0]}${spelt[1]}:{spelt[2]}"
