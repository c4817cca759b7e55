-- What agents may ask of a deployment, and which gateways say that they serve it (INV-119).

CREATE TABLE metagate.problemata (
    tenant uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    body jsonb NOT NULL,
    content_hash text NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

-- An instance says four times a minute that it is there, and changes nothing else: with room left in each page, PostgreSQL writes
-- such an update beside the row and touches no index. What is no longer served takes its instances along.
CREATE TABLE metagate.problemata_instance (
    tenant uuid NOT NULL,
    problemata text COLLATE "C" NOT NULL,
    instance text COLLATE "C" NOT NULL,
    principal_key text COLLATE "C" NOT NULL,
    endpoint text NOT NULL,
    version text NOT NULL,
    capabilities text[] NOT NULL,
    health text NOT NULL CHECK (health IN ('ok', 'degraded')),
    announced_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, problemata, instance),
    FOREIGN KEY (tenant, problemata) REFERENCES metagate.problemata ON DELETE CASCADE
) WITH (fillfactor = 70);

-- Outcomes are rows. The order: is it served, may this principal speak for it, is it this version. A capability that the version does
-- not have is another version.
CREATE FUNCTION metagate.announce(
    in_tenant uuid, in_problemata text, in_instance text, in_principal text, in_endpoint text, in_version text, in_capabilities text[],
    in_health text
)
RETURNS TABLE (outcome text, announced_at timestamptz)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    served jsonb;
    moment timestamptz := clock_timestamp();
