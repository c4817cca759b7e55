-- Every question is one function that takes the tenant first and writes nothing (INV-055, INV-056).
-- Another tenant's id is simply not found.

CREATE TYPE memorygate.stored_receipt AS (
    receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint, digest bytea, chain bytea, signature text, body text
);

CREATE FUNCTION memorygate.receipt(tenant uuid, receipt_id text) RETURNS SETOF memorygate.stored_receipt
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
    FROM memorygate.receipt AS r WHERE r.tenant = $1 AND r.receipt_id = $2;
END
$$;

CREATE FUNCTION memorygate.task_receipts(tenant uuid, task_id text, after_at timestamptz, after_id text, most integer)
RETURNS SETOF memorygate.stored_receipt
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
    FROM memorygate.receipt AS r
    WHERE r.tenant = $1 AND r.task_id = $2 AND (r.stored_at, r.receipt_id) > ($3, $4 COLLATE "C")
    ORDER BY r.stored_at, r.receipt_id LIMIT $5;
END
$$;

-- Up to the origin of the anchor, then down to everything it caused. Ancestors first, so that a bounded answer holds the anchor's own past.
CREATE FUNCTION memorygate.chain_receipts(tenant uuid, receipt_id text, most integer) RETURNS SETOF memorygate.stored_receipt
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
DECLARE
    past text[];
    found text[];
BEGIN
    WITH RECURSIVE up AS (
        SELECT r.receipt_id, r.caused_by, 1 AS depth FROM memorygate.receipt AS r WHERE r.tenant = $1 AND r.receipt_id = $2
        UNION ALL
        SELECT r.receipt_id, r.caused_by, up.depth + 1
        FROM up CROSS JOIN LATERAL (
            SELECT x.receipt_id, x.caused_by FROM memorygate.receipt AS x WHERE x.tenant = $1 AND x.receipt_id = up.caused_by LIMIT 1) AS r
        WHERE up.depth < $3
    ) CYCLE receipt_id SET looped USING path
    SELECT array_agg(up.receipt_id ORDER BY up.depth) INTO past FROM up WHERE NOT up.looped;

    WITH RECURSIVE down AS (
        SELECT past[cardinality(past)] COLLATE "C" AS id
        UNION
        SELECT r.receipt_id FROM down CROSS JOIN LATERAL (
            SELECT x.receipt_id FROM memorygate.receipt AS x WHERE x.tenant = $1 AND x.caused_by = down.id OFFSET 0) AS r
    ), bounded AS (SELECT id FROM down LIMIT $3)
    SELECT array_agg(id) INTO found FROM (
        SELECT id FROM unnest(past) WITH ORDINALITY AS u(id, place)
        UNION SELECT id FROM bounded) AS both_ways;

    RETURN QUERY
    SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
    FROM unnest(found) AS u(id)
    CROSS JOIN LATERAL (SELECT x.* FROM memorygate.receipt AS x WHERE x.tenant = $1 AND x.receipt_id = u.id LIMIT 1) AS r
    ORDER BY r.stored_at, r.receipt_id;
END
$$;

CREATE FUNCTION memorygate.inbox(
    tenant uuid, custodian text, kind text, task_id text, principal_ai text, after_at timestamptz, after_id text, most integer
) RETURNS TABLE (
    obligation_id text, held_kind text, held_task_id text, held_principal_ai text, opened_at timestamptz, opened_by text,
    moved_by text, custody_at timestamptz, due_at timestamptz, body text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off AS $$
DECLARE
    page obligation[];
    lowest text;
    highest text;
BEGIN
    SELECT array_agg(o), min(o.moved_by), max(o.moved_by) INTO page, lowest, highest
    FROM (SELECT x.* FROM memorygate.obligation AS x
          WHERE x.state = 'open' AND x.tenant = $1 AND x.custodian = $2 AND x.kind = $3
            AND (x.custody_at, x.obligation_id) > ($6, $7 COLLATE "C")
            AND ($4 IS NULL OR x.task_id = $4) AND ($5 IS NULL OR x.principal_ai = $5)
          ORDER BY x.custody_at, x.obligation_id LIMIT $8) AS o;
    RETURN QUERY
    SELECT o.obligation_id, o.kind, o.task_id, o.principal_ai, o.opened_at, o.opened_by, o.moved_by, o.custody_at, o.due_at, r.body
    FROM unnest(page) AS o
    CROSS JOIN LATERAL (SELECT x.body FROM memorygate.receipt AS x
                        WHERE x.tenant = $1 AND x.receipt_id = o.moved_by AND x.receipt_id BETWEEN lowest AND highest LIMIT 1) AS r
    ORDER BY o.custody_at, o.obligation_id;
END
$$;

-- Transactions older than every running one have ended, so nothing can appear before them any more: readers go no further (no gaps).
CREATE FUNCTION memorygate.settled() RETURNS xid8
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
RETURN pg_snapshot_xmin(pg_current_snapshot());

CREATE FUNCTION memorygate.stream(tenant uuid, after_written xid8, after_at timestamptz, most integer)
RETURNS TABLE (written_by xid8, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint, digest bytea, chain bytea, signature text, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT r.written_by, r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
    FROM memorygate.receipt AS r
    WHERE uuid_hash(r.tenant) = uuid_hash($1) AND r.tenant = $1 AND (r.written_by, r.stored_at) > ($2, $3)
      AND r.written_by < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY r.written_by, r.stored_at LIMIT $4;
END
$$;

CREATE FUNCTION memorygate.summary(tenant uuid) RETURNS TABLE (
    receipts bigint, obligations bigint, succeeded bigint, failed bigint, canceled bigint,
    startups bigint, startups_ready bigint, startups_failed bigint, oldest_open timestamptz, overdue bigint, latest timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT coalesce(sum(t.receipts), 0)::bigint, coalesce(sum(t.obligations), 0)::bigint, coalesce(sum(t.succeeded), 0)::bigint,
           coalesce(sum(t.failed), 0)::bigint, coalesce(sum(t.canceled), 0)::bigint, coalesce(sum(t.startups), 0)::bigint,
           coalesce(sum(t.startups_ready), 0)::bigint, coalesce(sum(t.startups_failed), 0)::bigint,
           (SELECT o.opened_at FROM obligation AS o
            WHERE uuid_hash(o.tenant) = uuid_hash($1) AND o.tenant = $1 AND o.state = 'open' ORDER BY o.opened_at LIMIT 1),
           (SELECT count(*) FROM (SELECT FROM obligation AS o
                                  WHERE uuid_hash(o.tenant) = uuid_hash($1) AND o.tenant = $1 AND o.state = 'open' AND o.due_at < now()
                                  LIMIT 10000) AS bounded),
           max(t.last_stored_at)
    FROM tally AS t WHERE t.tenant = $1;
END
$$;

CREATE FUNCTION memorygate.state() RETURNS TABLE (schema_version integer, now timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT max(m.version), clock_timestamp() FROM migration AS m;
END
$$;
