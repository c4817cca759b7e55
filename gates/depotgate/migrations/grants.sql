-- Who may do what. Applied after every migration, so it always says everything; nothing is granted anywhere else.

REVOKE ALL ON SCHEMA depotgate FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA depotgate FROM PUBLIC, depotgate_keeper, memorygate_auditor;
REVOKE ALL ON ALL ROUTINES IN SCHEMA depotgate FROM PUBLIC, depotgate_keeper, memorygate_auditor;
GRANT USAGE ON SCHEMA depotgate TO depotgate_keeper, memorygate_auditor;

-- The gate's process acts by functions and touches no table, neither here nor in the ledger (D-57).
GRANT EXECUTE ON FUNCTION
    depotgate.state, depotgate.live_lease, depotgate.store, depotgate.views, depotgate.artifacts, depotgate.totals, depotgate.blobs,
    depotgate.known_keys, depotgate.retire
TO depotgate_keeper;

-- `retire` reads artifacts beside receipts to learn which may go: the role that may read the one may read the other.
GRANT SELECT ON ALL TABLES IN SCHEMA depotgate TO memorygate_auditor;
