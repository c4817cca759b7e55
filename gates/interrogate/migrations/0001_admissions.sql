-- What InterroGate keeps beside its receipts: counters, marks and forwards, in the ledger's database (D-57).
--
-- The receipts in the ledger are the truth. `root`, `capability`, `admitted` and `lease` are derived from them and can be computed again
-- (`interrogate verify --rebuild`). They exist so that a decision reads a bounded number of rows, whatever the size of the tree (INV-106).
-- No running process has rights on a table: the gate's role may EXECUTE the functions and nothing else.

CREATE TABLE interrogate.root (
    tenant       uuid NOT NULL,
    root_task_id text COLLATE "C" NOT NULL,
    version      bigint NOT NULL CHECK (version > 0),
    descendants  bigint NOT NULL CHECK (descendants >= 0),
    PRIMARY KEY (root_task_id, tenant)
) WITH (fillfactor = 70);
COMMENT ON TABLE interrogate.root IS 'Derived: how many requests were admitted under a root, and how many of them are its descendants.';

CREATE TABLE interrogate.capability (
    tenant        uuid NOT NULL,
    root_task_id  text COLLATE "C" NOT NULL,
    capability_id text COLLATE "C" NOT NULL,
    admissions    bigint NOT NULL CHECK (admissions > 0),
    PRIMARY KEY (root_task_id, capability_id, tenant)
) WITH (fillfactor = 70);
COMMENT ON TABLE interrogate.capability IS 'Derived: how often each capability was admitted under a root.';

CREATE TABLE interrogate.admitted (
    tenant         uuid NOT NULL,
    task_id        text COLLATE "C" NOT NULL,
    root_task_id   text COLLATE "C" NOT NULL,
    parent_task_id text COLLATE "C",
    depth          integer NOT NULL CHECK (depth >= 0),
    budget         bigint,
    recent         text NOT NULL,
    receipt_id     text COLLATE "C" NOT NULL,
    principal_key  text COLLATE "C" NOT NULL,
    digest         bytea NOT NULL CHECK (length(digest) = 32),
    PRIMARY KEY (task_id, tenant)
);
COMMENT ON TABLE interrogate.admitted IS 'Derived, but for `digest`: the lineage of each admitted task, from which that of its children follows.';
COMMENT ON COLUMN interrogate.admitted.budget IS 'What is left for its children; NULL: no budget is counted in this tree.';
COMMENT ON COLUMN interrogate.admitted.recent IS 'JSON: capabilities of the task and its nearest ancestors, nearest first. SQL never looks inside.';
COMMENT ON COLUMN interrogate.admitted.digest IS 'Of the envelope: the same envelope again is a replay (IG-07).';

CREATE TABLE interrogate.lease (
    tenant   uuid NOT NULL,
    lease_id text COLLATE "C" NOT NULL,
    spawned  integer NOT NULL CHECK (spawned > 0),
    PRIMARY KEY (lease_id, tenant)
) WITH (fillfactor = 70);
COMMENT ON TABLE interrogate.lease IS 'Derived: how many requests were admitted under a lease (IG-05).';

CREATE TABLE interrogate.rate (
    tenant   uuid NOT NULL,
    rate_key text COLLATE "C" NOT NULL,
    tat      bigint NOT NULL,
    PRIMARY KEY (rate_key, tenant)
) WITH (fillfactor = 50);
COMMENT ON TABLE interrogate.rate IS 'Theoretical arrival times of GCRA, in microseconds since 1970. Logged: a crash must not refill a bucket (IG-11).';

CREATE TABLE interrogate.request (
    tenant          uuid NOT NULL,
    principal_key   text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    digest          bytea NOT NULL CHECK (length(digest) = 32),
    receipt_id      text COLLATE "C" NOT NULL,
    stored_at       timestamptz NOT NULL,
    PRIMARY KEY (idempotency_key, principal_key, tenant)
);
CREATE INDEX request_age ON interrogate.request (stored_at);
COMMENT ON TABLE interrogate.request IS 'Which decision answers an Idempotency-Key. It holds for 24 hours and is purged after them.';

CREATE TABLE interrogate.forward (
    tenant                uuid NOT NULL,
    receipt_id            text COLLATE "C" NOT NULL,
    target                text COLLATE "C" NOT NULL,
    state                 text COLLATE "C" NOT NULL DEFAULT 'pending' CHECK (state IN ('pending', 'delivered', 'failed')),
    status                integer,
    reason                text COLLATE "C",
    answer                text,
    escalate_to           text COLLATE "C" NOT NULL,
    escalation_receipt_id text COLLATE "C",
    created_at            timestamptz NOT NULL DEFAULT clock_timestamp(),
    settled_at            timestamptz,
    CHECK ((state = 'pending') = (settled_at IS NULL)),
    CHECK ((state = 'failed') = (escalation_receipt_id IS NOT NULL)),
    PRIMARY KEY (receipt_id, target, tenant)
) WITH (fillfactor = 70);
CREATE INDEX forward_pending ON interrogate.forward (created_at) WHERE state = 'pending';
CREATE INDEX forward_settled ON interrogate.forward (settled_at) WHERE state <> 'pending';
COMMENT ON TABLE interrogate.forward IS 'What became of each target of a decision. A failed one names the escalate receipt of the same commit.';
COMMENT ON COLUMN interrogate.forward.answer IS 'JSON: what the target answered, for whoever repeats the request.';

CREATE TABLE interrogate.ruleset (
    policy_hash text COLLATE "C" PRIMARY KEY,
    body        text NOT NULL
);
COMMENT ON TABLE interrogate.ruleset IS 'Each policy under which something was decided, so that a replay needs no MetaGate (IG-06).';

CREATE TABLE interrogate.profile (
    tenant   uuid NOT NULL,
    profile  text COLLATE "C" NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (profile, tenant)
) WITH (fillfactor = 50);
COMMENT ON TABLE interrogate.profile IS 'The highest revision of a policy that was used: no decision falls under an older one any more (IG-06).';

CREATE FUNCTION interrogate.state() RETURNS TABLE (schema_version integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT max(version) FROM interrogate.migration $$;
