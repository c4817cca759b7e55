-- What AsyncGate keeps beside its receipts: the tasks it holds and the leases on them, in the ledger's database (D-57).
--
-- The receipts in the ledger are the truth. `task` and `need` can be computed from them again (`asyncgate rebuild`), but for how often
-- a lease was renewed and for the digests by which a repeated request is known. No running process has rights on a table: the gate's
-- role may EXECUTE the functions and nothing else.
--
-- There is no column for an outcome or for progress (INV-075), and none for a payload (INV-064).

CREATE SEQUENCE asyncgate.line AS bigint CACHE 1;
COMMENT ON SEQUENCE asyncgate.line IS 'Places in the line of a mailbox: what comes back gets a new one, and so joins at the end.';

CREATE TABLE asyncgate.task (
    tenant               uuid NOT NULL,
    task_id              text COLLATE "C" NOT NULL,
    obligation_id        text COLLATE "C" NOT NULL,
    principal_ai         text COLLATE "C" NOT NULL,
    capability           text COLLATE "C" NOT NULL,
    minter               text COLLATE "C" NOT NULL,
    root_task_id         text COLLATE "C" NOT NULL,
    depth                integer NOT NULL CHECK (depth >= 0),
    authority            text,
    escalation_to        text[] COLLATE "C" NOT NULL,
    document             text NOT NULL,
    digest               bytea CHECK (length(digest) = 32),
    not_before           timestamptz,
    ttl_seconds          integer NOT NULL CHECK (ttl_seconds > 0),
    max_ttl_seconds      integer NOT NULL CHECK (max_ttl_seconds >= ttl_seconds),
    max_renewals         integer NOT NULL CHECK (max_renewals >= 0),
    max_lifetime_seconds integer NOT NULL CHECK (max_lifetime_seconds > 0),
    max_leases           integer NOT NULL CHECK (max_leases > 0),
    accepted_by          text COLLATE "C" NOT NULL,
    accepted_at          timestamptz NOT NULL,
    available_at         timestamptz NOT NULL,
    seq                  bigint NOT NULL,
    waits                integer NOT NULL CHECK (waits >= 0),
    evidence             text[] COLLATE "C" NOT NULL,
    cause                text COLLATE "C" NOT NULL,
    number               integer NOT NULL DEFAULT 0 CHECK (number >= 0),
    last_holder          text COLLATE "C",
    lease_id             text COLLATE "C" UNIQUE,
    holder               text COLLATE "C",
    issued_by            text COLLATE "C",
    issued_at            timestamptz,
    lease_until          timestamptz,
    latest_expiry        timestamptz,
    renewals_left        integer CHECK (renewals_left >= 0),
    CHECK (num_nulls(lease_id, holder, issued_by, issued_at, lease_until, latest_expiry, renewals_left) IN (0, 7)),
    CHECK (lease_id IS NULL OR waits = 0),
    PRIMARY KEY (task_id, tenant)
) WITH (fillfactor = 60);
-- Two live leases on a task cannot be stored (AG-04): the lease is columns of its row. `lease_id` has a whole UNIQUE index, so that a
-- statement that ends a lease changes a key, and waits for everybody who holds the row FOR KEY SHARE; a renewal does not.
CREATE INDEX task_free ON asyncgate.task (capability, tenant, available_at, seq) WHERE lease_until IS NULL AND waits = 0;
CREATE INDEX task_leased ON asyncgate.task (uuid_hash(tenant), capability, lease_until) WHERE lease_until IS NOT NULL;
CREATE INDEX task_overdue ON asyncgate.task (lease_until) WHERE lease_until IS NOT NULL;
-- Conditions on the lease ask for `lease_until`: the index of `lease_id` answers IS NULL and IS NOT NULL too, row by row.
-- Each index begins with another column or expression: with one that began with the plain tenant, a table without statistics was
-- searched for one lease by reading all tasks of its tenant.
CREATE INDEX task_of_tenant ON asyncgate.task (uuid_hash_extended(tenant, 1), capability, task_id);
COMMENT ON TABLE asyncgate.task IS 'Derived: the tasks that are held, each with its lease where it has one.';
COMMENT ON COLUMN asyncgate.task.document IS 'JSON: the task as its acknowledging receipt shows it. SQL never looks inside.';
COMMENT ON COLUMN asyncgate.task.digest IS 'Of the request: the same task again is a replay. NULL after a rebuild: then the document is compared.';
COMMENT ON COLUMN asyncgate.task.waits IS 'How many rows of `need` it has.';
COMMENT ON COLUMN asyncgate.task.evidence IS 'The receipts that closed what it needed.';
COMMENT ON COLUMN asyncgate.task.cause IS 'Its newest receipt queued, expired or revoked: the cause of the next lease.';
COMMENT ON COLUMN asyncgate.task.number IS 'How many leases were issued.';

