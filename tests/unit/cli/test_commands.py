"""The small commands, and how every command fails: one line that says what to do, no traceback."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import jwt
import pytest
import yaml
from tests.unit.cli.running import metagate
from typer.main import get_command

from metagate_cli.main import _app


@pytest.mark.invariant("EXT-10")
def test_a_key_is_shown_once(tmp_path: Path) -> None:
    """The key is the first line, the rest is YAML that holds its digest only; `verify` recognises it."""
    done = metagate("keys", "create", "indexer", "--expires", "90d")
    key, rest = done.stdout.split("\n", 1)
    assert re.fullmatch(r"mgk_[0-9A-Za-z]{10}_[0-9A-Za-z]{49}", key)
    assert key not in rest
    (declared,) = yaml.safe_load(rest)["spec"]["apiKeys"]
    assert set(declared) == {"id", "sha256", "expiresAt"}
    checked = metagate("keys", "verify", stdin=key + "\n")
    assert checked.returncode == 0
    assert declared["sha256"] in checked.stdout
    wrong = metagate("keys", "verify", stdin=key[:-1] + ("0" if key[-1] != "0" else "1"))
    assert (wrong.returncode, wrong.stdout) == (1, "")
    file = tmp_path / "key"
    kept = metagate("keys", "create", "indexer", "--key-file", file)
    assert "mgk_" not in kept.stdout
    assert file.stat().st_mode & 0o777 == 0o600
    assert metagate("keys", "create", "indexer", "--key-file", file).returncode == 3
    assert metagate("keys", "verify", file).returncode == 0


def test_a_key_with_its_whole_principal(tmp_path: Path) -> None:
    """With --type what is printed can be applied as it is: it is valid, and the key is not in it."""
    done = metagate("keys", "create", "ada", "--type", "admin", "-n", "agents", "--expires", "1h")
    key = re.search(r"mgk_\w+", done.stderr)
    assert key is not None
    assert key[0] not in done.stdout
    resource = yaml.safe_load(done.stdout)
    assert (resource["metadata"], resource["spec"]["type"]) == ({"name": "ada", "namespace": "agents"}, "admin")
    assert resource["spec"]["apiKeys"][0]["sha256"] in metagate("keys", "verify", stdin=key[0]).stdout
    file = tmp_path / "ada.yaml"
    file.write_text(done.stdout)
    assert metagate("validate", file).returncode == 0
    quiet = metagate("keys", "create", "ada", "--type", "observer", "--key-file", tmp_path / "ada.key")
    assert quiet.stderr == ""
    wrong = metagate("keys", "create", "ada", "--type", "king")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "admin, observer" in wrong.stderr


def test_a_token_needs_the_secret() -> None:
    """Off while JWT_SECRET is unset (D-37); with it, a token of the configured issuer that expires."""
    off = metagate("token", "create", "me")
    assert (off.returncode, off.stdout) == (3, "")
    assert "JWT_SECRET" in off.stderr
    secret = "a-secret-of-more-than-thirty-two-bytes"
    token = metagate("token", "create", "me", "--expires", "5m", JWT_SECRET=secret).stdout.strip()
    claims = jwt.decode(token, secret, algorithms=["HS256"], options={"verify_aud": False})
    assert (claims["iss"], claims["sub"], claims["exp"] - claims["iat"]) == ("metagate", "me", 300)
    published = metagate("token", "create", "me", JWT_SECRET="change-me-in-production")
    assert published.returncode == 3
    assert "JWT_SECRET" in published.stderr
    assert "change-me" not in published.stderr


def test_crds_are_yaml(tmp_path: Path) -> None:
    """Eight definitions, printed for kubectl or written one by one."""
    printed = [document for document in yaml.safe_load_all(metagate("crds").stdout) if document]
    assert [document["kind"] for document in printed] == ["CustomResourceDefinition"] * 8
    assert metagate("crds", "--directory", tmp_path).returncode == 0
    assert len(list(tmp_path.glob("*.yaml"))) == 8


@pytest.mark.parametrize("command", ["version", "--version"])
def test_version(command: str) -> None:
    """A version and nothing else."""
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", metagate(command).stdout)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["migrate"], 3, "the database does not answer"),
        (["dev", "--resources", "/nowhere"], 3, "/nowhere: there is no such directory"),
        (["keys", "create", "x", "--expires", "soon"], 2, "90d"),
        (["serve", "--workers", "0"], 3, "a setting is wrong: workers"),
        (["nonsense"], 2, "nonsense"),
    ],
)
def test_failures_are_one_line(arguments: list[str], code: int, says: str) -> None:
    """Exit code and message, never a traceback, never a DSN."""
    done = metagate(*arguments, DATABASE_URL="postgresql://u:hunter2@127.0.0.1:1/x")
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["operator"], ["doctor"], ["dev", "--resources", "/"]])
def test_a_malformed_database_url(command: list[str]) -> None:
    """One line that names the setting and nothing that stands in it, with the exit code of a wrong setting."""
    url = "postgresql://u:hunter2@h:port/x"
    if command[0] == "dev":
        command = [*command, "--database-url", url]
    done = metagate(*command, DATABASE_URL=url, KUBECONFIG="/nowhere")
    assert done.returncode == 3, done.stderr
    line = done.stderr.splitlines()[-1]
    assert line.startswith("metagate: a setting is wrong: ")
    assert "--database-url" in line or "DATABASE_URL" in line
    assert "hunter2" not in done.stderr + done.stdout


@pytest.mark.parametrize(
    ("command", "setting"),
    [
        (["serve"], "MEMORYGATE_DATABASE_URL"),
        (["serve"], "MEMORYGATE_IDENTITY_DATABASE_URL"),
        (["verify"], "MEMORYGATE_DATABASE_URL"),
        (["export", "--before", "2026-01-01"], "MEMORYGATE_DATABASE_URL"),
    ],
)
def test_a_malformed_database_url_of_the_ledger(command: list[str], setting: str) -> None:
    """The ledger's command says it in the same way."""
    done = subprocess.run(
        [sys.executable, "-c", "from memorygate.main import main; main()", *command],
        env={**os.environ, "MEMORYGATE_PORT": "0", setting: "postgresql://u:hunter2@h:port/x"},  # noqa: TID251 - handed on
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 3, done.stderr
    assert f"memorygate: {setting} names a port that is not a number" in done.stderr
    assert "hunter2" not in done.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
@pytest.mark.parametrize(
    ("setting", "value", "says"),
    [
        ("API_KEY_HEADER", "authorization", "a setting is wrong: API_KEY_HEADER"),
        ("METAGATE_SIGNING_KEY_FILE", "/nowhere/key.pem", "/nowhere/key.pem: No such file"),
        ("METAGATE_SIGNING_KEY_FILE", __file__, "a setting is wrong: the signing key"),
        ("METAGATE_TLS_CERT", "/nowhere/cert.pem", "/nowhere/cert.pem: No such file"),
        ("METAGATE_TLS_CERT", __file__, "a setting is wrong: METAGATE_TLS_CERT"),
    ],
)
def test_settings_that_cannot_be_used(setting: str, value: str, says: str, workers: str) -> None:
    """The API says which and ends, with any number of workers, instead of starting workers that die."""
    done = metagate(
        "serve", "--port", "0", "--workers", workers, METAGATE_TLS_KEY=_key_beside(setting), **{setting: value}
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"metagate: {says}")


def _key_beside(setting: str) -> str:
    return __file__ if setting == "METAGATE_TLS_CERT" else ""


@pytest.mark.parametrize("command", ["admission", "operator"])
def test_what_kubernetes_injects_configures_nothing(command: str) -> None:
    """A Service named metagate-admission or metagate-metrics must not become somebody's port."""
    injected = {"METAGATE_ADMISSION_PORT": "tcp://10.0.0.1:443", "METAGATE_METRICS_PORT": "tcp://10.0.0.1:9090"}
    done = metagate(command, KUBECONFIG="/nowhere", **injected)
    assert done.returncode == 3, done.stderr
    assert "METRICS_PORT" not in done.stderr
    assert "ADMISSION_PORT" not in done.stderr


def test_help_is_plain_in_a_pipe() -> None:
    """No escape codes where nobody can see them; every command is named."""
    done = metagate("--help")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    for command in ("dev", "quickstart", "serve", "migrate", "validate", "compile", "crds", "keys", "token", "version"):
        assert command in done.stdout


def test_help_fits_80_columns() -> None:
    """The commands stand in groups, every one in one; of each a sentence that ends within 80 columns."""
    lines = metagate("--help", COLUMNS="80").stdout.splitlines()
    assert max(map(len, lines)) <= 80
    titles = [line[:-1] for line in lines if re.fullmatch(r"\w.*:", line)]
    assert titles[:3] == ["Options", "On one machine", "Declared files"]
    commands = [line for line in lines if re.match(r"  [a-z]+ {2,}\w", line)]
    assert {line.split()[0] for line in commands} == get_command(_app()).commands.keys()  # type: ignore[attr-defined]
    assert [line for line in commands if not line.endswith(".")] == []


def test_help_is_quick() -> None:
    """A person who asks what there is waits for nothing: less than 0.3 s of CPU, the best of three."""
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        metagate("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3


def test_the_pod_commands_import_nothing() -> None:
    """`bootstrap`, `ready`, `failed`, `run` go to the client before anything else is loaded."""
    code = (
        "import sys; sys.argv = ['metagate', 'ready', '--help']\n"
        "from metagate_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'typer', 'click', 'rich', 'pydantic', 'asyncpg', 'fastapi', 'yaml', 'metagate_api'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr.strip() == "[]"


def test_the_offline_commands_import_no_server() -> None:
    """Judging files needs neither a database driver nor a web framework."""
    code = (
        "import sys; sys.argv = ['metagate', 'validate', 'examples']\n"
        "from metagate_cli.main import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'fastapi', 'uvicorn', 'kopf', 'kubernetes'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout.strip() == "[]"
