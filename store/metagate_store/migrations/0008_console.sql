-- What the console shows besides what the API answers anyway: how boots go right now, who is not up, how fresh issuers' keys are,
-- and whom a prefix names.
--
-- There is one index on sessions. So the newest `span` sessions are looked at, of every tenant its share; `looked_back_to` says
-- since when none is missing and `everything` whether it was all there is. The cost does not grow with what is older than that.
-- Plans must not depend on statistics (0002).

CREATE TYPE metagate.overview AS (
    at timestamptz, opened bigint, ready bigint, failed bigint, starting bigint, overdue bigint, looked_back_to timestamptz,
    everything boolean, minutes jsonb, troubles jsonb, latest jsonb, tenants jsonb
);

CREATE FUNCTION metagate.overview_of(of_tenants uuid[], spans integer[], most integer) RETURNS SETOF metagate.overview
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH looked AS MATERIALIZED (
        SELECT t.tenant, s.startup_id, s.principal_key, s.component_key, s.opened_at, s.acknowledged_at, s.status,
            s.status = 'OPEN' AND s.deadline_at < now() AS overdue
        FROM unnest(of_tenants, spans) AS t (tenant, span)
        CROSS JOIN LATERAL (
            SELECT n.* FROM metagate.startup AS n
            WHERE n.tenant = t.tenant
            ORDER BY n.tenant DESC, n.startup_id DESC
            LIMIT t.span
        ) AS s
    ),
    hour AS MATERIALIZED (
        SELECT l.tenant, floor(extract(epoch FROM now() - l.opened_at) / 60)::integer AS ago, count(*) AS opened,
            count(*) FILTER (WHERE l.status = 'READY') AS ready, count(*) FILTER (WHERE l.status = 'FAILED') AS failed,
            count(*) FILTER (WHERE l.overdue) AS overdue
        FROM looked AS l
        WHERE l.opened_at > now() - interval '1 hour'
        GROUP BY 1, 2
    ),
    counted AS MATERIALIZED (
        SELECT l.tenant, count(*) AS looked, min(l.opened_at) AS since, count(*) FILTER (WHERE l.overdue) AS overdue,
            count(*) FILTER (WHERE l.status = 'OPEN' AND NOT l.overdue) AS starting
        FROM looked AS l GROUP BY 1
    ),
    trouble AS MATERIALIZED (
        SELECT l.tenant, l.principal_key, l.component_key, count(*) FILTER (WHERE l.overdue) AS overdue,
            count(*) FILTER (WHERE NOT l.overdue) AS failed, max(l.opened_at) AS opened_at,
            max(l.startup_id::text COLLATE "C") AS startup_id
        FROM looked AS l
        WHERE l.overdue OR l.status = 'FAILED'
        GROUP BY 1, 2, 3
        ORDER BY opened_at DESC LIMIT 1000
    ),
    recovered AS MATERIALIZED (
        -- only a session that was opened later tells that it came up again: an older one may report READY late
        SELECT t.*, r.ready IS NOT NULL AND r.ready[1] > t.opened_at AS up_again, r.ready[2] AS ready_at
        FROM trouble AS t
        LEFT JOIN (
            SELECT l.tenant, l.principal_key, l.component_key, max(ARRAY[l.opened_at, l.acknowledged_at]) AS ready
            FROM looked AS l WHERE l.status = 'READY' GROUP BY 1, 2, 3
        ) AS r ON r.tenant = t.tenant AND r.principal_key = t.principal_key AND r.component_key = t.component_key
    )
    SELECT now(),
        (SELECT coalesce(sum(h.opened), 0) FROM hour AS h)::bigint, (SELECT coalesce(sum(h.ready), 0) FROM hour AS h)::bigint,
        (SELECT coalesce(sum(h.failed), 0) FROM hour AS h)::bigint,
        (SELECT coalesce(sum(c.starting), 0) FROM counted AS c)::bigint, (SELECT coalesce(sum(c.overdue), 0) FROM counted AS c)::bigint,
        (
            -- before this moment somebody's sessions are missing
            SELECT coalesce(max(c.since) FILTER (WHERE t.span <= c.looked), min(c.since))
            FROM counted AS c JOIN unnest(of_tenants, spans) AS t (tenant, span) ON t.tenant = c.tenant
        ),
        NOT EXISTS (SELECT FROM counted AS c JOIN unnest(of_tenants, spans) AS t (tenant, span) ON t.tenant = c.tenant AND t.span <= c.looked),
        (
            SELECT coalesce(jsonb_agg(jsonb_build_array(m.ago, m.opened, m.ready, m.failed, m.overdue) ORDER BY m.ago), '[]')
            FROM (
                SELECT h.ago, sum(h.opened) AS opened, sum(h.ready) AS ready, sum(h.failed) AS failed, sum(h.overdue) AS overdue
                FROM hour AS h GROUP BY 1
            ) AS m
        ),
        (
            SELECT coalesce(jsonb_agg(to_jsonb(w.*) ORDER BY w.up_again, w.opened_at DESC), '[]')
            FROM (SELECT r.* FROM recovered AS r ORDER BY r.up_again, r.opened_at DESC LIMIT most) AS w
        ),
        (
            SELECT coalesce(jsonb_agg(to_jsonb(n.*) ORDER BY n.startup_id DESC), '[]')
            FROM (
                SELECT l.tenant, l.startup_id, l.principal_key, l.component_key, l.opened_at, l.acknowledged_at, l.status, l.overdue
                FROM looked AS l ORDER BY l.startup_id DESC LIMIT least(most, 12)
            ) AS n
        ),
        (
            SELECT coalesce(jsonb_agg(to_jsonb(n.*) ORDER BY n.namespace, n.tenant), '[]')
            FROM (
                SELECT t.tenant, t.namespace, coalesce(c.overdue, 0) AS overdue, coalesce(c.starting, 0) AS starting,
                    coalesce(h.opened, 0) AS opened, coalesce(h.ready, 0) AS ready, coalesce(h.failed, 0) AS failed
                FROM metagate.tenant AS t
                LEFT JOIN counted AS c ON c.tenant = t.tenant
                LEFT JOIN (
                    SELECT o.tenant, sum(o.opened) AS opened, sum(o.ready) AS ready, sum(o.failed) AS failed FROM hour AS o GROUP BY 1
                ) AS h ON h.tenant = t.tenant
                WHERE t.tenant = ANY (of_tenants)
            ) AS n
        )
