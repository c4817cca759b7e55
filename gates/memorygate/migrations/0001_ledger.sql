-- The ledger: receipts that are only ever added, and what is derived from them.
--
-- `receipt` is the truth. Everything else (`task`, `obligation`, `dedupe`, `tally`) can be emptied and computed from it again
-- (`memorygate verify --rebuild`), and exists so that no question has to read the whole ledger.
-- No running process has rights on a table: the gate's role may EXECUTE the functions below and nothing else (INV-049, INV-056).

CREATE TABLE memorygate.receipt (
    tenant        uuid        NOT NULL,
    receipt_id    text COLLATE "C" NOT NULL,
    stored_at     timestamptz NOT NULL,
    written_by    xid8        NOT NULL DEFAULT pg_current_xact_id(),
    kind          text COLLATE "C" NOT NULL,
    phase         text COLLATE "C" NOT NULL,
    task_id       text COLLATE "C" NOT NULL,
    root_task_id  text COLLATE "C" NOT NULL,
    position      bigint      NOT NULL CHECK (position > 0),
    obligation_id text COLLATE "C" NOT NULL,
    caused_by     text COLLATE "C",
    body          text        NOT NULL,
    digest        bytea       NOT NULL CHECK (length(digest) = 32),
    previous      bytea       NOT NULL CHECK (length(previous) = 32),
    chain         bytea       NOT NULL CHECK (length(chain) = 32),
    signature     text,
    PRIMARY KEY (receipt_id, tenant)
) PARTITION BY RANGE (receipt_id);

COMMENT ON COLUMN memorygate.receipt.written_by IS 'The transaction that stored it: what is older than every running one cannot be overtaken any more (the stream''s horizon).';
COMMENT ON COLUMN memorygate.receipt.body IS 'RFC 8785, exactly the bytes that were hashed.';
COMMENT ON COLUMN memorygate.receipt.chain IS 'sha256(previous || digest || receipt_id || position || stored_at in microseconds): the chain of its root task.';

-- Each index begins with another column, so that a partition without statistics (the first hours of a month) cannot make the
-- planner take the wrong one: beginning with the tenant in all of them, it read a tenant's every row to find one.
CREATE INDEX receipt_of_task ON memorygate.receipt (task_id, tenant, stored_at, receipt_id);
CREATE INDEX receipt_written ON memorygate.receipt (uuid_hash(tenant), written_by, stored_at);
CREATE INDEX receipt_effects ON memorygate.receipt (caused_by, tenant) WHERE caused_by IS NOT NULL;
CREATE TABLE memorygate.receipt_default PARTITION OF memorygate.receipt DEFAULT;

CREATE TABLE memorygate.task (
    tenant       uuid NOT NULL,
    task_id      text COLLATE "C" NOT NULL,
    root_task_id text COLLATE "C" NOT NULL,
    length       bigint NOT NULL DEFAULT 0,
    head         bytea,
    PRIMARY KEY (task_id, tenant)
) WITH (fillfactor = 70);
COMMENT ON TABLE memorygate.task IS 'Derived: which root a task hangs under, and, in the root''s own row, how long its chain is and where it ends.';

CREATE TABLE memorygate.obligation (
    tenant        uuid NOT NULL,
    kind          text COLLATE "C" NOT NULL,
    obligation_id text COLLATE "C" NOT NULL,
    task_id       text COLLATE "C" NOT NULL,
    principal_ai  text COLLATE "C" NOT NULL,
    custodian     text COLLATE "C" NOT NULL,
    state         text COLLATE "C" NOT NULL CHECK (state IN ('open', 'success', 'failure', 'canceled')),
    opened_by     text COLLATE "C" NOT NULL,
    opened_at     timestamptz NOT NULL,
    moved_by      text COLLATE "C" NOT NULL,
    custody_at    timestamptz NOT NULL,
    due_at        timestamptz,
    closed_by     text COLLATE "C",
    closed_at     timestamptz,
    CHECK ((state = 'open') = (closed_by IS NULL)),
    PRIMARY KEY (obligation_id, kind, tenant)
) WITH (fillfactor = 70);
COMMENT ON TABLE memorygate.obligation IS 'Derived: who has custody of what, and how it ended.';

