-- Who may do what. Applied after every migration, so it always says everything; nothing is granted anywhere else.

REVOKE ALL ON SCHEMA interrogate FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA interrogate FROM PUBLIC, interrogate_writer, memorygate_auditor;
REVOKE ALL ON ALL ROUTINES IN SCHEMA interrogate FROM PUBLIC, interrogate_writer, memorygate_auditor;
GRANT USAGE ON SCHEMA interrogate TO interrogate_writer, memorygate_auditor;

-- The gate's process decides by functions and touches no table, neither here nor in the ledger (D-57).
GRANT EXECUTE ON FUNCTION
    interrogate.state, interrogate.observe, interrogate.observe_locked, interrogate.record, interrogate.forwards,
    interrogate.settle_forwards, interrogate.stale_forwards, interrogate.pending_forwards, interrogate.purge, interrogate.decision, interrogate.ruleset,
    interrogate.record_calls, interrogate.settle_calls, interrogate.call_of, interrogate.calls, interrogate.stale_calls,
    interrogate.leased_task,
    interrogate.asked_task, interrogate.task_receipts, interrogate.closed_tasks, interrogate.cancel_handle, interrogate.purge_handles
TO interrogate_writer;

-- `replay` and `verify` read receipts beside what is derived from them: the role that may read the one may read the other.
GRANT SELECT ON ALL TABLES IN SCHEMA interrogate TO memorygate_auditor;
