-- The topology by pages (D-66), and what a person on call looks for first: what is declared and not served, which errors there are,
-- and whatever a few letters of a name find.
--
-- Each function asks about one tenant, or with `everywhere` about every tenant that is there (D-51); then `in_tenant` says nothing.

-- As metagate.topology, of `page` principals after `after_name`; services and who uses them are those of these principals.
CREATE FUNCTION metagate.topology_page(in_tenant uuid, after_name text, page integer)
RETURNS TABLE (revision bigint, principals json, services json, more boolean)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off SET work_mem = '16MB' AS $$
    WITH paged AS MATERIALIZED (
        SELECT p.principal_key, p.type, p.suspended
        FROM metagate.principal AS p
        WHERE p.tenant = in_tenant AND p.principal_key > coalesce(after_name, '')
        ORDER BY p.tenant, p.principal_key LIMIT page + 1
    ),
    shown AS MATERIALIZED (
        SELECT p.* FROM paged AS p ORDER BY p.principal_key LIMIT page
    ),
    recent AS MATERIALIZED (
        SELECT s.principal_key, s.component_key
        FROM metagate.startup AS s
        WHERE s.tenant = in_tenant
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT 10000
    ),
    seen_by AS MATERIALIZED (
        SELECT d.principal_key, json_agg(d.component_key) AS components
        FROM (
            SELECT DISTINCT r.principal_key, r.component_key
            FROM recent AS r WHERE r.principal_key IN (SELECT n.principal_key FROM shown AS n) ORDER BY 1, 2
        ) AS d
        GROUP BY d.principal_key
    ),
    bound AS MATERIALIZED (
        SELECT b.principal_key, b.components, b.profile, b.manifest, b.digest
        FROM shown AS n
        JOIN metagate.binding AS b ON b.tenant = in_tenant AND b.principal_key = n.principal_key
    ),
    packets AS MATERIALIZED (
        SELECT d.digest, (
            SELECT convert_from(k.body, 'UTF8')::jsonb -> 'services' FROM metagate.packet AS k WHERE k.digest = d.digest
        ) AS services
        FROM (SELECT DISTINCT b.digest FROM bound AS b) AS d
    ),
    offered AS MATERIALIZED (
        SELECT k.digest, s.name, s.service ->> 'type' AS type, s.service ->> 'endpoint' AS endpoint
        FROM packets AS k
        CROSS JOIN LATERAL jsonb_each(
            CASE jsonb_typeof(k.services) WHEN 'object' THEN k.services ELSE '{}' END) AS s (name, service)
    ),
    named AS MATERIALIZED (
        SELECT o.digest, json_agg(o.name ORDER BY o.name) AS services FROM offered AS o GROUP BY o.digest
    )
    SELECT
        (SELECT coalesce(max(r.revision), 0) FROM metagate.revision AS r),
        (
            SELECT coalesce(json_agg(json_build_object(
                'principal_key', p.principal_key, 'type', p.type, 'suspended', p.suspended,
                'components', coalesce(b.components, '{}'), 'profile', b.profile, 'manifest', b.manifest,
                'seen', coalesce(s.components, '[]'), 'services', coalesce(n.services, '[]')
            ) ORDER BY p.principal_key), '[]')
            FROM shown AS p
            LEFT JOIN bound AS b ON b.principal_key = p.principal_key
            LEFT JOIN named AS n ON n.digest = b.digest
            LEFT JOIN seen_by AS s ON s.principal_key = p.principal_key
        ),
        (
            SELECT coalesce(json_agg(json_build_object(
                'name', g.name, 'type', g.type, 'endpoint', g.endpoint, 'used_by', g.used_by
            ) ORDER BY g.name, g.type, g.endpoint), '[]')
            FROM (
                SELECT o.name, o.type, o.endpoint, json_agg(b.principal_key ORDER BY b.principal_key) AS used_by
                FROM offered AS o JOIN bound AS b ON b.digest = o.digest
                GROUP BY 1, 2, 3
            ) AS g
        ),
        (SELECT count(*) FROM paged) > page
$$;
COMMENT ON FUNCTION metagate.topology_page IS 'The topology of one page of a tenant''s principals, by name (D-49, D-66).';

-- ── declared, and not served ──

ALTER TABLE metagate.resource ADD COLUMN changed_at timestamptz NOT NULL DEFAULT now();
COMMENT ON COLUMN metagate.resource.changed_at IS 'Since when the verdict is as it is.';

CREATE FUNCTION metagate.mark_verdict() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    IF (NEW.conditions, NEW.served_generation) IS DISTINCT FROM (OLD.conditions, OLD.served_generation) THEN
        NEW.changed_at := now();
    END IF;
    RETURN NEW;