CREATE INDEX obligation_inbox ON memorygate.obligation (custodian, tenant, kind, custody_at, obligation_id) WHERE state = 'open';
CREATE INDEX obligation_oldest ON memorygate.obligation (uuid_hash(tenant), opened_at) WHERE state = 'open';
CREATE INDEX obligation_due ON memorygate.obligation (uuid_hash(tenant), due_at) WHERE state = 'open' AND due_at IS NOT NULL;

CREATE TABLE memorygate.dedupe (
    tenant     uuid NOT NULL,
    emitter    text COLLATE "C" NOT NULL,
    dedupe_key text COLLATE "C" NOT NULL,
    receipt_id text COLLATE "C" NOT NULL,
    digest     bytea NOT NULL,
    stored_at  timestamptz NOT NULL,
    position   bigint NOT NULL,
    PRIMARY KEY (dedupe_key, emitter, tenant)
);
COMMENT ON TABLE memorygate.dedupe IS 'Derived: which receipt holds an emitter''s dedupe_key. Beside the partitions, which can have no unique key across them.';

CREATE TABLE memorygate.tally (
    tenant           uuid NOT NULL,
    slot             integer NOT NULL,
    receipts         bigint NOT NULL DEFAULT 0,
    obligations      bigint NOT NULL DEFAULT 0,
    succeeded        bigint NOT NULL DEFAULT 0,
    failed           bigint NOT NULL DEFAULT 0,
    canceled         bigint NOT NULL DEFAULT 0,
    startups         bigint NOT NULL DEFAULT 0,
    startups_ready   bigint NOT NULL DEFAULT 0,
    startups_failed  bigint NOT NULL DEFAULT 0,
    last_stored_at   timestamptz NOT NULL,
    PRIMARY KEY (tenant, slot)
) WITH (fillfactor = 50);
COMMENT ON TABLE memorygate.tally IS 'Derived: counts, spread over slots so that writers do not queue for one row; and the latest stored_at, below which no later receipt may fall.';

-- ── partitions by the time in the ULID ──────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION memorygate.ulid_floor(moment timestamptz) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    milliseconds bigint := (extract(epoch FROM moment) * 1000)::bigint;
    digits text := '';
BEGIN
    FOR place IN 1..10 LOOP
        digits := substr('0123456789ABCDEFGHJKMNPQRSTVWXYZ', (milliseconds % 32)::integer + 1, 1) || digits;
        milliseconds := milliseconds / 32;
    END LOOP;
    RETURN digits || repeat('0', 16);
END
$$;
COMMENT ON FUNCTION memorygate.ulid_floor IS 'The smallest ULID of a moment.';

CREATE FUNCTION memorygate.prepare_partitions(months integer) RETURNS integer
LANGUAGE plpgsql SET search_path = memorygate, pg_catalog, pg_temp AS $$
DECLARE
    month timestamptz := date_trunc('month', now(), 'UTC');
    made integer := 0;
    name text;
BEGIN
    FOR _ IN 0..months LOOP
        name := 'receipt_' || to_char(month AT TIME ZONE 'UTC', 'YYYY_MM');
        -- Where such receipts already went into the default partition, they stay there: only slower, never wrong.
        IF to_regclass('memorygate.' || name) IS NULL AND NOT EXISTS (
            SELECT FROM receipt_default
            WHERE receipt_id >= ulid_floor(month) AND receipt_id < ulid_floor(month + interval '1 month')
        ) THEN
            EXECUTE format('CREATE TABLE memorygate.%I PARTITION OF memorygate.receipt FOR VALUES FROM (%L) TO (%L)',
                           name, ulid_floor(month), ulid_floor(month + interval '1 month'));
            made := made + 1;
        END IF;
        month := (month AT TIME ZONE 'UTC' + interval '1 month') AT TIME ZONE 'UTC';
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION memorygate.prepare_partitions IS 'Creates this month''s partition and those of the months to come; run by `memorygate migrate`.';