$$;

CREATE FUNCTION metagate.overview(in_tenant uuid, span integer, most integer) RETURNS SETOF metagate.overview
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM metagate.overview_of(ARRAY[in_tenant], ARRAY[span], most) WHERE in_tenant IS NOT NULL
$$;
COMMENT ON FUNCTION metagate.overview IS
    'How the boots of a tenant go: the last hour by minute, components in trouble (INV-022), the newest sessions.';

CREATE FUNCTION metagate.overview_everywhere(span integer, most integer) RETURNS SETOF metagate.overview
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH known AS MATERIALIZED (
        SELECT t.tenant, greatest(20, span / 2 / greatest(1, count(*) OVER ()))::integer AS share
        FROM (SELECT a.tenant FROM metagate.tenant AS a WHERE a.retired_at IS NULL ORDER BY a.namespace, a.tenant LIMIT 1000) AS t
    ),
    tried AS MATERIALIZED (
        SELECT k.tenant, k.share, n.there, n.there >= k.share AS full
        FROM known AS k
        CROSS JOIN LATERAL (
            SELECT count(*) AS there FROM (
                SELECT s.startup_id FROM metagate.startup AS s
                WHERE s.tenant = k.tenant ORDER BY s.tenant DESC, s.startup_id DESC LIMIT k.share
            ) AS f
        ) AS n
    ),
    shared AS (
        SELECT t.tenant, (t.share + CASE WHEN t.full
            THEN greatest(0, span - sum(t.there) OVER ()) / greatest(1, count(*) FILTER (WHERE t.full) OVER ()) ELSE 0 END)::integer AS span
        FROM tried AS t
    )
    SELECT o.*
    FROM (SELECT coalesce(array_agg(h.tenant), '{}') AS tenants, coalesce(array_agg(h.span), '{}') AS spans FROM shared AS h) AS a
    CROSS JOIN LATERAL metagate.overview_of(a.tenants, a.spans, most) AS o