CREATE TABLE asyncgate.need (
    tenant        uuid NOT NULL,
    obligation_id text COLLATE "C" NOT NULL,
    task_id       text COLLATE "C" NOT NULL,
    elsewhere     boolean NOT NULL,
    PRIMARY KEY (obligation_id, task_id, tenant)
);
CREATE INDEX need_of_task ON asyncgate.need (task_id, tenant);
CREATE INDEX need_elsewhere ON asyncgate.need (tenant, obligation_id) WHERE elsewhere;
COMMENT ON TABLE asyncgate.need IS 'Derived: which open obligations a task waits for. Changed only while its row of `task` is locked.';
COMMENT ON COLUMN asyncgate.need.elsewhere IS 'AsyncGate is not the custodian: nobody tells it of the end, the pass asks the ledger.';

CREATE TABLE asyncgate.archive (
    tenant        uuid NOT NULL,
    task_id       text COLLATE "C" NOT NULL,
    obligation_id text COLLATE "C" NOT NULL,
    principal_ai  text COLLATE "C" NOT NULL,
    capability    text COLLATE "C" NOT NULL,
    minter        text COLLATE "C",
    depth         integer,
    digest        bytea CHECK (length(digest) = 32),
    accepted_by   text COLLATE "C",
    accepted_at   timestamptz,
    how           text COLLATE "C" NOT NULL CHECK (how IN ('returned', 'escalated', 'revoked')),
    ended_by      text COLLATE "C" NOT NULL,
    ended_at      timestamptz NOT NULL,
    lease_id      text COLLATE "C" UNIQUE,
    holder        text COLLATE "C",
    claim_digest  bytea CHECK (length(claim_digest) = 32),
    CHECK (num_nulls(lease_id, holder, claim_digest) IN (0, 3)),
    PRIMARY KEY (task_id, tenant)
);
CREATE INDEX archive_age ON asyncgate.archive (ended_at);
CREATE INDEX archive_of_tenant ON asyncgate.archive (uuid_hash_extended(tenant, 1), capability, task_id);
COMMENT ON TABLE asyncgate.archive IS 'Tasks that are over, for 30 days: how they left, and the digests by which repeated requests are known. No outcome.';

CREATE TABLE asyncgate.admission (
    tenant     uuid NOT NULL,
    receipt_id text COLLATE "C" NOT NULL,
    task_id    text COLLATE "C" NOT NULL,
    used_at    timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (receipt_id, tenant)
);
CREATE INDEX admission_age ON asyncgate.admission (used_at);
COMMENT ON TABLE asyncgate.admission IS 'Admissions that were used: one admits one. An admission is good for ten minutes, and remembered for a day.';

CREATE TABLE asyncgate.request (
    tenant          uuid NOT NULL,
    holder          text COLLATE "C" NOT NULL,
    idempotency_key text COLLATE "C" NOT NULL,
    lease_ids       text[] COLLATE "C" NOT NULL,
    stored_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (idempotency_key, holder, tenant)
);
CREATE INDEX request_age ON asyncgate.request (stored_at);
COMMENT ON TABLE asyncgate.request IS 'Which leases answer an Idempotency-Key, for 24 hours. The key again answers those of them that are live, and issues none.';

CREATE FUNCTION asyncgate.state() RETURNS TABLE (schema_version integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT max(version) FROM asyncgate.migration $$;

-- ── what the verbs share ─────────────────────────────────────────────────────────────────────────────────────────────

-- The ledger's locks are numbers from zero upwards, a gate's are below zero.
CREATE FUNCTION asyncgate.lock_key(name text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended(name, 20270017) | x'8000000000000000'::bigint;

-- Ids of a statement: 22 characters that Python made, and the last four counted (AG-17).
CREATE FUNCTION asyncgate.ulid(prefix text, number bigint) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN prefix
    || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((number >> 15) & 31)::integer + 1, 1)
    || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((number >> 10) & 31)::integer + 1, 1)
    || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', ((number >> 5) & 31)::integer + 1, 1)
    || substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (number & 31)::integer + 1, 1);

CREATE FUNCTION asyncgate.rfc3339(moment timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN to_char(moment AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

-- A receipt from its form (receipt_forms.py): each U+001E and letter is replaced by a JSON value. Canonical JSON holds no raw control
-- character, so no value that anybody sent can be taken for one.
CREATE FUNCTION asyncgate.put(form text, letter text, value text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(form, chr(30) || letter, coalesce(to_json(value)::text, 'null'));

CREATE FUNCTION asyncgate.filled(
    form text, receipt_id text, tenant uuid, task_id text, obligation_id text, principal_ai text, cause text
) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(replace(replace(replace(replace(replace(
    form,
    chr(30) || 'I', to_json(receipt_id)::text), chr(30) || 'N', to_json(tenant::text)::text),
    chr(30) || 'T', to_json(task_id)::text), chr(30) || 'O', to_json(obligation_id)::text),
    chr(30) || 'P', to_json(principal_ai)::text), chr(30) || 'C', to_json(cause)::text);
