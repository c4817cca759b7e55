-- The console's search as in 0011, with Problematas.

CREATE OR REPLACE FUNCTION metagate.search(in_tenant uuid, everywhere boolean, wanted text, page integer)
RETURNS TABLE (kind text, tenant uuid, namespace text, name text, detail text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off SET work_mem = '16MB' AS $$
    WITH asked AS MATERIALIZED (
        SELECT t.tenant, t.namespace, greatest(20, 20000 / greatest(1, count(*) OVER ()))::integer AS share
        FROM (
            SELECT a.tenant, a.namespace FROM metagate.tenant AS a
            WHERE a.retired_at IS NULL AND (everywhere OR a.tenant = in_tenant)
            ORDER BY a.namespace, a.tenant LIMIT 1000
        ) AS t
    ),
    recent AS MATERIALIZED (
        SELECT s.tenant, t.namespace, s.startup_id, s.principal_key, s.component_key
        FROM asked AS t
        CROSS JOIN LATERAL (
            SELECT n.tenant, n.startup_id, n.principal_key, n.component_key FROM metagate.startup AS n
            WHERE n.tenant = t.tenant ORDER BY n.tenant DESC, n.startup_id DESC LIMIT t.share
        ) AS s
    ),
    packets AS MATERIALIZED (
        SELECT d.tenant, d.namespace, convert_from(k.body, 'UTF8')::jsonb -> 'services' AS services
        FROM (
            SELECT DISTINCT t.tenant, t.namespace, b.digest FROM asked AS t JOIN metagate.binding AS b ON b.tenant = t.tenant
            LIMIT 2000
        ) AS d
        JOIN metagate.packet AS k ON k.digest = d.digest
    )
    (
        SELECT 'principal', p.tenant, t.namespace, p.principal_key, p.type || CASE WHEN p.suspended THEN ', suspended' ELSE '' END
        FROM asked AS t JOIN metagate.principal AS p ON p.tenant = t.tenant
        WHERE strpos(lower(p.principal_key), lower(wanted)) > 0
        ORDER BY strpos(lower(p.principal_key), lower(wanted)) > 1, p.principal_key, t.namespace LIMIT page
    )
    UNION ALL (
        SELECT DISTINCT 'component', r.tenant, r.namespace, r.component_key, r.principal_key
        FROM recent AS r WHERE strpos(lower(r.component_key), lower(wanted)) > 0
        ORDER BY 4, 5 LIMIT page
    )
    UNION ALL (
        SELECT DISTINCT 'service', k.tenant, k.namespace, s.name, coalesce(s.service ->> 'endpoint', '')
        FROM packets AS k
        CROSS JOIN LATERAL jsonb_each(
            CASE jsonb_typeof(k.services) WHEN 'object' THEN k.services ELSE '{}' END) AS s (name, service)
        WHERE strpos(lower(s.name), lower(wanted)) > 0
        ORDER BY 4, 5 LIMIT page
    )
    UNION ALL (
        SELECT 'manifest', m.tenant, t.namespace, m.name, ''
        FROM asked AS t JOIN metagate.manifest AS m ON m.tenant = t.tenant
        WHERE strpos(lower(m.name), lower(wanted)) > 0
        ORDER BY m.name, t.namespace LIMIT page
    )
    UNION ALL (
        SELECT 'problemata', m.tenant, t.namespace, m.name, m.body ->> 'version'
        FROM asked AS t JOIN metagate.problemata AS m ON m.tenant = t.tenant
        WHERE strpos(lower(m.name), lower(wanted)) > 0
        ORDER BY m.name, t.namespace LIMIT page
    )
    UNION ALL (
        -- Ids begin with the time: what tells them apart is the end.
        SELECT 'startup', r.tenant, r.namespace, r.startup_id::text, r.component_key
        FROM recent AS r
        WHERE wanted ~ '^[0-9A-Fa-f]{6,12}$' AND r.startup_id::text LIKE '%' || lower(wanted)
        ORDER BY r.startup_id DESC LIMIT page
    )
$$;
COMMENT ON FUNCTION metagate.search IS
    'Principals, components that booted lately, services, Manifests and Problematas with these letters in their names, and sessions whose ids end like this.';
