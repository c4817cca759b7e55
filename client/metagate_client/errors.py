"""What can go wrong, each with the exit code of the command and one line that says what to do next.

ClientError
├── MisconfiguredError   2  what was configured cannot work; nothing was asked
├── RefusedError         1  MetaGate answered, and said no
├── UntrustedError       1  a packet came, but not signed by whom it should be
└── UnavailableError     3  MetaGate did not answer in time
"""

from __future__ import annotations

import sys

# What a person can do about a refusal, by its code; what MetaGate says of itself comes before it.
ADVICE = {
    "CREDENTIAL_MISSING": "Set METAGATE_TOKEN_FILE or METAGATE_API_KEY_FILE.",
    "CREDENTIAL_INVALID": "Check the token's audience and issuer, or the API key.",
    "CREDENTIAL_EXPIRED": "Mount the token as a projected volume, so that it is renewed; or declare a new API key.",
    "CREDENTIAL_REVOKED": "Declare the credential again, or use another.",
    "SEVERAL_CREDENTIALS": "Send one credential; look for a proxy that adds another.",
    "PRINCIPAL_UNKNOWN": "Declare a Principal with this subject in the pod's namespace.",
    "PRINCIPAL_SUSPENDED": "Ask who declared the Principal suspended.",
    "NO_BINDING": "Declare an active PrincipalBinding for the Principal.",
    "COMPONENT_NOT_PERMITTED": "Add the component key to spec.components of the PrincipalBinding.",
    "BINDING_INCOMPLETE": "The PrincipalBinding names a Profile or Manifest that is missing: see its status.",
    "PRINCIPAL_MISMATCH": "Leave the principal key out: the credential decides.",
    "IDEMPOTENCY_CONFLICT": "Use a new idempotency key for another component.",
    "SESSION_NOT_FOUND": "Boot again: this startup is unknown, or older than the retention.",
    "NOT_THIS_POD": "Report from the pod that booted.",
    "INVALID_STATE": "The startup has ended in the other state already.",
}


class ClientError(Exception):
    """One line for a person, and an exit code for a shell."""

    exit_code = 1


class MisconfiguredError(ClientError):
    """What was configured cannot work."""

    exit_code = 2


class RefusedError(ClientError):
    """MetaGate said no. `status` and `code` are those of its answer."""

    exit_code = 1

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(" ".join(part for part in (f"refused ({status} {code}): {detail}", ADVICE.get(code)) if part))
        self.status = status
        self.code = code


class UntrustedError(ClientError):
    """The packet is not signed with the configured key. Never continued from, whatever `--if-unavailable` says."""

    exit_code = 1


class UnavailableError(ClientError):
    """No answer, or none that counts, within the time there was."""

    exit_code = 3


def print_error(line: str) -> None:
    """One line on standard error, for whoever reads the log; standard output belongs to the command."""
    print(f"metagate: {line}", file=sys.stderr, flush=True)
