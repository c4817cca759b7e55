"""What looks like a secret (D-15, INV-033, INV-034): the text of it, or the name that it is kept under.

The detectors are those of detect-secrets, asked directly: nothing is logged, read from a file, or verified over the
network. Answers are a yes or a no; the matched text never leaves this module except to be replaced by `[redacted]`.
"""

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, Final

from detect_secrets.plugins.artifactory import ArtifactoryDetector
from detect_secrets.plugins.aws import AWSKeyDetector
from detect_secrets.plugins.azure_storage_key import AzureStorageKeyDetector
from detect_secrets.plugins.base import BasePlugin
from detect_secrets.plugins.basic_auth import BasicAuthDetector
from detect_secrets.plugins.cloudant import CloudantDetector
from detect_secrets.plugins.discord import DiscordBotTokenDetector
from detect_secrets.plugins.github_token import GitHubTokenDetector
from detect_secrets.plugins.gitlab_token import GitLabTokenDetector
from detect_secrets.plugins.high_entropy_strings import Base64HighEntropyString, HexHighEntropyString
from detect_secrets.plugins.ibm_cloud_iam import IbmCloudIamDetector
from detect_secrets.plugins.ibm_cos_hmac import IbmCosHmacDetector
from detect_secrets.plugins.jwt import JwtTokenDetector
from detect_secrets.plugins.mailchimp import MailchimpDetector
from detect_secrets.plugins.npm import NpmDetector
from detect_secrets.plugins.openai import OpenAIDetector
from detect_secrets.plugins.private_key import PrivateKeyDetector
from detect_secrets.plugins.pypi_token import PypiTokenDetector
from detect_secrets.plugins.sendgrid import SendGridDetector
from detect_secrets.plugins.slack import SlackDetector
from detect_secrets.plugins.softlayer import SoftlayerDetector
from detect_secrets.plugins.square_oauth import SquareOAuthDetector
from detect_secrets.plugins.stripe import StripeDetector
from detect_secrets.plugins.telegram_token import TelegramBotTokenDetector
from detect_secrets.plugins.twilio import TwilioKeyDetector

REDACTED: Final = "[redacted]"

# Their patterns are cheap enough for every text.
_CHEAP_DETECTORS: Final[tuple[BasePlugin, ...]] = (
    AWSKeyDetector(),
    AzureStorageKeyDetector(),
    BasicAuthDetector(),
    PrivateKeyDetector(),
)
# Asked only of texts with a long word in them, which most have not: their patterns cost more than the scan for one.
_LONG_WORD: Final = re.compile(r"[0-9A-Za-z_\-]{24,}")
_LONG_WORD_DETECTORS: Final[tuple[BasePlugin, ...]] = (
    CloudantDetector(),
    DiscordBotTokenDetector(),
    GitHubTokenDetector(),
    GitLabTokenDetector(),
    IbmCloudIamDetector(),
    IbmCosHmacDetector(),
    MailchimpDetector(),
    PypiTokenDetector(),
    SendGridDetector(),
    SoftlayerDetector(),
    SquareOAuthDetector(),
    StripeDetector(),
    TelegramBotTokenDetector(),
    TwilioKeyDetector(),
)
_SLACK: Final = SlackDetector()
_ARTIFACTORY: Final = ArtifactoryDetector()
_HEX: Final = HexHighEntropyString(limit=3.0)
_BASE64: Final = Base64HighEntropyString(limit=4.5)

