"""A working folder: a copy of one of the examples, and keys for some of its Principals."""

from __future__ import annotations

import os
import shutil
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from metagate_cli.terminal import UNABLE, Stop

KEYED: Final = ("indexer", "admin")


class QuickstartFiles:
    """`<folder>/resources` is the person's, `<folder>/data` is ours; keys are in `<folder>/data/keys`, 0600.

    `keyed`: the Principals of the example that are given a key.
    """

    def __init__(self, folder: Path, example: str = "quickstart", keyed: Sequence[str] = KEYED) -> None:
        self._example, self._keyed = example, keyed
        self.resources = folder / "resources"
        self.data = folder / "data"

    def prepare(self) -> bool:
        """Copy the examples and mint keys where there are none. True when the examples were copied now.

        Raises:
            Stop: the examples are not installed, or a Principal can be given no key.

        """
        created = not self.resources.exists()
        keys = self.data / "keys"
        keys.mkdir(mode=0o700, parents=True, exist_ok=True)
        if created:
            temporary = Path(tempfile.mkdtemp(prefix=".resources-", dir=self.resources.parent))
            try:
                shutil.copytree(examples(self._example), temporary, dirs_exist_ok=True)
                temporary.chmod(0o755)
                for name in self._keyed:
                    (keys / f"{name}.key").unlink(missing_ok=True)  # belongs to declarations that are gone
                    self._mint_key(temporary, name)
                temporary.replace(self.resources)
            except BaseException:
                shutil.rmtree(temporary, ignore_errors=True)
                raise
        else:
            for name in self._keyed:
                if not (keys / f"{name}.key").exists():
                    self._mint_key(self.resources, name)
        return created

    def _mint_key(self, resources: Path, name: str) -> None:
        """Mint a key, declare its digest, then keep the key."""
        from legivellum.identity.api_keys import mint

        file = resources / "principals" / f"{name}.yaml"
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        declaration_line = "  apiKeys: []\n" if "  apiKeys: []\n" in text else "  apiKeys:\n"
        if declaration_line not in text:
            raise Stop(
                f"no key for {name} in {self.data}/keys and no `apiKeys:` in {file} to declare one: "
                f"move {self.resources.parent} away to start anew",
                code=UNABLE,
            )
        key = mint()
        declared = f'  apiKeys:\n  - {{id: {key.id}, sha256: "{key.sha256}"}}\n'
        temporary = file.with_name(f".{file.name}.new")
        temporary.write_text(text.replace(declaration_line, declared, 1), encoding="utf-8")
        key_file = self.data / "keys" / f"{name}.key"
        with os.fdopen(os.open(key_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as opened:
            opened.write(key.key + "\n")
        temporary.replace(file)


def examples(name: str) -> Path:
    """The folder of an example, in a source checkout or beside an installed wheel."""
    candidates = (
        Path(__file__).resolve().parents[2] / "examples" / name,
        Path(sysconfig.get_path("data")) / "share" / "metagate" / "examples" / name,
    )
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise Stop("the examples are not installed: run this from a source checkout", code=UNABLE)
