-- Who may do what. Applied after every migration, so it always says everything; nothing is granted anywhere else.

REVOKE ALL ON SCHEMA asyncgate FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA asyncgate FROM PUBLIC, asyncgate_broker, memorygate_auditor;
REVOKE ALL ON ALL ROUTINES IN SCHEMA asyncgate FROM PUBLIC, asyncgate_broker, memorygate_auditor;
GRANT USAGE ON SCHEMA asyncgate TO asyncgate_broker, memorygate_auditor;

-- The gate's process acts by functions and touches no table, neither here nor in the ledger (D-57).
GRANT EXECUTE ON FUNCTION
    asyncgate.state, asyncgate.enqueue, asyncgate.lease, asyncgate.lease_tasks, asyncgate.renew, asyncgate.end_leases, asyncgate.revoke, asyncgate.revoke_minted,
    asyncgate.owner_of, asyncgate.expire_overdue, asyncgate.meet_needs, asyncgate.purge, asyncgate.tasks, asyncgate.depth, asyncgate.totals,
    asyncgate.held_lease, asyncgate.task_view, asyncgate.admission_receipt, asyncgate.tasks_in_state, asyncgate.admission_receipts
TO asyncgate_broker;

-- `orphans` reads tasks beside receipts: the role that may read the one may read the other.
GRANT SELECT ON ALL TABLES IN SCHEMA asyncgate TO memorygate_auditor;

-- Other gates ask whether a lease is live, in their own statements (AG-06). A role that does not exist yet is granted when it does and
-- `asyncgate migrate` is run again.
DO $$
DECLARE
    reader text;
BEGIN
    FOREACH reader IN ARRAY '{interrogate_owner,depotgate_owner}'::text[] LOOP
        IF EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = reader) THEN
            EXECUTE format('REVOKE ALL ON ALL ROUTINES IN SCHEMA asyncgate FROM %I', reader);
            EXECUTE format('GRANT USAGE ON SCHEMA asyncgate TO %I', reader);
            EXECUTE format('GRANT EXECUTE ON FUNCTION asyncgate.live_lease, asyncgate.hold_leases TO %I', reader);
        END IF;
    END LOOP;
END
$$;