END $$;
CREATE TRIGGER mark BEFORE UPDATE ON metagate.resource FOR EACH ROW EXECUTE FUNCTION metagate.mark_verdict();

-- Few of many objects are not served: an index of those alone answers however many are declared.
CREATE INDEX resource_not_served ON metagate.resource (tenant, changed_at)
WHERE NOT (conditions @> '[{"type": "Ready", "status": "True"}]') OR served_generation IS DISTINCT FROM generation;

CREATE FUNCTION metagate.not_served(in_tenant uuid, everywhere boolean, page integer)
RETURNS TABLE (
    tenant uuid, kind text, namespace text, name text, generation bigint, served_generation bigint, reason text, message text,
    changed_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET jit = off AS $$
    SELECT r.tenant, r.kind, r.namespace, r.name, r.generation, r.served_generation,
        coalesce(w.condition ->> 'reason', ''), coalesce(w.condition ->> 'message', ''), r.changed_at
    FROM (
        SELECT a.* FROM metagate.resource AS a
        WHERE (NOT (a.conditions @> '[{"type": "Ready", "status": "True"}]') OR a.served_generation IS DISTINCT FROM a.generation)
            AND (everywhere OR a.tenant = in_tenant)
        ORDER BY a.changed_at DESC, a.namespace, a.kind, a.name
        LIMIT page
    ) AS r
    LEFT JOIN LATERAL (
        -- Ready is the summary of the others.
        SELECT c.condition FROM jsonb_array_elements(r.conditions) AS c (condition) WHERE c.condition ->> 'type' = 'Ready' LIMIT 1
    ) AS w ON true
    ORDER BY r.changed_at DESC, r.namespace, r.kind, r.name
$$;
COMMENT ON FUNCTION metagate.not_served IS 'Declared objects that are refused, or held at their last good generation: why, and since when.';

-- ── failed, by error ──

CREATE FUNCTION metagate.failures(in_tenant uuid, everywhere boolean, span integer, page integer)
RETURNS TABLE (
    error text, startups bigint, components bigint, principals bigint, first_at timestamptz, last_at timestamptz, tenant uuid,
    startup_id uuid, principal_key text, component_key text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET jit = off AS $$
    WITH asked AS MATERIALIZED (
        SELECT t.tenant, greatest(20, span / greatest(1, count(*) OVER ()))::integer AS share
        FROM (
            SELECT a.tenant FROM metagate.tenant AS a
            WHERE a.retired_at IS NULL AND (everywhere OR a.tenant = in_tenant)
            ORDER BY a.namespace, a.tenant LIMIT 1000
        ) AS t
    ),
    failed AS MATERIALIZED (
        SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.opened_at, left(s.report ->> 'error', 300) AS error
        FROM asked AS t
        CROSS JOIN LATERAL (
            SELECT n.* FROM metagate.startup AS n
            WHERE n.tenant = t.tenant ORDER BY n.tenant DESC, n.startup_id DESC LIMIT t.share
        ) AS s
        WHERE s.status = 'FAILED' AND s.opened_at > now() - interval '1 hour'
    )
    SELECT g.error, g.startups, g.components, g.principals, g.first_at, g.last_at, l.tenant, l.startup_id, l.principal_key, l.component_key
    FROM (
        SELECT coalesce(f.error, '') AS error, count(*) AS startups, count(DISTINCT (f.tenant, f.principal_key, f.component_key)) AS components,
            count(DISTINCT (f.tenant, f.principal_key)) AS principals, min(f.opened_at) AS first_at, max(f.opened_at) AS last_at
        FROM failed AS f GROUP BY 1
    ) AS g
    CROSS JOIN LATERAL (
        SELECT f.tenant, f.startup_id, f.principal_key, f.component_key FROM failed AS f
        WHERE coalesce(f.error, '') = g.error ORDER BY f.startup_id DESC LIMIT 1
    ) AS l
    ORDER BY g.startups DESC, g.last_at DESC, g.error
    LIMIT page
$$;
COMMENT ON FUNCTION metagate.failures IS 'What failed in the last hour, by equal errors, each with its newest session.';

-- ── search ──

CREATE FUNCTION metagate.search(in_tenant uuid, everywhere boolean, wanted text, page integer)
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
        -- Ids begin with the time: what tells them apart is the end.
        SELECT 'startup', r.tenant, r.namespace, r.startup_id::text, r.component_key
        FROM recent AS r
        WHERE wanted ~ '^[0-9A-Fa-f]{6,12}$' AND r.startup_id::text LIKE '%' || lower(wanted)
        ORDER BY r.startup_id DESC LIMIT page
    )
$$;
COMMENT ON FUNCTION metagate.search IS
    'Principals, components that booted lately, services and Manifests with these letters in their names, and sessions whose ids end like this.';
