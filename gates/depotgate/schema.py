"""DepotGate's schema in the ledger's database: its files, its roles, what is set on them."""

from typing import Final

from legivellum.postgres.migrations import WRITER_SETTINGS, Schema

OWNER: Final = "depotgate_owner"
KEEPER: Final = "depotgate_keeper"

DEPOTGATE = Schema(
    name="depotgate",
    package="depotgate",
    lock=0x6465706F_74676174,
    owner=OWNER,
    roles={KEEPER: WRITER_SETTINGS},
)
