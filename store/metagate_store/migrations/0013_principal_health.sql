-- What a person on call asks of each principal: is it up, with what, since when; and of a failed startup: who else has this error.
-- And what exactly a publish changed.
--
-- Health comes from sessions, which have one index: the newest `span` of them are looked at, of every tenant its share (as in
-- metagate.overview). Principals are read by `scan` of them at most. So the cost of a page has a bound, whatever is kept.
-- Plans must not depend on statistics (0002): joins between materialized parts are hashed, never nested.

CREATE FUNCTION metagate.principals_page(
    in_tenant uuid, everywhere boolean, in_state text, in_letters text, in_manifest text, at_name text, after_tenant uuid,
    after_name text, page integer, scan integer, span integer
)
RETURNS TABLE (at timestamptz, principals jsonb, counts jsonb, scanned_to jsonb, looked_back_to timestamptz, everything boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET enable_sort = off SET jit = off SET work_mem = '16MB' AS $$
    WITH asked AS MATERIALIZED (
        SELECT t.tenant, t.namespace, greatest(20, span / greatest(1, count(*) OVER ()))::integer AS share
        FROM (
            SELECT a.tenant, a.namespace FROM metagate.tenant AS a
            WHERE a.retired_at IS NULL AND (everywhere OR a.tenant = in_tenant)
            ORDER BY a.namespace, a.tenant LIMIT 1000
        ) AS t
    ),
    looked AS MATERIALIZED (
        -- `n`: 1 is the newest session
        SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.pod_uid, s.opened_at,
            CASE WHEN s.status <> 'OPEN' THEN lower(s.status) WHEN s.deadline_at < now() THEN 'overdue' ELSE 'starting' END AS state,
            row_number() OVER (ORDER BY s.startup_id DESC) AS n
        FROM asked AS t
        CROSS JOIN LATERAL (
            SELECT l.* FROM metagate.startup AS l
            WHERE l.tenant = t.tenant ORDER BY l.tenant DESC, l.startup_id DESC LIMIT t.share
        ) AS s
    ),
    counted AS MATERIALIZED (
        SELECT l.tenant, count(*) AS looked, min(l.opened_at) AS since FROM looked AS l GROUP BY 1
    ),
    replica AS MATERIALIZED (
        -- a component in one pod; where no pod is known, the component counts as one
        SELECT l.tenant, l.principal_key, l.component_key, min(l.n) AS newest, min(l.n) FILTER (WHERE l.state = 'ready') AS ready,
            min(l.n) FILTER (WHERE l.state = 'failed') AS failed, min(l.n) FILTER (WHERE l.state = 'overdue') AS overdue
        FROM looked AS l
        WHERE at_name IS NULL OR l.principal_key = at_name
        GROUP BY l.tenant, l.principal_key, l.component_key, l.pod_uid
    ),
    component AS MATERIALIZED (
        SELECT c.*, CASE least(c.ready, c.failed, c.overdue)
            WHEN c.ready THEN 'ready' WHEN c.failed THEN 'failed' WHEN c.overdue THEN 'overdue' ELSE 'starting' END AS state
        FROM (
            SELECT r.tenant, r.principal_key, r.component_key, min(r.newest) AS newest, min(r.ready) AS ready, min(r.failed) AS failed,
                min(r.overdue) AS overdue, count(*) AS replicas,
                count(*) FILTER (WHERE r.ready = least(r.ready, r.failed, r.overdue)) AS replicas_ready
            FROM replica AS r GROUP BY 1, 2, 3
        ) AS c
    ),
    health AS MATERIALIZED (
        SELECT c.tenant, c.principal_key, min(c.newest) AS newest, count(*) AS components, sum(c.replicas) AS replicas,
            sum(c.replicas_ready) AS replicas_ready, count(*) FILTER (WHERE c.state = 'ready') AS components_ready,
            min(c.failed) FILTER (WHERE c.state = 'failed') AS failed, min(c.overdue) FILTER (WHERE c.state = 'overdue') AS overdue,
            bool_or(c.state = 'starting') AS starting
        FROM component AS c GROUP BY 1, 2
    ),
    scanned AS MATERIALIZED (
        (
            SELECT p.tenant, p.principal_key, p.type, p.scope, p.suspended FROM metagate.principal AS p
            WHERE at_name IS NULL
                AND (p.tenant, p.principal_key) > (
                    coalesce(after_tenant, CASE WHEN everywhere THEN '00000000-0000-0000-0000-000000000000' ELSE in_tenant END),
                    coalesce(after_name, ''))
                AND p.tenant <= CASE WHEN everywhere THEN 'ffffffff-ffff-ffff-ffff-ffffffffffff' ELSE in_tenant END
            ORDER BY p.tenant, p.principal_key LIMIT scan
        )
        UNION ALL (
            SELECT p.tenant, p.principal_key, p.type, p.scope, p.suspended FROM metagate.principal AS p
            WHERE at_name IS NOT NULL AND p.tenant = in_tenant AND p.principal_key = at_name
        )
    ),
    judged AS MATERIALIZED (
        SELECT p.*, b.name AS binding, b.profile, b.manifest, h.newest, coalesce(h.failed, h.overdue) AS trouble,
            coalesce(h.components, 0) AS components, coalesce(h.components_ready, 0) AS components_ready,
            coalesce(h.replicas, 0) AS replicas, coalesce(h.replicas_ready, 0) AS replicas_ready,
            CASE
                WHEN p.suspended THEN 'suspended'
                WHEN h.failed IS NOT NULL THEN 'failed'
                WHEN h.overdue IS NOT NULL THEN 'overdue'
                WHEN b.name IS NULL THEN 'unbound'
                WHEN b.digest IS NULL THEN 'incomplete'
                WHEN h.starting THEN 'starting'
                WHEN h.newest IS NOT NULL THEN 'ready'
                ELSE 'silent'
            END AS state
        FROM scanned AS p
        LEFT JOIN LATERAL (
            -- ordered and by a range, so that only the primary key can answer: by equality alone the planner may take the index of
            -- names while the table is small, keep that plan, and read every binding of the tenant for each principal
            SELECT g.name, g.profile, g.manifest, g.digest FROM metagate.binding AS g
            WHERE g.tenant = p.tenant AND g.principal_key >= p.principal_key AND g.principal_key <= p.principal_key
            ORDER BY g.tenant, g.principal_key LIMIT 1
        ) AS b ON true
        LEFT JOIN health AS h ON h.tenant = p.tenant AND h.principal_key = p.principal_key
        WHERE (in_letters IS NULL OR strpos(lower(p.principal_key), lower(in_letters)) > 0)
            AND (in_manifest IS NULL OR b.manifest = in_manifest)
    )
    SELECT now(),
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'tenant', w.tenant, 'namespace', coalesce(t.namespace, ''), 'principal_key', w.principal_key, 'type', w.type,
                'scope', w.scope, 'suspended', w.suspended, 'binding', w.binding, 'profile', w.profile, 'manifest', w.manifest,
                'state', w.state, 'components', w.components, 'components_ready', w.components_ready, 'replicas', w.replicas,
                'replicas_ready', w.replicas_ready, 'startup_id', l.startup_id, 'opened_at', l.opened_at, 'trouble_id', x.startup_id
            ) ORDER BY w.tenant, w.principal_key), '[]')
            FROM (
                SELECT j.* FROM judged AS j
                WHERE in_state IS NULL OR j.state = in_state ORDER BY j.tenant, j.principal_key LIMIT page
            ) AS w
            LEFT JOIN asked AS t ON t.tenant = w.tenant
            LEFT JOIN looked AS l ON l.n = w.newest
            LEFT JOIN looked AS x ON x.n = w.trouble
        ),
        (SELECT coalesce(jsonb_object_agg(s.state, s.principals), '{}') FROM (SELECT j.state, count(*) AS principals FROM judged AS j GROUP BY 1) AS s),
        (
            SELECT jsonb_build_array(p.tenant, p.principal_key) FROM scanned AS p
            WHERE (SELECT count(*) FROM scanned) >= scan ORDER BY p.tenant DESC, p.principal_key DESC LIMIT 1
        ),
        (
            SELECT coalesce(max(c.since) FILTER (WHERE t.share <= c.looked), min(c.since))
            FROM counted AS c JOIN asked AS t ON t.tenant = c.tenant
        ),
        NOT EXISTS (SELECT FROM counted AS c JOIN asked AS t ON t.tenant = c.tenant AND t.share <= c.looked)
