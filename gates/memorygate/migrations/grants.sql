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
    memorygate.settled, memorygate.stream, memorygate.summary, memorygate.state, memorygate.custody, memorygate.stored_digests,
    memorygate.task_page, memorygate.tree_page, memorygate.inbox_page, memorygate.stream_page, memorygate.stream_start,
    memorygate.chain_links, memorygate.receipts, memorygate.last_verification, memorygate.tree_names, memorygate.newest_trees,
    memorygate.admissions, memorygate.admission_reasons, memorygate.verification
TO memorygate_writer;

-- `verify` and `export` read everything and write nothing but what `verify` found.
GRANT SELECT ON ALL TABLES IN SCHEMA memorygate TO memorygate_auditor;
GRANT EXECUTE ON FUNCTION memorygate.link, memorygate.chain_seed, memorygate.ulid_floor, memorygate.ulid_time, memorygate.archive_month
TO memorygate_auditor;
GRANT EXECUTE ON FUNCTION memorygate.drifted, memorygate.moment, memorygate.record_verification TO memorygate_auditor;

-- Other gates emit in their own transactions: each by its own function, and none by another's (D-59). A role that could not be
-- created is left out here; `memorygate migrate` says so, and grants it when it is run again.
DO $$
DECLARE
    gate text;
BEGIN
    FOREACH gate IN ARRAY '{interrogate,asyncgate,depotgate}'::text[] LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = gate || '_owner') THEN
            EXECUTE format('REVOKE ALL ON ALL TABLES IN SCHEMA memorygate FROM %I', gate || '_owner');
            EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA memorygate FROM %I', gate || '_owner');
            EXECUTE format('GRANT USAGE ON SCHEMA memorygate TO %I', gate || '_owner');
            EXECUTE format('GRANT USAGE ON TYPE memorygate.stored_receipt TO %I', gate || '_owner');
            EXECUTE format('GRANT EXECUTE ON FUNCTION memorygate.%I, memorygate.custody, memorygate.roots, memorygate.receipt TO %I',
                           'emit_' || gate, gate || '_owner');
        END IF;
    END LOOP;
    IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = 'interrogate_owner') THEN
        GRANT EXECUTE ON FUNCTION memorygate.task_receipts TO interrogate_owner;
    END IF;
END
$$;
