"""InterroGate's schema in the ledger's database: its files, its roles, what is set on them."""

from legivellum.postgres.migrations import WRITER_SETTINGS, Schema

OWNER = "interrogate_owner"
WRITER = "interrogate_writer"

INTERROGATE = Schema(
    name="interrogate",
    package="interrogate",
    lock=0x696E7465_72726F67,
    owner=OWNER,
    roles={WRITER: WRITER_SETTINGS},
)