$$;
COMMENT ON FUNCTION metagate.overview_everywhere IS 'The same of every tenant (D-51). Each has an equal share of half the span; those that need more divide what is left.';

CREATE FUNCTION metagate.tenants_everywhere(page integer) RETURNS TABLE (tenant uuid, namespace text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT t.tenant, t.namespace FROM metagate.tenant AS t WHERE t.retired_at IS NULL ORDER BY t.namespace, t.tenant LIMIT page
$$;
COMMENT ON FUNCTION metagate.tenants_everywhere IS 'Every tenant by the name of its namespace (D-51).';

CREATE FUNCTION metagate.issuers_seen(page integer)
RETURNS TABLE (issuer text, source text, keys bigint, last_seen timestamptz, misses integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT i.issuer, i.source, count(k.kid), max(k.last_seen), coalesce(max(k.misses), 0)
    FROM (SELECT a.issuer, a.source FROM metagate.issuer AS a ORDER BY a.issuer LIMIT page) AS i
    LEFT JOIN metagate.issuer_key AS k ON k.issuer = i.issuer AND k.retired_at IS NULL
    GROUP BY i.issuer, i.source
    ORDER BY i.issuer
$$;
COMMENT ON FUNCTION metagate.issuers_seen IS 'How fresh the keys of the believed issuers are, which discovery names to everybody.';

CREATE TYPE metagate.found AS (tenant uuid, namespace text, principal_key text, type text, suspended boolean);

CREATE FUNCTION metagate.named_of(of_tenants uuid[], in_prefix text, page integer) RETURNS SETOF metagate.found
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT a.tenant, coalesce(t.namespace, ''), p.principal_key, p.type, p.suspended
    FROM unnest(of_tenants) WITH ORDINALITY AS a (tenant, n)
    LEFT JOIN metagate.tenant AS t ON t.tenant = a.tenant
    CROSS JOIN LATERAL (
        SELECT r.principal_key, r.type, r.suspended FROM metagate.principal AS r
        WHERE r.tenant = a.tenant AND r.principal_key >= in_prefix AND r.principal_key < (in_prefix || chr(1114111))
        ORDER BY r.tenant, r.principal_key LIMIT page
    ) AS p
    ORDER BY a.n, p.principal_key LIMIT page
$$;

CREATE FUNCTION metagate.named(in_tenant uuid, in_prefix text, page integer) RETURNS SETOF metagate.found
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM metagate.named_of(ARRAY[in_tenant], in_prefix, page) WHERE in_tenant IS NOT NULL
$$;
COMMENT ON FUNCTION metagate.named IS 'Principals of a tenant whose names begin like this.';

CREATE FUNCTION metagate.named_everywhere(in_prefix text, page integer) RETURNS SETOF metagate.found
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT n.* FROM (
        SELECT coalesce(array_agg(t.tenant), '{}') AS tenants
        FROM (SELECT a.tenant FROM metagate.tenant AS a WHERE a.retired_at IS NULL ORDER BY a.namespace, a.tenant LIMIT 1000) AS t
    ) AS k
    CROSS JOIN LATERAL metagate.named_of(k.tenants, in_prefix, page) AS n
$$;
COMMENT ON FUNCTION metagate.named_everywhere IS 'Principals of any tenant whose names begin like this (D-51).';

CREATE FUNCTION metagate.startup_everywhere(in_startup uuid) RETURNS TABLE (tenant uuid)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT t.tenant FROM metagate.tenant AS t
    CROSS JOIN LATERAL (
        SELECT s.tenant FROM metagate.startup AS s WHERE s.tenant = t.tenant AND s.startup_id = in_startup LIMIT 1
    ) AS f
    LIMIT 1
$$;
COMMENT ON FUNCTION metagate.startup_everywhere IS 'Whose session this is (D-51).';
