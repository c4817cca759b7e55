"""The witness record mirrored to the ledger: from outbox row to receipt, sent by a relay."""
