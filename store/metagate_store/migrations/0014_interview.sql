-- What InterView shows of MetaGate: how much is served, and how many sessions stand where, in one statement (INV-095).

CREATE FUNCTION metagate.interview(in_tenant uuid, span integer)
RETURNS TABLE (
    at timestamptz, principals bigint, suspended bigint, bindings bigint, unbound bigint, opened bigint, ready bigint, failed bigint,
    overdue bigint, oldest_open timestamptz, counted_since timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    SELECT now(), p.counted, p.suspended, b.counted, b.unbound, s.opened, s.ready, s.failed, s.overdue, s.oldest_open, s.counted_since
    FROM metagate.summary(in_tenant, NULL, span) AS s
    CROSS JOIN (
        SELECT count(*) AS counted, count(*) FILTER (WHERE n.suspended) AS suspended
        FROM (SELECT m.suspended FROM metagate.principal AS m WHERE m.tenant = in_tenant LIMIT span) AS n
    ) AS p
    CROSS JOIN (
        SELECT count(*) AS counted, count(*) FILTER (WHERE n.digest IS NULL) AS unbound
        FROM (SELECT m.digest FROM metagate.binding AS m WHERE m.tenant = in_tenant LIMIT span) AS n
    ) AS b
$$;
COMMENT ON FUNCTION metagate.interview IS
    'Principals, bindings and sessions of a tenant, counted up to `span` of each; `unbound` bindings serve no packet.';
