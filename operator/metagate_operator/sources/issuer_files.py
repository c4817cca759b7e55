"""TokenIssuers from mounted files, where the operator may not read those of the cluster."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from uuid import NAMESPACE_URL, uuid5

from metagate_crds.kinds import GROUP, TOKEN_ISSUER
from metagate_crds.objects import DeclaredObject, ObjectKey
from metagate_operator.sources.documents import read_documents
from metagate_operator.sources.source import SourceUnavailable

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read_issuer_files(directory: Path) -> tuple[DeclaredObject, ...]:
    """Every TokenIssuer in the directory's YAML files; the first of two with one name, in the order of files, counts.

    The same name is the same object, and a later file a later generation. Hidden names are skipped: a mounted ConfigMap
    keeps its versions there.

    Raises:
        SourceUnavailable: the directory or a file cannot be read whole, so nothing may be concluded from absence.

    """
    issuers: dict[str, DeclaredObject] = {}
    try:
        files = sorted(
            file for file in directory.iterdir() if file.suffix in {".yaml", ".yml"} and not file.name.startswith(".")
        )
        for file in files:
            contents = read_documents(file.read_bytes(), file.name)
            if contents.broken:
                raise SourceUnavailable(f"{directory}: {contents.problems[0]}")
            written = int(file.stat().st_mtime)
            for document in contents.documents:
                if document.kind == TOKEN_ISSUER.name:
                    uid = str(uuid5(NAMESPACE_URL, f"{GROUP}/{document.name}"))
                    key = ObjectKey(TOKEN_ISSUER.name, "", document.name)
                    issuers.setdefault(document.name, DeclaredObject(key, uid, written, EPOCH, document.spec))
    except OSError as error:
        raise SourceUnavailable(f"{directory}: {error.strerror}") from error
    return tuple(issuers.values())