# What detect-secrets does not know: our own keys, newer GitHub tokens, a password without a user, assignments in DSNs.
_OWN_PATTERNS: Final[tuple[tuple[str, re.Pattern[str]], ...]] = (
    ("mgk_", re.compile(r"mgk_[0-9A-Za-z]{10}_[0-9A-Za-z]{20,}")),
    ("github_pat_", re.compile(r"github_pat_[0-9A-Za-z_]{22,}")),
    ("sk-", re.compile(r"sk-(?:ant|proj)-[0-9A-Za-z_\-]{20,}")),
    ("://", re.compile(r"://[^/?#\s@:]{0,128}:(?![$<{%]|\*+@)[^/?#\s@]{1,512}@")),
    (
        "=",
        re.compile(
            r"(?i)(?<![0-9a-z])(?:password|passwd|pwd|secret|token|(?:api|access)_?key)=(?![$<{%*])[^\s&;,'\"]+"
        ),
    ),
    (
        "BEGIN ",
        re.compile(r"BEGIN [A-Z ]{0,40}PRIVATE KEY(?:.{0,8192}?END [A-Z ]{0,40}PRIVATE KEY)?", re.DOTALL),
    ),
)


class WholeJwtDetector(JwtTokenDetector):
    """With what stands behind header and claims: the library's own pattern leaves the signature where it is."""

    denylist = [re.compile(r"eyJ[0-9A-Za-z_=-]+\.[0-9A-Za-z_=-]+(?:\.[0-9A-Za-z_.+/=-]*)?")]  # noqa: RUF012 - as the library has it

    @staticmethod
    def is_formally_valid(token: str) -> bool:
        """By header and claims: a signature that somebody cut short or wrote on is still one."""
        return JwtTokenDetector.is_formally_valid(".".join(token.split(".")[:2]))


# These patterns scan to the end from every start: quadratic in the text, so many starts are a match without asking.
_QUADRATIC: Final[tuple[tuple[BasePlugin, str, str], ...]] = (
    (WholeJwtDetector(), "eyJ", "eyJ"),
    (NpmDetector(), ":_authToken", "//"),
    (OpenAIDetector(), "T3BlbkFJ", "sk-"),
)
_MOST_STARTS: Final = 16
# Several patterns allow spaces in two places beside each other: quadratic again, in runs of spaces.
_SPACES: Final = re.compile(r" {3,}")

_HEX_WORD: Final = re.compile(r"[0-9a-fA-F]{32,}")
_BASE64_WORD: Final = re.compile(r"[0-9A-Za-z+/_\-]{24,}={0,2}")
_RUN: Final = re.compile(r"[0-9A-Za-z]{16,}")
_TOKEN: Final = re.compile(r"[0-9A-Za-z+/_\-=]{24,}")
# Anything shorter is a word, not a key, unless it is a URL with a password in it: `a://b:c@d`.
_SHORTEST: Final = 13
# Longer texts are rare, and remembering them could cost more memory than it saves time.
_REMEMBERED: Final = 256

# `dbPassword`, `DBPassword` and `db-password` are read as the words db and password.
_CAMEL: Final = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")
_WORDS: Final = re.compile(r"[^a-z0-9]+")
# Only the last words count: `password_file` and `token_url` name a place, `api_key` a secret.
_SECRET_NAME: Final = re.compile(
    r"(?:^|_)(?:(?:password|passwd|pwd|passphrase|secret|credential|apikey|(?:api|access|secret|private|signing|"
    r"encryption|auth)_key)s?|token)$"
)
# Numbers are secret under these names only: `tokens: 4096` is a limit, `pin: 1234` is a PIN.
_PASSWORD_NAME: Final = re.compile(r"(?:^|_)(?:password|passwd|pwd|passphrase|pin)$")
_DIGEST_WORDS: Final = frozenset(
    {
        "sha",
        "sha1",
        "sha256",
        "sha384",
        "sha512",
        "md5",
        "digest",
        "checksum",
        "hash",
        "etag",
        "fingerprint",
        "thumbprint",
        "commit",
        "revision",
        "version",
        "rev",
        "build",
        "tag",
        "image",
        "id",
        "uid",
        "uuid",
        "ref",
        "trace",
        "kid",
    }
)


def looks_secret(text: str) -> bool:
    """Whether this text looks like a secret, whatever the name of its field."""
    if text.isalnum() and text.islower():
        return False  # every shape that a detector knows has a capital or a separator; digests and names have none
    if len(text) < _SHORTEST and "://" not in text:
        return False
    return _remembered(text) if len(text) <= _REMEMBERED else _detected(text)


