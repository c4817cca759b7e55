-- What InterView shows of sessions: how many stand where (INV-095).
--
-- There is one index on sessions, and a second one, partial on OPEN, would be paid for by every bootstrap and would end the cheap
-- (HOT) updates of reports. So the newest `span` sessions of a tenant are counted, which is all of them but in the busiest
-- tenants; there `counted_since` says from when on. The answer takes as long at ten million sessions as at a hundred thousand.
-- Plans must not depend on statistics (0002).

CREATE FUNCTION metagate.summary(in_tenant uuid, in_principal text, span integer)
RETURNS TABLE (
    opened bigint, ready bigint, failed bigint, overdue bigint, oldest_open timestamptz, latest timestamptz, counted_since timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off SET jit = off AS $$
    SELECT
        count(*) FILTER (WHERE s.status = 'OPEN' AND s.asked),
        count(*) FILTER (WHERE s.status = 'READY' AND s.asked),
        count(*) FILTER (WHERE s.status = 'FAILED' AND s.asked),
        count(*) FILTER (WHERE s.status = 'OPEN' AND s.deadline_at < now() AND s.asked),
        min(s.opened_at) FILTER (WHERE s.status = 'OPEN' AND s.asked),
        max(s.opened_at) FILTER (WHERE s.asked),
        CASE WHEN count(*) = span THEN min(s.opened_at) END
    FROM (
        SELECT n.status, n.opened_at, n.deadline_at, in_principal IS NULL OR n.principal_key = in_principal AS asked
        FROM metagate.startup AS n
        WHERE n.tenant = in_tenant
        ORDER BY n.tenant DESC, n.startup_id DESC
        LIMIT span
    ) AS s
$$;
COMMENT ON FUNCTION metagate.summary IS
    'Sessions of a tenant, or of one of its principals, by state; overdue is derived (INV-022). At most `span` are looked at.';
