"""The ledger's console: stories of tasks, inboxes, admissions and the state of the chains, in the kit's frame."""
