-- The admin view of PlanTemplates, items_of as in 0018 with a branch for them.

CREATE OR REPLACE FUNCTION metagate.items_of(kind text, only_tenant uuid, after_tenant uuid, after_name text, only_name text, page integer)
RETURNS SETOF metagate.item
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH span AS (
        SELECT coalesce(after_tenant, only_tenant, '00000000-0000-0000-0000-000000000000') AS first,
            coalesce(only_tenant, 'ffffffff-ffff-ffff-ffff-ffffffffffff') AS last,
            coalesce(after_name, '') AS after
    ),
    paged AS (
        SELECT p.tenant, p.principal_key AS name, p.revision, jsonb_build_object(
            'principal_key', p.principal_key, 'type', p.type, 'scope', p.scope, 'rights', p.rights, 'suspended', p.suspended,
            'generation', p.generation,
            'subjects', (
                SELECT coalesce(jsonb_agg(
                    jsonb_build_object('issuer', u.issuer, 'subject', u.subject) ORDER BY u.issuer, u.subject), '[]')
                FROM metagate.subject AS u WHERE u.tenant = p.tenant AND u.principal_key = p.principal_key),
            'api_keys', (
                SELECT coalesce(jsonb_agg(
                    jsonb_build_object('id', k.key_id, 'expires_at', k.expires_at) ORDER BY k.key_id), '[]')
                FROM metagate.api_key AS k WHERE k.tenant = p.tenant AND k.principal_key = p.principal_key),
            'binding', (
                SELECT b.name FROM metagate.binding AS b WHERE b.tenant = p.tenant AND b.principal_key = p.principal_key)
        ) AS body
        FROM (
            SELECT r.* FROM span AS s, metagate.principal AS r
            WHERE kind = 'principals' AND (r.tenant, r.principal_key) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.principal_key = only_name)
            ORDER BY r.tenant, r.principal_key LIMIT page
        ) AS p
        UNION ALL
        SELECT p.tenant, p.name, p.revision, jsonb_build_object('generation', p.generation, 'spec', p.body)
        FROM (
            SELECT r.* FROM span AS s, metagate.profile AS r
            WHERE kind = 'profiles' AND (r.tenant, r.name) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.name = only_name)
            ORDER BY r.tenant, r.name LIMIT page
        ) AS p
        UNION ALL
        SELECT m.tenant, m.name, m.revision, jsonb_build_object('generation', m.generation, 'spec', m.body)
        FROM (
            SELECT r.* FROM span AS s, metagate.manifest AS r
            WHERE kind = 'manifests' AND (r.tenant, r.name) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.name = only_name)
            ORDER BY r.tenant, r.name LIMIT page
        ) AS m
        UNION ALL
        SELECT p.tenant, p.name, p.revision, jsonb_build_object(
            'generation', p.generation, 'policy_hash', p.policy_hash, 'spec', p.body)
        FROM (
            SELECT r.* FROM span AS s, metagate.policy_profile AS r
            WHERE kind = 'policy-profiles' AND (r.tenant, r.name) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.name = only_name)
            ORDER BY r.tenant, r.name LIMIT page
        ) AS p
        UNION ALL
        SELECT p.tenant, p.name, p.revision, jsonb_build_object(
            'generation', p.generation, 'content_hash', p.content_hash, 'spec', p.body)
        FROM (
            SELECT r.* FROM span AS s, metagate.problemata AS r
            WHERE kind = 'problematas' AND (r.tenant, r.name) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.name = only_name)
            ORDER BY r.tenant, r.name LIMIT page
        ) AS p
        UNION ALL
        SELECT p.tenant, p.name, p.revision, jsonb_build_object(
            'generation', p.generation, 'content_hash', p.content_hash, 'spec', p.body)
        FROM (
            SELECT r.* FROM span AS s, metagate.plan_template AS r
            WHERE kind = 'plan-templates' AND (r.tenant, r.name) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.name = only_name)
            ORDER BY r.tenant, r.name LIMIT page
        ) AS p
        UNION ALL
        SELECT b.tenant, b.name, b.revision, jsonb_build_object(
            'principal_key', b.principal_key, 'profile', b.profile, 'manifest', b.manifest, 'components', b.components,
            'sla_seconds', b.sla_seconds, 'digest', b.digest, 'compiled_at', b.compiled_at, 'generation', b.generation)
        FROM (
            SELECT r.* FROM span AS s, metagate.binding AS r
            WHERE kind = 'bindings' AND (r.tenant, r.name) > (s.first, s.after) AND r.tenant <= s.last
                AND (only_name IS NULL OR r.name = only_name)
            ORDER BY r.tenant, r.name LIMIT page
        ) AS b
        UNION ALL
        SELECT r.tenant, r.name, r.revision, jsonb_build_object(
            'profile', r.profile, 'name', r.ref ->> 'name', 'ref_kind', coalesce(r.ref ->> 'kind', 'Env'),
            'ref_name', r.ref ->> 'ref', 'required', coalesce((r.ref ->> 'required')::boolean, true))
        FROM (
            SELECT p.tenant, p.name AS profile, ((p.name || ':') || (e.ref ->> 'name')) COLLATE "C" AS name, p.revision, e.ref
            FROM span AS s, metagate.profile AS p
            CROSS JOIN LATERAL jsonb_array_elements(
                CASE jsonb_typeof(p.body -> 'secretRefs') WHEN 'array' THEN p.body -> 'secretRefs' ELSE '[]' END) AS e (ref)
            WHERE kind = 'secret-refs' AND p.tenant BETWEEN s.first AND s.last
                AND (p.tenant, ((p.name || ':') || (e.ref ->> 'name')) COLLATE "C") > (s.first, s.after)
                AND (only_name IS NULL OR ((p.name || ':') || (e.ref ->> 'name')) COLLATE "C" = only_name)
            ORDER BY 1, 3 LIMIT page
        ) AS r
    )
    SELECT i.tenant, coalesce(t.namespace, ''), i.name, i.revision, i.body
    FROM paged AS i
    LEFT JOIN metagate.tenant AS t ON t.tenant = i.tenant
    ORDER BY i.tenant, i.name
$$;

-- The console's search as in 0019, with PlanTemplates.

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
        SELECT 'plan-template', m.tenant, t.namespace, m.name, m.body ->> 'capability'
        FROM asked AS t JOIN metagate.plan_template AS m ON m.tenant = t.tenant
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
    'Principals, components that booted lately, services, Manifests, Problematas and PlanTemplates with these letters in their names, and sessions whose ids end like this.';
