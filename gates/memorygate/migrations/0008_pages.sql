-- Pages that end at a number of bytes (D-66), the views that other gates' tools ask for, and the result of the last `verify`.
--
-- A page is at most `most` rows, and ends before the row with which the bodies would exceed `bytes`; one row always fits. `more`
-- says on every row whether another page follows. The lengths are read without the bodies, so what is left out costs nothing.
-- The functions of 0003 stay: a process of the release before still asks them during a rolling upgrade.

-- Receipts of a whole tree, in the order of its chain: replaying a root is one range of this index.
CREATE INDEX receipt_of_root ON memorygate.receipt (root_task_id, tenant, position);

CREATE FUNCTION memorygate.task_page(tenant uuid, task_id text, after_at timestamptz, after_id text, most integer, bytes bigint)
RETURNS TABLE (
    receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint, digest bytea, chain bytea, signature text, body text, more boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT p.receipt_id, p.stored_at, p.root_task_id, p.position, p.digest, p.chain, p.signature, p.body, p.found > count(*) OVER ()
    FROM (
        SELECT q.*, row_number() OVER w AS place, sum(octet_length(q.body)) OVER w AS so_far, count(*) OVER () AS found
        FROM (SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
              FROM receipt AS r
              WHERE r.tenant = $1 AND r.task_id = $2 AND (r.stored_at, r.receipt_id) > ($3, $4 COLLATE "C")
              ORDER BY r.stored_at, r.receipt_id LIMIT $5 + 1) AS q
        WINDOW w AS (ORDER BY q.stored_at, q.receipt_id)
    ) AS p
    WHERE p.place = 1 OR (p.place <= $5 AND p.so_far <= $6)
    ORDER BY p.stored_at, p.receipt_id;
END
$$;

CREATE FUNCTION memorygate.root_page(tenant uuid, task_id text, after_position bigint, most integer, bytes bigint)
RETURNS TABLE (
    receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint, digest bytea, chain bytea, signature text, body text, more boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    root text := (SELECT t.root_task_id FROM task AS t WHERE t.task_id = $2 AND t.tenant = $1 LIMIT 1);
BEGIN
    RETURN QUERY
    SELECT p.receipt_id, p.stored_at, p.root_task_id, p.position, p.digest, p.chain, p.signature, p.body, p.found > count(*) OVER ()
    FROM (
        SELECT q.*, row_number() OVER w AS place, sum(octet_length(q.body)) OVER w AS so_far, count(*) OVER () AS found
        FROM (SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
              FROM receipt AS r
              WHERE r.root_task_id = root AND r.tenant = $1 AND r.position > $3
              ORDER BY r.position LIMIT $4 + 1) AS q
        WINDOW w AS (ORDER BY q.position)
    ) AS p
    WHERE p.place = 1 OR (p.place <= $4 AND p.so_far <= $5)
    ORDER BY p.position;
END
$$;
COMMENT ON FUNCTION memorygate.root_page IS 'Receipts of the whole tree in which a task hangs, in the order of its chain.';

CREATE FUNCTION memorygate.inbox_page(
    tenant uuid, custodian text, kind text, task_id text, principal_ai text, after_at timestamptz, after_id text, most integer, bytes bigint
) RETURNS TABLE (
    obligation_id text, held_kind text, held_task_id text, held_principal_ai text, opened_at timestamptz, opened_by text,
    moved_by text, custody_at timestamptz, due_at timestamptz, body text, more boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    page obligation[];
    lowest text;
    highest text;
BEGIN
    SELECT array_agg(o), min(o.moved_by), max(o.moved_by) INTO page, lowest, highest
    FROM (SELECT x.* FROM obligation AS x
          WHERE x.state = 'open' AND x.tenant = $1 AND x.custodian = $2 AND x.kind = $3
            AND (x.custody_at, x.obligation_id) > ($6, $7 COLLATE "C")
            AND ($4 IS NULL OR x.task_id = $4) AND ($5 IS NULL OR x.principal_ai = $5)
          ORDER BY x.custody_at, x.obligation_id LIMIT $8 + 1) AS o;
    RETURN QUERY
    SELECT p.obligation_id, p.kind, p.task_id, p.principal_ai, p.opened_at, p.opened_by, p.moved_by, p.custody_at, p.due_at, p.body,
           p.found > count(*) OVER ()
    FROM (
        SELECT o.*, r.body, row_number() OVER w AS place, sum(octet_length(r.body)) OVER w AS so_far, count(*) OVER () AS found
        FROM unnest(page) AS o
        CROSS JOIN LATERAL (SELECT x.body FROM receipt AS x
                            WHERE x.tenant = $1 AND x.receipt_id = o.moved_by AND x.receipt_id BETWEEN lowest AND highest LIMIT 1) AS r
        WINDOW w AS (ORDER BY o.custody_at, o.obligation_id)
    ) AS p
    WHERE p.place = 1 OR (p.place <= $8 AND p.so_far <= $9)
    ORDER BY p.custody_at, p.obligation_id;
END
$$;

CREATE FUNCTION memorygate.stream_page(tenant uuid, after_written xid8, after_at timestamptz, since timestamptz, most integer, bytes bigint)
RETURNS TABLE (
    written_by xid8, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint, digest bytea, chain bytea,
    signature text, body text, more boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT p.written_by, p.receipt_id, p.stored_at, p.root_task_id, p.position, p.digest, p.chain, p.signature, p.body,
           p.found > count(*) OVER ()
    FROM (
        SELECT q.*, row_number() OVER w AS place, sum(octet_length(q.body)) OVER w AS so_far, count(*) OVER () AS found
        FROM (SELECT r.written_by, r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
              FROM receipt AS r
              WHERE uuid_hash(r.tenant) = uuid_hash($1) AND r.tenant = $1 AND (r.written_by, r.stored_at) > ($2, $3)
                AND r.written_by < pg_snapshot_xmin(pg_current_snapshot()) AND ($4 IS NULL OR r.stored_at >= $4)
              ORDER BY r.written_by, r.stored_at LIMIT $5 + 1) AS q
        WINDOW w AS (ORDER BY q.written_by, q.stored_at)
    ) AS p
    WHERE p.place = 1 OR (p.place <= $5 AND p.so_far <= $6)
    ORDER BY p.written_by, p.stored_at;
END
$$;
COMMENT ON FUNCTION memorygate.stream_page IS 'Receipts in the order of the stream, up to its horizon; with `since`, those stored from then on.';

-- Where in the stream a time begins. The stream is ordered by transaction, not by time, and there is no index by time; transactions
-- and times grow together but for the length of a transaction, so this halves the range of transactions about forty times.
CREATE FUNCTION memorygate.stream_start(tenant uuid, since timestamptz) RETURNS xid8
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    slack CONSTANT interval := '10 minutes';  -- longer than any transaction that stores receipts
    low numeric := 0;
    high numeric := pg_snapshot_xmin(pg_current_snapshot())::text::numeric;
    middle numeric;
    at timestamptz;
BEGIN
    WHILE high - low > 1 LOOP
        middle := floor((low + high) / 2);
        SELECT r.stored_at INTO at FROM receipt AS r
        WHERE uuid_hash(r.tenant) = uuid_hash($1) AND r.tenant = $1 AND r.written_by >= middle::text::xid8
        ORDER BY r.written_by, r.stored_at LIMIT 1;
        IF at IS NULL OR at >= $2 - slack THEN
            high := middle;
        ELSE
            low := middle;
        END IF;
    END LOOP;
    RETURN low::text::xid8;
END
$$;

-- The causes of a chain without its bodies: a page of it is chosen from these, and then read by id.
CREATE FUNCTION memorygate.chain_links(tenant uuid, receipt_id text, most integer)
RETURNS TABLE (linked_id text, caused_by text, stored_at timestamptz, bytes integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    past text[];
    linked text[];
BEGIN
    WITH RECURSIVE up AS (
        SELECT r.receipt_id, r.caused_by, 1 AS depth FROM receipt AS r WHERE r.tenant = $1 AND r.receipt_id = $2
        UNION ALL
        SELECT r.receipt_id, r.caused_by, up.depth + 1
        FROM up CROSS JOIN LATERAL (
            SELECT x.receipt_id, x.caused_by FROM receipt AS x WHERE x.tenant = $1 AND x.receipt_id = up.caused_by LIMIT 1) AS r
        WHERE up.depth < $3
    ) CYCLE receipt_id SET looped USING path
    SELECT array_agg(up.receipt_id ORDER BY up.depth) INTO past FROM up WHERE NOT up.looped;

    WITH RECURSIVE down AS (
        SELECT past[cardinality(past)] COLLATE "C" AS id
        UNION
        SELECT r.receipt_id FROM down CROSS JOIN LATERAL (
            SELECT x.receipt_id FROM receipt AS x WHERE x.tenant = $1 AND x.caused_by = down.id OFFSET 0) AS r
    ), bounded AS (SELECT id FROM down LIMIT $3)
    SELECT array_agg(id) INTO linked FROM (
        SELECT id FROM unnest(past) WITH ORDINALITY AS u(id, place)
        UNION SELECT id FROM bounded) AS both_ways;

    RETURN QUERY
    SELECT r.receipt_id, r.caused_by, r.stored_at, octet_length(r.body)
    FROM unnest(linked) AS u(id)
    CROSS JOIN LATERAL (SELECT x.* FROM receipt AS x WHERE x.tenant = $1 AND x.receipt_id = u.id LIMIT 1) AS r
    ORDER BY r.stored_at, r.receipt_id;
END
$$;

CREATE FUNCTION memorygate.receipts(tenant uuid, receipt_ids text[]) RETURNS SETOF memorygate.stored_receipt
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
    FROM unnest($2) AS u(id)
    CROSS JOIN LATERAL (SELECT x.* FROM receipt AS x WHERE x.tenant = $1 AND x.receipt_id = u.id LIMIT 1) AS r
    ORDER BY r.stored_at, r.receipt_id;
END
$$;

-- ── the last verification ────────────────────────────────────────────────────────────────────────────────────────────

CREATE TABLE memorygate.verification (
    only_one     boolean PRIMARY KEY DEFAULT true CHECK (only_one),
    started_at   timestamptz NOT NULL,
    finished_at  timestamptz NOT NULL,
    receipts     bigint NOT NULL,
    roots        bigint NOT NULL,
    rebuilt      boolean NOT NULL,
    bad_tenant   text,
    bad_place    text,
    bad_reason   text
);
COMMENT ON TABLE memorygate.verification IS 'What the last `memorygate verify` of this database found, and when; bad_… are NULL where everything held.';

CREATE FUNCTION memorygate.record_verification(
    started_at timestamptz, receipts bigint, roots bigint, rebuilt boolean, bad_tenant text, bad_place text, bad_reason text
) RETURNS void
LANGUAGE sql SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
    INSERT INTO verification (started_at, finished_at, receipts, roots, rebuilt, bad_tenant, bad_place, bad_reason)
    VALUES ($1, clock_timestamp(), $2, $3, $4, $5, $6, $7)
    ON CONFLICT (only_one) DO UPDATE SET
        started_at = excluded.started_at, finished_at = excluded.finished_at, receipts = excluded.receipts, roots = excluded.roots,
        rebuilt = excluded.rebuilt, bad_tenant = excluded.bad_tenant, bad_place = excluded.bad_place, bad_reason = excluded.bad_reason
$$;

CREATE FUNCTION memorygate.last_verification(tenant uuid)
RETURNS TABLE (started_at timestamptz, finished_at timestamptz, held boolean, place text, reason text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
    SELECT v.started_at, v.finished_at, v.bad_reason IS NULL,
           CASE WHEN v.bad_tenant = $1::text THEN v.bad_place END, CASE WHEN v.bad_tenant = $1::text THEN v.bad_reason END
    FROM verification AS v
$$;
COMMENT ON FUNCTION memorygate.last_verification IS 'Whether the ledger held; where it did not is told to the tenant whose receipt it is.';