def looks_random(text: str) -> bool:
    """Whether this text is one long random word. Not asked of values whose name says digest, commit or id."""
    return len(text) >= 24 and _random(text)


@lru_cache(maxsize=16_384)
def names_secret(key: str) -> bool:
    """Whether a key says that its text is secret: `db_password`, `apiKey`; not `tokenUrl`, `secretRef`."""
    return _SECRET_NAME.search("_".join(_words(key))) is not None


@lru_cache(maxsize=16_384)
def names_password(key: str) -> bool:
    """Whether a key says that even a number under it is a secret."""
    return _PASSWORD_NAME.search("_".join(_words(key))) is not None


@lru_cache(maxsize=16_384)
def names_digest(key: str) -> bool:
    """Whether a key says that its value is a digest or an id, which look random and are public."""
    return not _DIGEST_WORDS.isdisjoint(_words(key))


def redact(value: Any) -> Any:
    """A JSON value without what looks like a secret: matches and values under secret names replaced (D-43)."""
    if isinstance(value, str):
        return _redacted_text(value)
    if isinstance(value, list):
        return [redact(item) for item in value]
    if isinstance(value, dict):
        return {_redacted_text(key): REDACTED if _is_secret(key, item) else redact(item) for key, item in value.items()}
    return value


def _is_secret(key: str, value: Any) -> bool:
    if isinstance(value, str):
        return value != "" and names_secret(key)
    return isinstance(value, int) and not isinstance(value, bool) and names_password(key)


def _words(key: str) -> list[str]:
    return [word for word in _WORDS.split(_CAMEL.sub("_", key).lower()) if word]


@lru_cache(maxsize=8_192)
def _remembered(text: str) -> bool:
    return _detected(text)


def _detected(text: str) -> bool:
    return next(iter(_matches(text)), None) is not None


def _random(text: str) -> bool:
    if _HEX_WORD.fullmatch(text):
        return _HEX.calculate_shannon_entropy(text.lower()) > _HEX.entropy_limit
    if not _BASE64_WORD.fullmatch(text) or not any(_mixed(run) for run in _RUN.findall(text)):
        return False
    return _BASE64.calculate_shannon_entropy(text) > _BASE64.entropy_limit


def _mixed(run: str) -> bool:
    """A path has long runs of letters; a key mixes cases and digits."""
    return any(map(str.isdigit, run)) and any(map(str.isupper, run)) and any(map(str.islower, run))


def _matches(text: str) -> Iterator[str]:
    text = _SPACES.sub("  ", text)
    for needle, pattern in _OWN_PATTERNS:
        # `in` is much cheaper than a pattern that finds nothing.
        if needle in text:
            yield from (match.group() for match in pattern.finditer(text))
    for detector in _CHEAP_DETECTORS:
        yield from detector.analyze_string(text)
    if _LONG_WORD.search(text):
        for detector in _LONG_WORD_DETECTORS:
            yield from detector.analyze_string(text)
    lowered = text.lower()
    if "xox" in lowered or "hooks.slack.com" in lowered:
        yield from _SLACK.analyze_string(text)
    if "AKC" in text or "AP" in text:
        # Its pattern also matches words like APACHEKAFKA.
        yield from filter(_mixed, _ARTIFACTORY.analyze_string(text))
    for detector, needle, start in _QUADRATIC:
        if needle in text:
            yield from [text] if text.count(start) > _MOST_STARTS else detector.analyze_string(text)


def _redacted_text(text: str) -> str:
    if len(text) < _SHORTEST and "://" not in text:
        return text
    text = _SPACES.sub("  ", text)
    # The longest first: a shorter match may be part of it, and replacing that would leave the rest readable.
    for match in sorted(set(_matches(text)), key=len, reverse=True):
        text = text.replace(match, REDACTED)
    return _TOKEN.sub(lambda match: REDACTED if _random(match.group()) else match.group(), text)
