"""Where MetaGate is and who we are: explicit values first, then the environment (D-56)."""

from __future__ import annotations

import os
import re

from metagate_client.errors import MisconfiguredError

TYPE_CHECKING = False  # importing typing only to ask this costs as much as a connection
if TYPE_CHECKING:
    from collections.abc import Mapping

URL = "METAGATE_URL"
TOKEN_FILE = "METAGATE_TOKEN_FILE"  # noqa: S105 - a name
API_KEY_FILE = "METAGATE_API_KEY_FILE"
API_KEY_HEADER = "METAGATE_API_KEY_HEADER"
COMPONENT_KEY = "METAGATE_COMPONENT_KEY"
CA_FILE = "METAGATE_CA_FILE"
VERIFY_KEY_FILE = "METAGATE_VERIFY_KEY_FILE"
STARTUP_ID = "METAGATE_STARTUP_ID"
PACKET_FILE = "METAGATE_PACKET_FILE"
PACKET_STATE = "METAGATE_PACKET_STATE"
BUILD_VERSION = "METAGATE_BUILD_VERSION"

PROJECTED_TOKEN = "/var/run/secrets/metagate/token"  # noqa: S105 - a path
"""Where the examples mount the projected token; used when nothing else is configured and it is there."""

_URL = re.compile(r"(https?)://(\[[0-9a-fA-F:.]+\]|[^/:@?#\s\[\]]+)(?::([0-9]{1,5}))?(/[^?#\s]*)?\Z")
_HEADER = re.compile(r"[A-Za-z0-9-]+\Z")
_LARGEST_CREDENTIAL = 16_384


def environment() -> Mapping[str, str]:
    """The process's environment: the one place where the client reads it."""
    return os.environ  # noqa: TID251 - this is the settings module


class Settings:
    """What a call needs. `timeout` bounds each call, retries included, in seconds.

    Anything left None comes from the environment, then from its default. Raises MisconfiguredError for what cannot be.
    """

    __slots__ = (
        "api_key_file",
        "api_key_header",
        "base",
        "ca_file",
        "component_key",
        "host",
        "port",
        "timeout",
        "tls",
        "token_file",
        "url",
        "verify_key_file",
    )

    def __init__(
        self,
        *,
        url: str | None = None,
        component_key: str | None = None,
        token_file: str | None = None,
        api_key_file: str | None = None,
        api_key_header: str | None = None,
        ca_file: str | None = None,
        verify_key_file: str | None = None,
        timeout: float = 5.0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        env = environment() if environ is None else environ
        self.url = url or env.get(URL, "")
        self.component_key = component_key or env.get(COMPONENT_KEY, "")
        self.ca_file = ca_file or env.get(CA_FILE) or None
        self.verify_key_file = verify_key_file or env.get(VERIFY_KEY_FILE) or None
        self.api_key_header = api_key_header or env.get(API_KEY_HEADER) or "X-API-Key"
        if not _HEADER.match(self.api_key_header):
            raise MisconfiguredError(f"{API_KEY_HEADER} is not the name of a header")
        if not 0 < timeout <= 60:
            raise MisconfiguredError("the timeout must be between 0 and 60 seconds")
        self.timeout = timeout
        self.tls, self.host, self.port, self.base = parse_url(self.url)
        self.token_file, self.api_key_file = _credential_files(token_file, api_key_file, env)

    def __repr__(self) -> str:
        """Where and as whom; of the credential the file that it is read from."""
        credential = self.token_file or self.api_key_file or "no credential"
        return f"<Settings {self.url} as {self.component_key or 'no component'} with {credential}>"

    def credential(self) -> tuple[str, str]:
        """The header and value that say who we are; read anew at every call, because projected tokens are renewed."""
        if self.token_file is not None:
            return "Authorization", f"Bearer {read_credential(self.token_file, 'token', _TOKEN_ADVICE)}"
        if self.api_key_file is None:
            raise MisconfiguredError(
                f"there is no credential: set {TOKEN_FILE} (a projected service-account token) or {API_KEY_FILE}"
            )
        return self.api_key_header, read_credential(
            self.api_key_file, "API key", "write the key into it, with mode 0600"
        )


_TOKEN_ADVICE = "mount a projected serviceAccountToken volume with audience metagate"  # noqa: S105 - advice


def parse_url(
    url: str, *, name: str = URL, owner: str = "MetaGate", example: str = "metagate:8000"
) -> tuple[bool, str, int, str]:
    """TLS, host, port and path of a gate's address. `name`: the setting that errors name. Raises MisconfiguredError."""
    if not url:
        raise MisconfiguredError(f"{owner}'s address is not set: set {name}, for example http://{example}")
    match = _URL.match(url)
    if match is None or (match[3] is not None and not 0 < int(match[3]) < 65536):
        host = example.partition(":")[0]
        raise MisconfiguredError(f"{name} must be like http://{example} or https://{host}.example.com")
    tls = match[1] == "https"
    port = int(match[3]) if match[3] else (443 if tls else 80)
    return tls, match[2].strip("[]"), port, (match[4] or "").rstrip("/")


def _credential_files(
    token_file: str | None, api_key_file: str | None, env: Mapping[str, str]
) -> tuple[str | None, str | None]:
    # Explicit wins over the environment as a whole, so that a flag never meets a variable that contradicts it.
    if not token_file and not api_key_file:
        token_file, api_key_file = env.get(TOKEN_FILE), env.get(API_KEY_FILE)
    if token_file and api_key_file:
        raise MisconfiguredError("both a token file and an API key file are configured: choose one")
    if not token_file and not api_key_file and os.path.exists(PROJECTED_TOKEN):  # noqa: PTH110 - pathlib is not cheap
        token_file = PROJECTED_TOKEN
    return token_file or None, api_key_file or None


def read_credential(path: str, what: str, advice: str) -> str:
    """The token or key in a file. `what` it is and `advice` are for the message of MisconfiguredError."""
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 - pathlib is not cheap
            text = file.read(_LARGEST_CREDENTIAL + 1).strip()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "it is not text"
        raise MisconfiguredError(f"cannot read the {what} file {path}: {reason}; {advice}") from error
    if not text or len(text) > _LARGEST_CREDENTIAL or not text.isascii() or not text.isprintable() or " " in text:
        raise MisconfiguredError(f"the {what} file {path} does not hold one {what}; {advice}")
    return text
