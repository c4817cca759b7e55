"""AsyncGate's schema in the ledger's database: its files, its roles, what is set on them."""

from typing import Final

from legivellum.postgres.migrations import WRITER_SETTINGS, Schema

OWNER: Final = "asyncgate_owner"
BROKER: Final = "asyncgate_broker"
LEASE_READERS: Final = ("interrogate_owner", "depotgate_owner")
"""Owners of the gates that ask whether a lease is live (AG-06)."""

ASYNCGATE = Schema(
    name="asyncgate",
    package="asyncgate",
    lock=0x6173796E_63676174,
    owner=OWNER,
    roles={BROKER: WRITER_SETTINGS},
    granted=LEASE_READERS,
)
