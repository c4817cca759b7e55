-- Who may do what. Applied after every migration, so it always says everything; nothing is granted anywhere else.

REVOKE ALL ON SCHEMA memorygate FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA memorygate FROM PUBLIC, memorygate_writer, memorygate_auditor;
REVOKE ALL ON ALL ROUTINES IN SCHEMA memorygate FROM PUBLIC, memorygate_writer, memorygate_auditor;
REVOKE ALL ON TYPE memorygate.stored_receipt FROM PUBLIC;
GRANT USAGE ON SCHEMA memorygate TO memorygate_writer, memorygate_auditor;
GRANT USAGE ON TYPE memorygate.stored_receipt TO memorygate_writer;

-- The gate asks and appends by functions; it touches no table, so it can neither change nor delete what is stored (INV-049).
GRANT EXECUTE ON FUNCTION
    memorygate.append, memorygate.receipt, memorygate.task_receipts, memorygate.chain_receipts, memorygate.inbox,
    memorygate.settled, memorygate.stream, memorygate.summary, memorygate.state
TO memorygate_writer;

-- `verify` and `export` read everything and write nothing.
GRANT SELECT ON ALL TABLES IN SCHEMA memorygate TO memorygate_auditor;
GRANT EXECUTE ON FUNCTION memorygate.link, memorygate.chain_seed, memorygate.ulid_floor TO memorygate_auditor;
GRANT EXECUTE ON FUNCTION memorygate.drifted, memorygate.moment TO memorygate_auditor;