BEGIN
    -- Locked, so that it cannot be withdrawn between this look and the row that refers to it.
    SELECT p.body INTO served
    FROM metagate.problemata AS p
    JOIN metagate.tenant AS t ON t.tenant = p.tenant AND t.retired_at IS NULL
    WHERE p.tenant = in_tenant AND p.name = in_problemata
    FOR KEY SHARE OF p;
    IF served IS NULL THEN
        RETURN QUERY SELECT 'UNKNOWN', NULL::timestamptz;
    ELSIF NOT (served #> '{gateway,principals}') ? in_principal THEN
        RETURN QUERY SELECT 'NOT_PERMITTED', NULL::timestamptz;
    ELSIF served ->> 'version' <> in_version OR EXISTS (
        SELECT FROM unnest(in_capabilities) AS c (id)
        WHERE NOT served @> jsonb_build_object('capabilities', jsonb_build_array(jsonb_build_object('id', c.id)))
    ) THEN
        RETURN QUERY SELECT 'OTHER_VERSION', NULL::timestamptz;
    ELSE
        INSERT INTO metagate.problemata_instance AS i (
            tenant, problemata, instance, principal_key, endpoint, version, capabilities, health, announced_at
        )
        VALUES (
            in_tenant, in_problemata, in_instance, in_principal, in_endpoint, in_version, in_capabilities, in_health, moment
        )
        ON CONFLICT ON CONSTRAINT problemata_instance_pkey DO UPDATE SET
            principal_key = excluded.principal_key, endpoint = excluded.endpoint, version = excluded.version,
            capabilities = excluded.capabilities, health = excluded.health,
            announced_at = greatest(i.announced_at, excluded.announced_at);
        -- Pods have new names after each rollout: what was silent for an hour, and more than the newest 64, is forgotten.
        DELETE FROM metagate.problemata_instance AS i
        USING (
            SELECT n.instance, n.announced_at, row_number() OVER (ORDER BY n.announced_at DESC, n.instance) AS place
            FROM metagate.problemata_instance AS n
            WHERE n.tenant = in_tenant AND n.problemata = in_problemata
        ) AS o
        WHERE i.tenant = in_tenant AND i.problemata = in_problemata AND i.instance = o.instance
            AND (o.place > 64 OR o.announced_at < moment - interval '1 hour');
        RETURN QUERY SELECT 'ANNOUNCED', moment;
    END IF;
END
$$;
COMMENT ON FUNCTION metagate.announce IS
    'A gateway says that it serves a Problemata: ANNOUNCED, or why not (UNKNOWN, NOT_PERMITTED, OTHER_VERSION).';

CREATE FUNCTION metagate.withdraw(in_tenant uuid, in_problemata text, in_instance text, in_principal text)
RETURNS TABLE (outcome text)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    served jsonb;
BEGIN
    SELECT p.body INTO served
    FROM metagate.problemata AS p
    JOIN metagate.tenant AS t ON t.tenant = p.tenant AND t.retired_at IS NULL
    WHERE p.tenant = in_tenant AND p.name = in_problemata;
    IF served IS NULL THEN
        RETURN QUERY SELECT 'UNKNOWN';
    ELSIF NOT (served #> '{gateway,principals}') ? in_principal THEN
        RETURN QUERY SELECT 'NOT_PERMITTED';
    ELSE
        DELETE FROM metagate.problemata_instance AS i
        WHERE i.tenant = in_tenant AND i.problemata = in_problemata AND i.instance = in_instance;
        RETURN QUERY SELECT 'WITHDRAWN';
    END IF;
END
$$;
COMMENT ON FUNCTION metagate.withdraw IS
    'A gateway stops: WITHDRAWN, also when it was not there any more, or why not (UNKNOWN, NOT_PERMITTED).';

-- A page ends at `page` items or 1 MiB, whichever comes first; the first item always comes (D-66). Instances are measured before any
-- JSON is made of them: of five hundred Problematas with 64 instances each that would take longer than a statement may.
CREATE FUNCTION metagate.announced(in_tenant uuid, only_name text, after_name text, page integer)
RETURNS TABLE (
    name text, version text, payload_kind text, capabilities jsonb, policy_profile text, surface text, available boolean, instances jsonb,
    more boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    WITH listed AS MATERIALIZED (
        SELECT p.name, p.body ->> 'version' AS version, p.body ->> 'payloadKind' AS payload_kind,
            jsonb_path_query_array(p.body, '$.capabilities[*].id') AS capabilities,
            p.body #>> '{gateway,policyProfileRef,name}' AS policy_profile, p.body #>> '{gateway,surfaceId}' AS surface
        FROM metagate.problemata AS p
        JOIN metagate.tenant AS t ON t.tenant = p.tenant AND t.retired_at IS NULL
        WHERE p.tenant = in_tenant AND p.name > coalesce(after_name, '') AND (only_name IS NULL OR p.name = only_name)
        ORDER BY p.name LIMIT page + 1
    ),
    measured AS (
        SELECT l.*, row_number() OVER w AS place, count(*) OVER () AS total,
            sum(1024 + octet_length(l.capabilities::text) + (
                SELECT coalesce(sum(128 + octet_length(n.instance) + octet_length(n.endpoint) + octet_length(n.version)), 0)
                FROM metagate.problemata_instance AS n
                WHERE n.tenant = in_tenant AND n.problemata = l.name
            )) OVER w AS size
        FROM listed AS l
        WINDOW w AS (ORDER BY l.name)
    ),
    fitting AS MATERIALIZED (
        SELECT m.* FROM measured AS m WHERE m.place <= page AND (m.place = 1 OR m.size <= 1048576)
    )
    SELECT f.name, f.version, f.payload_kind, f.capabilities, f.policy_profile, f.surface, coalesce(i.available, false),
        coalesce(i.instances, '[]'), f.total > (SELECT count(*) FROM fitting)
    FROM fitting AS f
    LEFT JOIN LATERAL (
        SELECT bool_or(n.health = 'ok' AND n.version = f.version AND n.announced_at > now() - interval '45 seconds') AS available,
            jsonb_agg(
                jsonb_build_object(
                    'instance', n.instance, 'endpoint', n.endpoint, 'version', n.version, 'health', n.health,
                    'announced_at', to_char(n.announced_at AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))
                ORDER BY n.instance
            ) AS instances
        FROM metagate.problemata_instance AS n
        WHERE n.tenant = in_tenant AND n.problemata = f.name AND n.announced_at > now() - interval '1 hour'
    ) AS i ON true
    ORDER BY f.name
$$;
COMMENT ON FUNCTION metagate.announced IS
    'The served Problematas of a tenant with their instances; available: one said ok within 45 seconds, of this version.';

-- What an MCP gateway follows (D-60), as metagate.policies.
CREATE FUNCTION metagate.problematas(known text[])
RETURNS TABLE (tenant uuid, namespace text, name text, revision bigint, content_hash text, body jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
    SELECT n.tenant, n.namespace, n.name, n.revision, n.content_hash, CASE WHEN n.place = 1 AND NOT n.held THEN n.body END
    FROM (
        SELECT p.tenant, t.namespace, p.name, p.revision, p.content_hash, p.body,
            row_number() OVER (PARTITION BY p.content_hash ORDER BY p.tenant, p.name) AS place,
            p.content_hash IN (SELECT k.hash FROM unnest(known) AS k (hash)) AS held
        FROM metagate.problemata AS p
        JOIN metagate.tenant AS t ON t.tenant = p.tenant AND t.retired_at IS NULL
    ) AS n
    ORDER BY n.tenant, n.name
$$;
COMMENT ON FUNCTION metagate.problematas IS
    'Every served Problemata, in one snapshot. A body comes once per content_hash, and not where the caller holds it already: what is absent is gone.';

-- As in 0003, with a branch for Problematas.
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