$$;
COMMENT ON FUNCTION metagate.principals_page IS
    'Principals by name, each with its health: the worst of its components, by their newest sessions. Counts by state are of the principals that were scanned.';

CREATE FUNCTION metagate.startups_failed_with(
    in_tenant uuid, everywhere boolean, in_error text, before_startup uuid, page integer, span integer
) RETURNS SETOF metagate.startup_view
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH asked AS MATERIALIZED (
        SELECT t.tenant, greatest(20, span / greatest(1, count(*) OVER ()))::integer AS share
        FROM (
            SELECT a.tenant FROM metagate.tenant AS a
            WHERE a.retired_at IS NULL AND (everywhere OR a.tenant = in_tenant)
            ORDER BY a.namespace, a.tenant LIMIT 1000
        ) AS t
    )
    SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, false, s.late, s.opened_at, s.deadline_at,
        s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report, s.pod_uid, s.pod_name, s.pod_node
    FROM asked AS t
    CROSS JOIN LATERAL (
        SELECT n.* FROM metagate.startup AS n
        WHERE n.tenant = t.tenant ORDER BY n.tenant DESC, n.startup_id DESC LIMIT t.share
    ) AS s
    WHERE s.status = 'FAILED' AND coalesce(left(s.report ->> 'error', 300), '') = in_error
        AND (before_startup IS NULL OR s.startup_id < before_startup)
    ORDER BY s.startup_id DESC LIMIT page
