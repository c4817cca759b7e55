-- What is read besides: sessions, the admin views, topology, state. The tenant comes first; functions that look across
-- tenants are named `…_everywhere` (D-51). Pages go by key, never by offset, so that they are stable while rows come and go. Plans
-- must not depend on statistics (0002): pages walk an index.

CREATE TYPE metagate.startup_view AS (
    tenant uuid, startup_id uuid, principal_key text, component_key text, status text, overdue boolean, late boolean,
    opened_at timestamptz, deadline_at timestamptz, acknowledged_at timestamptz, packet_id uuid, digest text,
    revision bigint, report jsonb, pod_uid text, pod_name text, pod_node text
);

CREATE FUNCTION metagate.startup(in_tenant uuid, in_startup uuid) RETURNS SETOF metagate.startup_view
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, s.status = 'OPEN' AND s.deadline_at < now(),
        s.late, s.opened_at, s.deadline_at, s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report,
        s.pod_uid, s.pod_name, s.pod_node
    FROM metagate.startup AS s
    WHERE s.tenant = in_tenant AND s.startup_id = in_startup
$$;
COMMENT ON FUNCTION metagate.startup IS 'One session; overdue is derived, no timer writes it (INV-022).';

-- There is one index on sessions, and it does not help a filter. So a filtered page looks at no more than `span` sessions;
-- when that was not enough to fill it, a last row with the status 'LOOKED' says how far it came, and the next page goes on.
CREATE FUNCTION metagate.startups(
    in_tenant uuid, in_status text, in_component text, in_principal text, after_startup uuid, page integer, span integer
) RETURNS SETOF metagate.startup_view
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    WITH edge AS MATERIALIZED (
        SELECT s.startup_id
        FROM metagate.startup AS s
        WHERE coalesce(in_status, in_component, in_principal) IS NOT NULL
            AND s.tenant = in_tenant AND s.startup_id < coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY s.tenant DESC, s.startup_id DESC
        OFFSET span - 1 LIMIT 1
    ),
    found AS MATERIALIZED (
        SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, s.status = 'OPEN' AND s.deadline_at < now(),
            s.late, s.opened_at, s.deadline_at, s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report,
            s.pod_uid, s.pod_name, s.pod_node
        FROM metagate.startup AS s
        WHERE s.tenant = in_tenant
            AND s.startup_id < coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            AND s.startup_id >= coalesce((SELECT e.startup_id FROM edge AS e), '00000000-0000-0000-0000-000000000000')
            AND (in_status IS NULL OR s.status = in_status
                OR (in_status = 'overdue' AND s.status = 'OPEN' AND s.deadline_at < now()))
            AND (in_component IS NULL OR s.component_key = in_component)
            AND (in_principal IS NULL OR s.principal_key = in_principal)
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT page
    )
    SELECT f.* FROM found AS f
    UNION ALL
    SELECT in_tenant, e.startup_id, '', '', 'LOOKED', false, NULL, now(), now(), NULL, '00000000-0000-0000-0000-000000000000', '', 0, NULL,
        NULL, NULL, NULL
    FROM edge AS e
    WHERE (SELECT count(*) FROM found) < page
$$;
COMMENT ON FUNCTION metagate.startups IS 'Sessions of a tenant, newest first.';

