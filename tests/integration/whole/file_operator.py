"""The operator over a directory, as a process of its own: `metagate dev` runs the same parts beside the API in one process.

Arguments: the directory of declared resources, and the publisher's DSN.
"""

import asyncio
import sys
from pathlib import Path

from metagate_cli.compile_options import compile_settings
from metagate_operator.reconcile.reconciler import Reconciler
from metagate_operator.reconcile.verdict_log import VerdictLog
from metagate_operator.settings import WriterSettings
from metagate_operator.sources.directory_source import DirectorySource
from metagate_operator.sources.file_identities import FileIdentities
from metagate_store.publisher import Publisher

SYSTEM_NAMESPACE = "metagate-system"


async def operate(resources: Path, dsn: str) -> None:
    publisher = await Publisher.open(dsn)
    identities = FileIdentities()
    source = DirectorySource(resources, identities, system_namespace=SYSTEM_NAMESPACE)
    reconciler = Reconciler(
        source=source,
        publisher=publisher,
        reporter=VerdictLog(source.origin),
        compile_settings=compile_settings(SYSTEM_NAMESPACE),
        settings=WriterSettings(backoff_max_seconds=0.5),
        identities=identities,
    )
    await reconciler.run()


if __name__ == "__main__":
    asyncio.run(operate(Path(sys.argv[1]), sys.argv[2]))