$$;
COMMENT ON FUNCTION metagate.startups_failed_with IS 'Sessions among the newest ones that failed with this error (its first 300 characters), newest first.';

CREATE FUNCTION metagate.others_failed_with(in_tenant uuid, in_startup uuid, span integer)
RETURNS TABLE (error text, startups bigint, components bigint, principals bigint, since timestamptz)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH this AS MATERIALIZED (
        SELECT left(s.report ->> 'error', 300) AS error FROM metagate.startup AS s
        WHERE s.tenant = in_tenant AND s.startup_id = in_startup AND s.status = 'FAILED'
    )
    SELECT t.error, o.startups, o.components, o.principals, o.since
    FROM this AS t
    CROSS JOIN LATERAL (
        SELECT count(*) AS startups, count(DISTINCT (s.principal_key, s.component_key)) AS components,
            count(DISTINCT s.principal_key) AS principals, min(s.opened_at) AS since
        FROM (
            SELECT n.* FROM metagate.startup AS n
            WHERE n.tenant = in_tenant ORDER BY n.tenant DESC, n.startup_id DESC LIMIT span
        ) AS s
        WHERE s.status = 'FAILED' AND s.startup_id <> in_startup AND left(s.report ->> 'error', 300) = t.error
    ) AS o
    WHERE t.error IS NOT NULL
$$;
COMMENT ON FUNCTION metagate.others_failed_with IS 'How many other sessions of the tenant, among the newest, failed with the error of this one.';

CREATE FUNCTION metagate.changed_specs(in_tenant uuid, everywhere boolean, of_changes bigint[], budget bigint)
RETURNS TABLE (seq bigint, before_spec jsonb, after_spec jsonb, complete boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH changed AS MATERIALIZED (
        SELECT c.* FROM unnest(of_changes) AS a (seq) JOIN metagate.change AS c ON c.seq = a.seq
        WHERE everywhere OR c.tenant = in_tenant
    ),
    compared AS MATERIALIZED (
        SELECT c.seq, b.spec AS before_spec, a.spec AS after_spec,
            (c.before_digest IS NULL OR b.uid IS NOT NULL) AND (c.after_digest IS NULL OR a.uid IS NOT NULL) AS remembered,
            coalesce(octet_length(b.spec::text), 0) + coalesce(octet_length(a.spec::text), 0) AS size
        FROM changed AS c
        LEFT JOIN LATERAL (
            -- what was served under this name before; objects of no tenant are found by their uid
            (SELECT h.uid, h.served_generation, h.after_digest FROM metagate.change AS h
            WHERE c.tenant IS NOT NULL AND h.tenant = c.tenant AND h.kind = c.kind AND h.name = c.name
                AND (h.revision, h.seq) < (c.revision, c.seq)
            ORDER BY h.revision DESC, h.seq DESC LIMIT 1)
            UNION ALL
            (SELECT h.uid, h.served_generation, h.after_digest FROM metagate.change AS h
            WHERE c.tenant IS NULL AND h.uid = c.uid AND h.seq < c.seq
            ORDER BY h.uid DESC, h.seq DESC LIMIT 1)
        ) AS p ON p.after_digest IS NOT NULL
        LEFT JOIN metagate.declared AS b ON b.uid = p.uid AND b.generation = p.served_generation
        LEFT JOIN metagate.declared AS a
            ON a.uid = c.uid AND a.generation = c.served_generation AND c.after_digest IS NOT NULL
    )
    SELECT f.seq, CASE WHEN f.fits THEN f.before_spec END, CASE WHEN f.fits THEN f.after_spec END, f.fits AND f.remembered
    FROM (SELECT c.*, sum(c.size) OVER (ORDER BY c.seq DESC) <= budget AS fits FROM compared AS c) AS f
$$;
COMMENT ON FUNCTION metagate.changed_specs IS
    'What was declared before and after each of these changes, newest first within a budget of bytes; incomplete: beyond it, or not remembered.';