CREATE FUNCTION metagate.startups_everywhere(
    in_status text, in_component text, in_principal text, after_tenant uuid, after_startup uuid, page integer, span integer
) RETURNS SETOF metagate.startup_view
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    WITH edge AS MATERIALIZED (
        SELECT s.tenant, s.startup_id
        FROM metagate.startup AS s
        WHERE coalesce(in_status, in_component, in_principal) IS NOT NULL
            AND (s.tenant, s.startup_id) < (
                coalesce(after_tenant, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
                coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        ORDER BY s.tenant DESC, s.startup_id DESC
        OFFSET span - 1 LIMIT 1
    ),
    found AS MATERIALIZED (
        SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, s.status = 'OPEN' AND s.deadline_at < now(),
            s.late, s.opened_at, s.deadline_at, s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report,
            s.pod_uid, s.pod_name, s.pod_node
        FROM metagate.startup AS s
        WHERE (s.tenant, s.startup_id) < (
                coalesce(after_tenant, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
                coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
            AND (s.tenant, s.startup_id) >= (
                coalesce((SELECT e.tenant FROM edge AS e), '00000000-0000-0000-0000-000000000000'),
                coalesce((SELECT e.startup_id FROM edge AS e), '00000000-0000-0000-0000-000000000000'))
            AND (in_status IS NULL OR s.status = in_status
                OR (in_status = 'overdue' AND s.status = 'OPEN' AND s.deadline_at < now()))
            AND (in_component IS NULL OR s.component_key = in_component)
            AND (in_principal IS NULL OR s.principal_key = in_principal)
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT page
    )
    SELECT f.* FROM found AS f
    UNION ALL
    SELECT e.tenant, e.startup_id, '', '', 'LOOKED', false, NULL, now(), now(), NULL, '00000000-0000-0000-0000-000000000000', '', 0, NULL,
        NULL, NULL, NULL
    FROM edge AS e
    WHERE (SELECT count(*) FROM found) < page
$$;
COMMENT ON FUNCTION metagate.startups_everywhere IS 'Sessions of every tenant, by tenant, then newest first (D-51).';

CREATE TYPE metagate.item AS (tenant uuid, namespace text, name text, revision bigint, body jsonb);

-- One page of a kind, for the doors below, which decide which tenants are seen. Each branch walks its key's index from where
-- the last page ended and stops at the page's end; only then bodies are put together.
CREATE FUNCTION metagate.items_of(kind text, only_tenant uuid, after_tenant uuid, after_name text, only_name text, page integer)
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

CREATE FUNCTION metagate.items(in_tenant uuid, in_kind text, after_name text, page integer) RETURNS SETOF metagate.item
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM metagate.items_of(in_kind, in_tenant, in_tenant, after_name, NULL, page) WHERE in_tenant IS NOT NULL
$$;
COMMENT ON FUNCTION metagate.items IS 'The served objects of a kind of one tenant, by name.';

CREATE FUNCTION metagate.items_everywhere(in_kind text, after_tenant uuid, after_name text, page integer)
RETURNS SETOF metagate.item
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM metagate.items_of(in_kind, NULL, after_tenant, after_name, NULL, page)
$$;
COMMENT ON FUNCTION metagate.items_everywhere IS 'The served objects of a kind, by tenant and name (D-51).';

CREATE FUNCTION metagate.item(in_tenant uuid, in_kind text, in_name text) RETURNS SETOF metagate.item
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM metagate.items_of(in_kind, in_tenant, NULL, NULL, in_name, 1) WHERE in_tenant IS NOT NULL
$$;
COMMENT ON FUNCTION metagate.item IS 'One served object of a tenant.';

CREATE FUNCTION metagate.policy_profile(in_tenant uuid, in_name text)
RETURNS TABLE (name text, body jsonb, policy_hash text, revision bigint, generation bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.name, p.body, p.policy_hash, p.revision, p.generation
    FROM metagate.policy_profile AS p
    WHERE p.tenant = in_tenant AND p.name = in_name
$$;

CREATE FUNCTION metagate.topology(in_tenant uuid)
RETURNS TABLE (revision bigint, principals jsonb, services jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH seen AS MATERIALIZED (
        SELECT DISTINCT r.principal_key, r.component_key
        FROM (
            SELECT s.principal_key, s.component_key
            FROM metagate.startup AS s
            WHERE s.tenant = in_tenant
            ORDER BY s.tenant DESC, s.startup_id DESC
            LIMIT 10000
        ) AS r
    ),
    packets AS MATERIALIZED (
        SELECT DISTINCT ON (b.digest) b.digest, convert_from(k.body, 'UTF8')::jsonb -> 'services' AS services
        FROM metagate.binding AS b JOIN metagate.packet AS k ON k.digest = b.digest
        WHERE b.tenant = in_tenant
    ),
    used AS MATERIALIZED (
        SELECT b.principal_key, s.name, s.service
        FROM metagate.binding AS b
        JOIN packets AS k ON k.digest = b.digest
        CROSS JOIN LATERAL jsonb_each(
            CASE jsonb_typeof(k.services) WHEN 'object' THEN k.services ELSE '{}' END) AS s (name, service)
        WHERE b.tenant = in_tenant
    ),
    seen_by AS (
        SELECT s.principal_key, jsonb_agg(s.component_key ORDER BY s.component_key) AS components
        FROM seen AS s GROUP BY s.principal_key
    ),
    used_by AS (
        SELECT u.principal_key, jsonb_agg(u.name ORDER BY u.name) AS services FROM used AS u GROUP BY u.principal_key
    )
    SELECT
        (SELECT coalesce(max(r.revision), 0) FROM metagate.revision AS r),
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'principal_key', p.principal_key, 'type', p.type, 'suspended', p.suspended,
                'components', coalesce(b.components, '{}'), 'profile', b.profile, 'manifest', b.manifest,
                'seen', coalesce(s.components, '[]'), 'services', coalesce(u.services, '[]')
            ) ORDER BY p.principal_key), '[]')
            FROM metagate.principal AS p
            LEFT JOIN metagate.binding AS b ON b.tenant = p.tenant AND b.principal_key = p.principal_key
            LEFT JOIN seen_by AS s ON s.principal_key = p.principal_key
            LEFT JOIN used_by AS u ON u.principal_key = p.principal_key
            WHERE p.tenant = in_tenant
        ),
        (
            SELECT coalesce(jsonb_agg(jsonb_build_object(
                'name', g.name, 'type', g.type, 'endpoint', g.endpoint, 'used_by', g.used_by
            ) ORDER BY g.name, g.type, g.endpoint), '[]')
            FROM (
                SELECT u.name, u.service ->> 'type' AS type, u.service ->> 'endpoint' AS endpoint,
                    jsonb_agg(u.principal_key ORDER BY u.principal_key) AS used_by
                FROM used AS u
                GROUP BY 1, 2, 3
            ) AS g
        )
$$;
COMMENT ON FUNCTION metagate.topology IS
    'Principals, their permitted components and those among the last 10,000 startups, services and who uses them (D-49).';

CREATE FUNCTION metagate.state()
RETURNS TABLE (
    revision bigint, compiled_at timestamptz, schema_version integer, at timestamptz, mirror_waiting bigint,
    mirror_lag_seconds double precision
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce(r.revision, 0), r.published_at, (SELECT max(m.version) FROM metagate.migration AS m), now(),
        (SELECT count(*) FROM (SELECT FROM metagate.outbox LIMIT 10000) AS o),
        coalesce((
            SELECT greatest(0, extract(epoch FROM now() - o.created_at)) FROM metagate.outbox AS o ORDER BY o.seq LIMIT 1
        ), 0)::double precision
    FROM (VALUES (1)) AS one (one)
    LEFT JOIN LATERAL (
        SELECT v.revision, v.published_at FROM metagate.revision AS v ORDER BY v.revision DESC LIMIT 1
    ) AS r ON true
$$;
COMMENT ON FUNCTION metagate.state IS 'How fresh the database is, which schema it has, how far the mirror lags.';
