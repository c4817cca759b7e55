CREATE SCHEMA metagate;

ALTER SCHEMA metagate OWNER TO metagate_owner;

CREATE TYPE metagate.boot AS (
	principal_key text,
	component_key text,
	startup_id uuid,
	opened_at timestamp with time zone,
	binding text,
	revision bigint,
	compiled_at timestamp with time zone,
	digest text,
	body bytea
);

ALTER TYPE metagate.boot OWNER TO metagate_owner;

CREATE TYPE metagate.declaration AS (
	kind text,
	namespace text,
	name text,
	uid uuid,
	generation bigint,
	created_at timestamp with time zone,
	manager text,
	spec jsonb,
	revision bigint,
	changed_at timestamp with time zone,
	packet_digest text
);

ALTER TYPE metagate.declaration OWNER TO metagate_owner;

CREATE TYPE metagate.found AS (
	tenant uuid,
	namespace text,
	principal_key text,
	type text,
	suspended boolean
);

ALTER TYPE metagate.found OWNER TO metagate_owner;

CREATE TYPE metagate.happening AS (
	seq bigint,
	revision bigint,
	changed_at timestamp with time zone,
	kind text,
	tenant uuid,
	namespace text,
	name text,
	uid uuid,
	generation bigint,
	served_generation bigint,
	manager text,
	before_digest text,
	after_digest text,
	principal_key text,
	packet_digest text
);

ALTER TYPE metagate.happening OWNER TO metagate_owner;

CREATE TYPE metagate.item AS (
	tenant uuid,
	namespace text,
	name text,
	revision bigint,
	body jsonb
);

ALTER TYPE metagate.item OWNER TO metagate_owner;

CREATE TYPE metagate.overview AS (
	at timestamp with time zone,
	opened bigint,
	ready bigint,
	failed bigint,
	starting bigint,
	overdue bigint,
	looked_back_to timestamp with time zone,
	everything boolean,
	minutes jsonb,
	troubles jsonb,
	latest jsonb,
	tenants jsonb
);

ALTER TYPE metagate.overview OWNER TO metagate_owner;

CREATE TYPE metagate.startup_view AS (
	tenant uuid,
	startup_id uuid,
	principal_key text,
	component_key text,
	status text,
	overdue boolean,
	late boolean,
	opened_at timestamp with time zone,
	deadline_at timestamp with time zone,
	acknowledged_at timestamp with time zone,
	packet_id uuid,
	digest text,
	revision bigint,
	report jsonb,
	pod_uid text,
	pod_name text,
	pod_node text
);

ALTER TYPE metagate.startup_view OWNER TO metagate_owner;

CREATE FUNCTION metagate.announce(in_tenant uuid, in_problemata text, in_instance text, in_principal text, in_endpoint text, in_version text, in_capabilities text[], in_health text) RETURNS TABLE(outcome text, announced_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

ALTER FUNCTION metagate.announce(in_tenant uuid, in_problemata text, in_instance text, in_principal text, in_endpoint text, in_version text, in_capabilities text[], in_health text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.announced(in_tenant uuid, only_name text, after_name text, page integer) RETURNS TABLE(name text, version text, payload_kind text, capabilities jsonb, policy_profile text, surface text, available boolean, instances jsonb, more boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
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
$_$;

ALTER FUNCTION metagate.announced(in_tenant uuid, only_name text, after_name text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.booted(in_tenant uuid, in_startup uuid) RETURNS SETOF metagate.boot
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT s.principal_key, s.component_key, s.startup_id, s.opened_at, NULL, s.revision, s.compiled_at, s.digest, p.body
    FROM metagate.startup AS s LEFT JOIN metagate.packet AS p ON p.digest = s.digest
    WHERE s.tenant = in_tenant AND s.startup_id = in_startup
$$;

ALTER FUNCTION metagate.booted(in_tenant uuid, in_startup uuid) OWNER TO metagate_owner;

CREATE FUNCTION metagate.bootstrap(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], components text[], startups uuid[], packets uuid[], keys text[], expected text[], pod_uids text[], pod_names text[], pod_nodes text[], mirrors boolean[]) RETURNS TABLE(n bigint, outcome text, startup_id uuid, packet_id uuid, issued_at timestamp with time zone, deadline_at timestamp with time zone, digest text, body bytea, revision bigint, compiled_at timestamp with time zone)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
WITH ask AS MATERIALIZED (
    SELECT *
    FROM unnest(
        tenants, principals, kinds, issuers, subjects, kids, components,
        startups, packets, keys, expected, pod_uids, pod_names, pod_nodes, mirrors
    ) WITH ORDINALITY AS a (
        tenant, principal_key, kind, issuer, subject, kid, component_key,
        startup_id, packet_id, key, expected, pod_uid, pod_name, pod_node, mirror, n
    )
),
judged AS MATERIALIZED (
    SELECT a.*, b.digest, b.revision, b.compiled_at, now() + make_interval(secs => b.sla_seconds) AS deadline_at,
        CASE
            WHEN p.principal_key IS NULL THEN 'UNKNOWN_PRINCIPAL'
            WHEN NOT CASE a.kind
                WHEN 'key' THEN EXISTS (
                    SELECT FROM metagate.api_key AS k
                    WHERE k.sha256 = a.subject
                        AND (k.tenant, k.principal_key) IS NOT DISTINCT FROM (a.tenant, a.principal_key)
                        AND (k.expires_at IS NULL OR k.expires_at > now()))
                ELSE EXISTS (
                    SELECT FROM metagate.subject AS s
                    WHERE s.issuer = a.issuer AND s.subject = a.subject
                        AND (s.tenant, s.principal_key) IS NOT DISTINCT FROM (a.tenant, a.principal_key))
                    AND (a.kid IS NULL OR EXISTS (
                        SELECT FROM metagate.issuer AS i JOIN metagate.issuer_key AS k ON k.issuer = i.issuer
                        WHERE i.issuer = a.issuer AND k.kid = a.kid AND k.retired_at IS NULL))
                END THEN 'CREDENTIAL_REVOKED'
            WHEN p.suspended THEN 'SUSPENDED'
            WHEN b.principal_key IS NULL THEN 'NO_BINDING'
            WHEN NOT EXISTS (
                SELECT FROM unnest(b.components) AS c (pattern)
                WHERE c.pattern = a.component_key
                    OR (right(c.pattern, 1) = '*' AND starts_with(a.component_key, left(c.pattern, -1)))
            ) THEN 'COMPONENT_NOT_PERMITTED'
            WHEN b.digest IS NULL THEN 'BINDING_INCOMPLETE'
        END AS refusal
    FROM ask AS a
    LEFT JOIN metagate.principal AS p ON p.tenant = a.tenant AND p.principal_key = a.principal_key
    LEFT JOIN metagate.binding AS b ON b.tenant = a.tenant AND b.principal_key = a.principal_key
),
known AS MATERIALIZED (
    SELECT i.*, j.n
    FROM judged AS j
    JOIN metagate.idempotency AS i ON i.tenant = j.tenant AND i.principal_key = j.principal_key AND i.key = j.key
    WHERE j.refusal IS NULL AND j.key IS NOT NULL AND i.opened_at > now() - interval '24 hours'
),
willing AS MATERIALIZED (
    SELECT j.* FROM judged AS j
    WHERE j.refusal IS NULL AND j.expected = j.digest AND NOT EXISTS (SELECT FROM known AS k WHERE k.n = j.n)
),
kept AS (
    INSERT INTO metagate.idempotency AS i (
        tenant, principal_key, key, startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, component_key,
        digest, pod_uid
    )
    SELECT DISTINCT ON (w.tenant, w.principal_key, w.key)
        w.tenant, w.principal_key, w.key, w.startup_id, w.packet_id, now(), w.deadline_at, w.compiled_at, w.revision,
        w.component_key, w.digest, w.pod_uid
    FROM willing AS w
    WHERE w.key IS NOT NULL
    ORDER BY w.tenant, w.principal_key, w.key, w.n
    ON CONFLICT (tenant, principal_key, key) DO UPDATE SET (
        startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, component_key, digest, pod_uid
    ) = (
        SELECT
            t.startup_id, t.packet_id, t.opened_at, t.deadline_at, t.compiled_at, t.revision, t.component_key, t.digest, t.pod_uid
        FROM (
            VALUES
                (true, i.startup_id, i.packet_id, i.opened_at, i.deadline_at, i.compiled_at, i.revision, i.component_key,
                    i.digest, i.pod_uid),
                (false, excluded.startup_id, excluded.packet_id, excluded.opened_at, excluded.deadline_at,
                    excluded.compiled_at, excluded.revision, excluded.component_key, excluded.digest, excluded.pod_uid)
        ) AS t (live, startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, component_key, digest, pod_uid)
        WHERE t.live = (i.opened_at > now() - interval '24 hours')
    )
    RETURNING i.*
),
mine AS MATERIALIZED (
    SELECT w.* FROM willing AS w
    WHERE w.key IS NULL OR EXISTS (
        SELECT FROM kept AS k WHERE k.tenant = w.tenant AND k.startup_id = w.startup_id
    )
),
opened AS (
    INSERT INTO metagate.startup (
        tenant, startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, principal_key, component_key, digest,
        pod_uid, pod_name, pod_node
    )
    SELECT
        m.tenant, m.startup_id, m.packet_id, now(), m.deadline_at, m.compiled_at, m.revision, m.principal_key,
        m.component_key, m.digest, m.pod_uid, m.pod_name, m.pod_node
    FROM mine AS m
),
mirrored AS (
    INSERT INTO metagate.outbox (tenant, event, startup_id, revision, body)
    SELECT m.tenant, 'OPEN', m.startup_id, m.revision, jsonb_build_object(
        'principal_key', m.principal_key, 'component_key', m.component_key, 'digest', m.digest,
        'opened_at', now(), 'deadline_at', m.deadline_at)
    FROM mine AS m
    WHERE m.mirror
    ORDER BY m.n
)
SELECT f.n, f.outcome, f.startup_id, f.packet_id, f.issued_at, f.deadline_at, f.digest,
    CASE WHEN f.digest IS DISTINCT FROM f.expected THEN (SELECT p.body FROM metagate.packet AS p WHERE p.digest = f.digest) END,
    f.revision, f.compiled_at
FROM (
    SELECT j.n, j.expected, o.outcome,
        CASE o.outcome WHEN 'OPENED' THEN j.startup_id WHEN 'REPLAYED' THEN r.startup_id END AS startup_id,
        CASE o.outcome WHEN 'OPENED' THEN j.packet_id WHEN 'REPLAYED' THEN r.packet_id END AS packet_id,
        CASE o.outcome WHEN 'OPENED' THEN now() WHEN 'REPLAYED' THEN r.opened_at END AS issued_at,
        CASE o.outcome WHEN 'OPENED' THEN j.deadline_at WHEN 'REPLAYED' THEN r.deadline_at END AS deadline_at,
        CASE o.outcome WHEN 'OPENED' THEN j.digest WHEN 'PACKET' THEN j.digest WHEN 'REPLAYED' THEN r.digest END AS digest,
        CASE o.outcome WHEN 'OPENED' THEN j.revision WHEN 'PACKET' THEN j.revision WHEN 'REPLAYED' THEN r.revision END
            AS revision,
        CASE o.outcome WHEN 'OPENED' THEN j.compiled_at WHEN 'PACKET' THEN j.compiled_at WHEN 'REPLAYED' THEN r.compiled_at
            END AS compiled_at
    FROM judged AS j
    LEFT JOIN known AS e ON e.n = j.n
    LEFT JOIN kept AS k
        ON j.key IS NOT NULL AND j.refusal IS NULL AND j.expected = j.digest
        AND k.tenant = j.tenant AND k.principal_key = j.principal_key AND k.key = j.key
    CROSS JOIN LATERAL (
        SELECT coalesce(e.startup_id, k.startup_id), coalesce(e.packet_id, k.packet_id), coalesce(e.opened_at, k.opened_at),
            coalesce(e.deadline_at, k.deadline_at), coalesce(e.compiled_at, k.compiled_at), coalesce(e.revision, k.revision),
            coalesce(e.component_key, k.component_key), coalesce(e.digest, k.digest),
            CASE WHEN e.n IS NOT NULL THEN e.pod_uid ELSE k.pod_uid END
    ) AS r (startup_id, packet_id, opened_at, deadline_at, compiled_at, revision, component_key, digest, pod_uid)
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN j.refusal IS NOT NULL THEN j.refusal
            WHEN r.startup_id IS NULL AND j.expected IS DISTINCT FROM j.digest THEN 'PACKET'
            WHEN r.startup_id IS NULL OR (e.n IS NULL AND r.startup_id = j.startup_id) THEN 'OPENED'
            WHEN r.pod_uid IS NOT NULL AND r.pod_uid IS DISTINCT FROM j.pod_uid THEN 'NOT_THIS_POD'
            WHEN r.component_key <> j.component_key THEN 'IDEMPOTENCY_CONFLICT'
            ELSE 'REPLAYED'
        END
    ) AS o (outcome)
) AS f
ORDER BY f.n
$$;

ALTER FUNCTION metagate.bootstrap(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], components text[], startups uuid[], packets uuid[], keys text[], expected text[], pod_uids text[], pod_names text[], pod_nodes text[], mirrors boolean[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.changed_specs(in_tenant uuid, everywhere boolean, of_changes bigint[], budget bigint) RETURNS TABLE(seq bigint, before_spec jsonb, after_spec jsonb, complete boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

ALTER FUNCTION metagate.changed_specs(in_tenant uuid, everywhere boolean, of_changes bigint[], budget bigint) OWNER TO metagate_owner;

CREATE FUNCTION metagate.claim(in_cluster text) RETURNS text
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    WITH claimed AS (
        INSERT INTO metagate.installation (cluster_uid) VALUES (in_cluster) ON CONFLICT (singleton) DO NOTHING
        RETURNING cluster_uid
    )
    SELECT cluster_uid FROM claimed UNION ALL SELECT i.cluster_uid FROM metagate.installation AS i LIMIT 1
$$;

ALTER FUNCTION metagate.claim(in_cluster text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.credential_mark() RETURNS bigint
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$ SELECT coalesce(max(c.mark), 0) FROM metagate.credential_change AS c $$;

ALTER FUNCTION metagate.credential_mark() OWNER TO metagate_owner;

CREATE FUNCTION metagate.credentials(since bigint) RETURNS TABLE(mark bigint, kind text, a text, b text, body jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.mark, c.kind, c.a, c.b, CASE c.kind
        WHEN 'api_key' THEN (
            SELECT jsonb_build_object('key_id', k.key_id, 'tenant', k.tenant, 'principal_key', k.principal_key,
                'expires_at', k.expires_at)
            FROM metagate.api_key AS k WHERE k.sha256 = c.a)
        WHEN 'issuer' THEN (
            SELECT jsonb_build_object('name', i.name, 'audiences', i.audiences, 'algorithms', i.algorithms,
                'max_token_lifetime_seconds', i.max_token_lifetime_seconds, 'source', i.source, 'url', i.url)
            FROM metagate.issuer AS i WHERE i.issuer = c.a)
        ELSE (
            SELECT jsonb_build_object('jwk', k.jwk, 'alg', k.alg, 'first_seen', k.first_seen)
            FROM metagate.issuer_key AS k WHERE k.issuer = c.a AND k.kid = c.b AND k.retired_at IS NULL)
    END
    FROM metagate.credential_change AS c
    WHERE c.mark > since
    ORDER BY c.mark
$$;

ALTER FUNCTION metagate.credentials(since bigint) OWNER TO metagate_owner;

CREATE FUNCTION metagate.declared_at(in_tenant uuid, in_revision bigint, after_kind text, after_name text, page integer) RETURNS SETOF metagate.declaration
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    WITH RECURSIVE named (kind, name, n) AS (
        (SELECT c.kind, c.name, 1 FROM metagate.change AS c
        WHERE c.tenant = in_tenant AND (c.kind, c.name) > (coalesce(after_kind, ''), coalesce(after_name, ''))
        ORDER BY c.kind, c.name LIMIT 1)
        UNION ALL
        SELECT x.kind, x.name, p.n + 1 FROM named AS p
        CROSS JOIN LATERAL (
            SELECT c.kind, c.name FROM metagate.change AS c
            WHERE c.tenant = in_tenant AND (c.kind, c.name) > (p.kind, p.name)
            ORDER BY c.kind, c.name LIMIT 1
        ) AS x
        WHERE p.n < page
    )
    SELECT n.kind, coalesce(l.namespace, ''), n.name, l.uid, l.generation, l.created_at, l.manager, l.spec, l.revision, l.changed_at,
        l.packet_digest
    FROM named AS n
    LEFT JOIN LATERAL (
        SELECT c.namespace, c.uid, d.generation, d.created_at, d.manager, d.spec, c.revision, c.changed_at, c.packet_digest
        FROM (
            SELECT h.* FROM metagate.change AS h
            WHERE h.tenant = in_tenant AND h.kind = n.kind AND h.name = n.name AND h.revision <= in_revision
            ORDER BY h.revision DESC, h.seq DESC LIMIT 1
        ) AS c
        CROSS JOIN LATERAL (
            SELECT g.* FROM metagate.declared AS g
            WHERE g.uid = c.uid AND g.generation <= coalesce(c.served_generation, c.generation)
            ORDER BY g.uid DESC, g.generation DESC LIMIT 1
        ) AS d
        WHERE c.after_digest IS NOT NULL
    ) AS l ON true
    ORDER BY n.kind, n.name
$$;

ALTER FUNCTION metagate.declared_at(in_tenant uuid, in_revision bigint, after_kind text, after_name text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.declared_then(in_tenant uuid, in_kind text, in_name text, in_revision bigint) RETURNS SETOF metagate.declaration
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    SELECT c.kind, c.namespace, c.name, c.uid, d.generation, d.created_at, d.manager, d.spec, c.revision, c.changed_at, c.packet_digest
    FROM (
        SELECT h.* FROM metagate.change AS h
        WHERE h.tenant = in_tenant AND h.kind = in_kind AND h.name = in_name AND h.revision <= in_revision
        ORDER BY h.revision DESC, h.seq DESC LIMIT 1
    ) AS c
    JOIN metagate.declared AS d ON d.uid = c.uid AND d.generation = c.served_generation
    WHERE c.after_digest IS NOT NULL
$$;

ALTER FUNCTION metagate.declared_then(in_tenant uuid, in_kind text, in_name text, in_revision bigint) OWNER TO metagate_owner;

CREATE FUNCTION metagate.errors_of(of_tenants uuid[], of_startups uuid[]) RETURNS TABLE(startup_id uuid, error text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    SELECT s.startup_id, left(s.report ->> 'error', 300)
    FROM unnest(of_tenants, of_startups) AS a (tenant, startup_id)
    JOIN metagate.startup AS s ON s.tenant = a.tenant AND s.startup_id = a.startup_id
    WHERE s.status = 'FAILED' AND s.report ->> 'error' IS NOT NULL
$$;

ALTER FUNCTION metagate.errors_of(of_tenants uuid[], of_startups uuid[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.everybody() RETURNS TABLE(issuer text, subject text, tenant uuid, namespace text, namespace_created timestamp with time zone, principal_key text, type text, scope text, rights text[], suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT c.issuer, c.subject, p.tenant, t.namespace, t.created_at, p.principal_key, p.type, p.scope, p.rights, p.suspended
    FROM (
        SELECT '' AS issuer, k.sha256 AS subject, k.tenant, k.principal_key FROM metagate.api_key AS k
        UNION ALL
        SELECT s.issuer, s.subject, s.tenant, s.principal_key FROM metagate.subject AS s
    ) AS c
    JOIN metagate.principal AS p ON p.tenant = c.tenant AND p.principal_key = c.principal_key
    LEFT JOIN metagate.tenant AS t ON t.tenant = p.tenant
$$;

ALTER FUNCTION metagate.everybody() OWNER TO metagate_owner;

CREATE FUNCTION metagate.failures(in_tenant uuid, everywhere boolean, span integer, page integer) RETURNS TABLE(error text, startups bigint, components bigint, principals bigint, first_at timestamp with time zone, last_at timestamp with time zone, tenant uuid, startup_id uuid, principal_key text, component_key text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.failures(in_tenant uuid, everywhere boolean, span integer, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.history(in_tenant uuid, in_kind text, in_name text, before_revision bigint, before_seq bigint, page integer) RETURNS SETOF metagate.happening
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    WITH span AS (SELECT coalesce(before_revision, 9223372036854775807) AS revision, coalesce(before_seq, 9223372036854775807) AS seq),
    found AS (
        (SELECT c.* FROM span AS s, metagate.change AS c
        WHERE in_kind IS NULL AND c.tenant = in_tenant AND (c.revision, c.seq) < (s.revision, s.seq)
        ORDER BY c.revision DESC, c.seq DESC LIMIT page)
        UNION ALL
        (SELECT c.* FROM span AS s, metagate.change AS c
        WHERE in_kind IS NOT NULL AND c.tenant = in_tenant AND c.kind = in_kind AND c.name = in_name
            AND (c.revision, c.seq) < (s.revision, s.seq)
        ORDER BY c.revision DESC, c.seq DESC LIMIT page)
        UNION ALL
        (SELECT c.* FROM span AS s, metagate.change AS c
        WHERE in_kind = 'Principal' AND c.tenant = in_tenant AND c.principal_key = in_name
            AND (c.revision, c.seq) < (s.revision, s.seq)
        ORDER BY c.revision DESC, c.seq DESC LIMIT page)
    )
    SELECT f.seq, f.revision, f.changed_at, f.kind, f.tenant, f.namespace, f.name, f.uid, f.generation, f.served_generation, f.manager,
        f.before_digest, f.after_digest, f.principal_key, f.packet_digest
    FROM found AS f
    ORDER BY f.revision DESC, f.seq DESC LIMIT page
$$;

ALTER FUNCTION metagate.history(in_tenant uuid, in_kind text, in_name text, before_revision bigint, before_seq bigint, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.history_everywhere(before_revision bigint, before_seq bigint, page integer) RETURNS SETOF metagate.happening
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    SELECT c.seq, c.revision, c.changed_at, c.kind, c.tenant, c.namespace, c.name, c.uid, c.generation, c.served_generation, c.manager,
        c.before_digest, c.after_digest, c.principal_key, c.packet_digest
    FROM metagate.change AS c
    WHERE (c.revision, c.seq) < (coalesce(before_revision, 9223372036854775807), coalesce(before_seq, 9223372036854775807))
    ORDER BY c.revision DESC, c.seq DESC LIMIT page
$$;

ALTER FUNCTION metagate.history_everywhere(before_revision bigint, before_seq bigint, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.id_at(moment timestamp with time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

ALTER FUNCTION metagate.id_at(moment timestamp with time zone) OWNER TO metagate_owner;

CREATE FUNCTION metagate.id_moment(id uuid) RETURNS timestamp with time zone
    LANGUAGE sql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

ALTER FUNCTION metagate.id_moment(id uuid) OWNER TO metagate_owner;

CREATE FUNCTION metagate.interview(in_tenant uuid, span integer) RETURNS TABLE(at timestamp with time zone, principals bigint, suspended bigint, bindings bigint, unbound bigint, opened bigint, ready bigint, failed bigint, overdue bigint, oldest_open timestamp with time zone, counted_since timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.interview(in_tenant uuid, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.issuers_seen(page integer) RETURNS TABLE(issuer text, source text, keys bigint, last_seen timestamp with time zone, misses integer)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT i.issuer, i.source, count(k.kid), max(k.last_seen), coalesce(max(k.misses), 0)
    FROM (SELECT a.issuer, a.source FROM metagate.issuer AS a ORDER BY a.issuer LIMIT page) AS i
    LEFT JOIN metagate.issuer_key AS k ON k.issuer = i.issuer AND k.retired_at IS NULL
    GROUP BY i.issuer, i.source
    ORDER BY i.issuer
$$;

ALTER FUNCTION metagate.issuers_seen(page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.item(in_tenant uuid, in_kind text, in_name text) RETURNS SETOF metagate.item
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT * FROM metagate.items_of(in_kind, in_tenant, NULL, NULL, in_name, 1) WHERE in_tenant IS NOT NULL
$$;

ALTER FUNCTION metagate.item(in_tenant uuid, in_kind text, in_name text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.items(in_tenant uuid, in_kind text, after_name text, page integer) RETURNS SETOF metagate.item
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT * FROM metagate.items_of(in_kind, in_tenant, in_tenant, after_name, NULL, page) WHERE in_tenant IS NOT NULL
$$;

ALTER FUNCTION metagate.items(in_tenant uuid, in_kind text, after_name text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.items_everywhere(in_kind text, after_tenant uuid, after_name text, page integer) RETURNS SETOF metagate.item
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT * FROM metagate.items_of(in_kind, NULL, after_tenant, after_name, NULL, page)
$$;

ALTER FUNCTION metagate.items_everywhere(in_kind text, after_tenant uuid, after_name text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.items_of(kind text, only_tenant uuid, after_tenant uuid, after_name text, only_name text, page integer) RETURNS SETOF metagate.item
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

ALTER FUNCTION metagate.items_of(kind text, only_tenant uuid, after_tenant uuid, after_name text, only_name text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.layers(in_tenant uuid, in_principal text, in_revision bigint) RETURNS SETOF metagate.declaration
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    WITH bound AS MATERIALIZED (
        SELECT c.kind, c.namespace, c.name, c.uid, d.generation, d.created_at, d.manager, d.spec, c.revision, c.changed_at,
            c.packet_digest
        FROM (
            SELECT h.* FROM metagate.change AS h
            WHERE h.tenant = in_tenant AND h.principal_key = in_principal AND h.revision <= in_revision
            ORDER BY h.revision DESC, h.seq DESC LIMIT 1
        ) AS c
        JOIN metagate.declared AS d ON d.uid = c.uid AND d.generation = c.served_generation
    )
    SELECT b.* FROM bound AS b
    UNION ALL
    SELECT l.* FROM bound AS b
    CROSS JOIN LATERAL metagate.declared_then(in_tenant, 'Profile', b.spec #>> '{profileRef,name}', in_revision) AS l
    UNION ALL
    SELECT l.* FROM bound AS b
    CROSS JOIN LATERAL metagate.declared_then(in_tenant, 'Manifest', b.spec #>> '{manifestRef,name}', in_revision) AS l
$$;

ALTER FUNCTION metagate.layers(in_tenant uuid, in_principal text, in_revision bigint) OWNER TO metagate_owner;

CREATE FUNCTION metagate.mark_credential() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
    row_now jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
    key_a text := row_now ->> TG_ARGV[0];
    key_b text := coalesce(row_now ->> TG_ARGV[1], '');

BEGIN
    INSERT INTO metagate.credential_change (kind, a, b, mark)
    VALUES (TG_TABLE_NAME, key_a, key_b, nextval('metagate.credential_mark'))
    ON CONFLICT (kind, a, b) DO UPDATE SET mark = excluded.mark;
    RETURN NULL;

END $$;

ALTER FUNCTION metagate.mark_credential() OWNER TO metagate_owner;

CREATE FUNCTION metagate.mark_unbound() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO metagate.unbound (digest, since)
    SELECT DISTINCT g.digest, now() FROM gone AS g WHERE g.digest IS NOT NULL
    ON CONFLICT (digest) DO UPDATE SET since = excluded.since;
    RETURN NULL;

END $$;

ALTER FUNCTION metagate.mark_unbound() OWNER TO metagate_owner;

CREATE FUNCTION metagate.mark_verdict() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    IF (NEW.conditions, NEW.served_generation) IS DISTINCT FROM (OLD.conditions, OLD.served_generation) THEN
        NEW.changed_at := now();
    END IF;
    RETURN NEW;

END $$;

ALTER FUNCTION metagate.mark_verdict() OWNER TO metagate_owner;

CREATE FUNCTION metagate.named(in_tenant uuid, in_prefix text, page integer) RETURNS SETOF metagate.found
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT * FROM metagate.named_of(ARRAY[in_tenant], in_prefix, page) WHERE in_tenant IS NOT NULL
$$;

ALTER FUNCTION metagate.named(in_tenant uuid, in_prefix text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.named_everywhere(in_prefix text, page integer) RETURNS SETOF metagate.found
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT n.* FROM (
        SELECT coalesce(array_agg(t.tenant), '{}') AS tenants
        FROM (SELECT a.tenant FROM metagate.tenant AS a WHERE a.retired_at IS NULL ORDER BY a.namespace, a.tenant LIMIT 1000) AS t
    ) AS k
    CROSS JOIN LATERAL metagate.named_of(k.tenants, in_prefix, page) AS n
$$;

ALTER FUNCTION metagate.named_everywhere(in_prefix text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.named_of(of_tenants uuid[], in_prefix text, page integer) RETURNS SETOF metagate.found
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
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

ALTER FUNCTION metagate.named_of(of_tenants uuid[], in_prefix text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.not_served(in_tenant uuid, everywhere boolean, page integer) RETURNS TABLE(tenant uuid, kind text, namespace text, name text, generation bigint, served_generation bigint, reason text, message text, changed_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.not_served(in_tenant uuid, everywhere boolean, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.others_failed_with(in_tenant uuid, in_startup uuid, span integer) RETURNS TABLE(error text, startups bigint, components bigint, principals bigint, since timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.others_failed_with(in_tenant uuid, in_startup uuid, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.overview(in_tenant uuid, span integer, most integer) RETURNS SETOF metagate.overview
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT * FROM metagate.overview_of(ARRAY[in_tenant], ARRAY[span], most) WHERE in_tenant IS NOT NULL
$$;

ALTER FUNCTION metagate.overview(in_tenant uuid, span integer, most integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.overview_everywhere(span integer, most integer) RETURNS SETOF metagate.overview
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.overview_everywhere(span integer, most integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.overview_of(of_tenants uuid[], spans integer[], most integer) RETURNS SETOF metagate.overview
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.overview_of(of_tenants uuid[], spans integer[], most integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.own_key_digest() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    INSERT INTO metagate.key_digest (sha256, tenant) VALUES (NEW.sha256, NEW.tenant) ON CONFLICT (sha256) DO NOTHING;
    IF NEW.tenant = (SELECT d.tenant FROM metagate.key_digest AS d WHERE d.sha256 = NEW.sha256) THEN
        RETURN NEW;
    END IF;
    RETURN NULL;

END $$;

ALTER FUNCTION metagate.own_key_digest() OWNER TO metagate_owner;

CREATE FUNCTION metagate.packet_now(in_tenant uuid, in_principal text, in_kind text, in_issuer text, in_subject text, in_kid text, in_startup uuid, in_expected text, in_pod_uid text) RETURNS TABLE(outcome text, component_key text, packet_id uuid, issued_at timestamp with time zone, deadline_at timestamp with time zone, status text, digest text, body bytea, revision bigint, compiled_at timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT v.outcome, s.component_key, s.packet_id, s.opened_at, s.deadline_at, s.status, b.digest,
        CASE WHEN b.digest IS DISTINCT FROM in_expected
            THEN (SELECT k.body FROM metagate.packet AS k WHERE k.digest = b.digest) END,
        b.revision, b.compiled_at
    FROM (VALUES (1)) AS one (one)
    LEFT JOIN metagate.principal AS p ON p.tenant = in_tenant AND p.principal_key = in_principal
    LEFT JOIN metagate.startup AS f ON f.tenant = in_tenant AND f.startup_id = in_startup
    LEFT JOIN metagate.binding AS n ON n.tenant = in_tenant AND n.principal_key = in_principal
    CROSS JOIN LATERAL (
        SELECT CASE
            WHEN p.principal_key IS NULL THEN 'UNKNOWN_PRINCIPAL'
            WHEN NOT EXISTS (
                SELECT FROM metagate.resolve(ARRAY[in_kind], ARRAY[in_issuer], ARRAY[in_subject], ARRAY[in_kid]) AS r
                WHERE r.tenant = in_tenant AND r.principal_key = in_principal) THEN 'CREDENTIAL_REVOKED'
            WHEN p.suspended THEN 'SUSPENDED'
            WHEN f.startup_id IS NULL THEN 'UNKNOWN'
            WHEN f.principal_key <> in_principal THEN 'NOT_YOURS'
            WHEN f.pod_uid IS NOT NULL AND f.pod_uid IS DISTINCT FROM in_pod_uid THEN 'NOT_THIS_POD'
            WHEN n.principal_key IS NULL THEN 'NO_BINDING'
            WHEN NOT metagate.permits(n.components, f.component_key) THEN 'COMPONENT_NOT_PERMITTED'
            WHEN n.digest IS NULL THEN 'BINDING_INCOMPLETE'
            ELSE 'SERVED'
        END
    ) AS v (outcome)
    LEFT JOIN metagate.startup AS s ON v.outcome = 'SERVED' AND s.tenant = in_tenant AND s.startup_id = in_startup
    LEFT JOIN metagate.binding AS b ON v.outcome = 'SERVED' AND b.tenant = in_tenant AND b.principal_key = in_principal
$$;

ALTER FUNCTION metagate.packet_now(in_tenant uuid, in_principal text, in_kind text, in_issuer text, in_subject text, in_kid text, in_startup uuid, in_expected text, in_pod_uid text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.permits(components text[], component text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT EXISTS (
        SELECT FROM unnest(components) AS c (pattern)
        WHERE c.pattern = component OR (right(c.pattern, 1) = '*' AND starts_with(component, left(c.pattern, -1)))
    )
$$;

ALTER FUNCTION metagate.permits(components text[], component text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.plan_templates(known text[]) RETURNS TABLE(tenant uuid, namespace text, name text, revision bigint, content_hash text, body jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
    SELECT n.tenant, n.namespace, n.name, n.revision, n.content_hash, CASE WHEN n.place = 1 AND NOT n.held THEN n.body END
    FROM (
        SELECT p.tenant, t.namespace, p.name, p.revision, p.content_hash, p.body,
            row_number() OVER (PARTITION BY p.content_hash ORDER BY p.tenant, p.name) AS place,
            p.content_hash IN (SELECT k.hash FROM unnest(known) AS k (hash)) AS held
        FROM metagate.plan_template AS p
        JOIN metagate.tenant AS t ON t.tenant = p.tenant AND t.retired_at IS NULL
    ) AS n
    ORDER BY n.tenant, n.name
$$;

ALTER FUNCTION metagate.plan_templates(known text[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.policies(known text[]) RETURNS TABLE(tenant uuid, namespace text, name text, revision bigint, policy_hash text, body jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
    SELECT n.tenant, n.namespace, n.name, n.revision, n.policy_hash, CASE WHEN n.place = 1 AND NOT n.held THEN n.body END
    FROM (
        SELECT p.tenant, t.namespace, p.name, p.revision, p.policy_hash, p.body,
            row_number() OVER (PARTITION BY p.policy_hash ORDER BY p.tenant, p.name) AS place,
            p.policy_hash IN (SELECT k.hash FROM unnest(known) AS k (hash)) AS held
        FROM metagate.policy_profile AS p
        JOIN metagate.tenant AS t ON t.tenant = p.tenant AND t.retired_at IS NULL
    ) AS n
    ORDER BY n.tenant, n.name
$$;

ALTER FUNCTION metagate.policies(known text[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.policy_profile(in_tenant uuid, in_name text) RETURNS TABLE(name text, body jsonb, policy_hash text, revision bigint, generation bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT p.name, p.body, p.policy_hash, p.revision, p.generation
    FROM metagate.policy_profile AS p
    WHERE p.tenant = in_tenant AND p.name = in_name
$$;

ALTER FUNCTION metagate.policy_profile(in_tenant uuid, in_name text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.prepare_partitions(days integer) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
DECLARE
    day timestamptz;
    partition text;
    made integer := 0;

BEGIN
    IF days NOT BETWEEN 0 AND 30 THEN
        RAISE EXCEPTION 'days must be between 0 and 30' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR day IN SELECT date_trunc('day', now(), 'UTC') + make_interval(days => d) FROM generate_series(0, days) AS d LOOP
        partition := 'startup_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass('metagate.' || partition) IS NOT NULL;
        BEGIN
            EXECUTE format(
                'CREATE TABLE metagate.%I PARTITION OF metagate.startup FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 80)',
                partition, metagate.id_at(day), metagate.id_at(day + interval '1 day'));
            made := made + 1;
        EXCEPTION
            -- Somebody is reading: the default partition takes the rows, and the next call tries again.
            WHEN lock_not_available THEN RETURN made;
            -- The default partition holds rows of that day already: they stay there, and so does the rest of the day.
            WHEN check_violation THEN NULL;
        END;
    END LOOP;
    RETURN made;

END $$;

ALTER FUNCTION metagate.prepare_partitions(days integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.principals_page(in_tenant uuid, everywhere boolean, in_state text, in_letters text, in_manifest text, at_name text, after_tenant uuid, after_name text, page integer, scan integer, span integer) RETURNS TABLE(at timestamp with time zone, principals jsonb, counts jsonb, scanned_to jsonb, looked_back_to timestamp with time zone, everything boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    SET work_mem TO '16MB'
    AS $$
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

ALTER FUNCTION metagate.principals_page(in_tenant uuid, everywhere boolean, in_state text, in_letters text, in_manifest text, at_name text, after_tenant uuid, after_name text, page integer, scan integer, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.problematas(known text[]) RETURNS TABLE(tenant uuid, namespace text, name text, revision bigint, content_hash text, body jsonb)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.problematas(known text[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.purge(retention interval, mirroring boolean, batch integer) RETURNS TABLE(startups bigint, partitions integer, keys bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $_$
DECLARE
    cutoff timestamptz := now() - retention;
    candidate record;
    stays boolean;
    removed bigint;

BEGIN
    IF retention < interval '1 minute' OR batch < 1 THEN
        RAISE EXCEPTION 'retention must be at least a minute' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    startups := 0;
    partitions := 0;
    FOR candidate IN
        -- Every partition: the id is the caller's clock, the age is ours.
        SELECT p.name, p.upper FROM metagate.startup_partition AS p
        UNION ALL SELECT 'startup_default', NULL
    LOOP
        IF candidate.upper < cutoff THEN
            EXECUTE format(
                'SELECT EXISTS (SELECT FROM metagate.%I AS s WHERE s.opened_at >= $1 '
                'OR ($2 AND EXISTS (SELECT FROM metagate.outbox AS o WHERE o.startup_id = s.startup_id)))', candidate.name)
            INTO stays USING cutoff, mirroring;
            IF NOT stays THEN
                BEGIN
                    EXECUTE format('DROP TABLE metagate.%I', candidate.name);
                    partitions := partitions + 1;
                    CONTINUE;
                EXCEPTION WHEN lock_not_available THEN
                    CONTINUE;  -- somebody is reading; the next call tries again
                END;
            END IF;
        END IF;
        CONTINUE WHEN startups >= batch;
        EXECUTE format(
            'DELETE FROM metagate.%1$I WHERE (tenant, startup_id) IN (SELECT s.tenant, s.startup_id FROM metagate.%1$I AS s '
            'WHERE s.opened_at < $1 AND NOT ($2 AND EXISTS (SELECT FROM metagate.outbox AS o WHERE o.startup_id = s.startup_id)) '
            'LIMIT $3 FOR UPDATE SKIP LOCKED)', candidate.name)
        USING cutoff, mirroring, batch - startups;
        GET DIAGNOSTICS removed = ROW_COUNT;
        startups := startups + removed;
    END LOOP;
    DELETE FROM metagate.idempotency AS i
    WHERE (i.tenant, i.principal_key, i.key) IN (
        SELECT k.tenant, k.principal_key, k.key
        FROM metagate.idempotency AS k
        WHERE k.opened_at < now() - least(retention, interval '24 hours')
        LIMIT batch
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS keys = ROW_COUNT;
    RETURN NEXT;

END $_$;

ALTER FUNCTION metagate.purge(retention interval, mirroring boolean, batch integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.purge_packets(retention interval, batch integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
DECLARE
    edge timestamptz := now() - greatest(retention, interval '25 hours');
    -- Ids are made by the clock of whoever opens a session.
    youngest uuid := metagate.id_at(edge + interval '1 hour');
    removed bigint;

BEGIN
    IF retention < interval '1 minute' OR batch < 1 THEN
        RAISE EXCEPTION 'retention must be at least a minute' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (
        SELECT FROM metagate.packet AS p LEFT JOIN metagate.unbound AS u ON u.digest = p.digest
        WHERE coalesce(u.since, p.created_at) < edge
            AND NOT EXISTS (SELECT FROM metagate.binding AS b WHERE b.digest = p.digest)
    ) OR NOT pg_try_advisory_xact_lock(5570193308531253605) THEN
        RETURN 0;
    END IF;
    WITH kept AS MATERIALIZED (
        SELECT DISTINCT s.digest FROM metagate.startup AS s WHERE s.startup_id < youngest
    ),
    due AS MATERIALIZED (
        SELECT p.digest
        FROM metagate.packet AS p LEFT JOIN metagate.unbound AS u ON u.digest = p.digest
        WHERE coalesce(u.since, p.created_at) < edge
            AND NOT EXISTS (SELECT FROM metagate.binding AS b WHERE b.digest = p.digest)
            AND NOT EXISTS (SELECT FROM kept AS k WHERE k.digest = p.digest)
        LIMIT batch
    )
    DELETE FROM metagate.packet AS p USING due AS d WHERE p.digest = d.digest;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;

END $$;

ALTER FUNCTION metagate.purge_packets(retention interval, batch integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.refuse() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';

END $$;

ALTER FUNCTION metagate.refuse() OWNER TO metagate_owner;

CREATE FUNCTION metagate.report(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], startups uuid[], statuses text[], payloads text[], pod_uids text[], mirrors boolean[]) RETURNS TABLE(n bigint, outcome text, status text, acknowledged_at timestamp with time zone, late boolean)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
WITH ask AS MATERIALIZED (
    SELECT *
    FROM unnest(
        tenants, principals, kinds, issuers, subjects, kids, startups, statuses, payloads, pod_uids, mirrors
    ) WITH ORDINALITY AS a (
        tenant, principal_key, kind, issuer, subject, kid, startup_id, wanted, payload, pod_uid, mirror, n
    )
),
judged AS MATERIALIZED (
    SELECT a.*, s.status, s.acknowledged_at, s.late,
        CASE
            WHEN p.principal_key IS NULL THEN 'UNKNOWN_PRINCIPAL'
            WHEN NOT CASE a.kind
                WHEN 'key' THEN EXISTS (
                    SELECT FROM metagate.api_key AS k
                    WHERE k.sha256 = a.subject
                        AND (k.tenant, k.principal_key) IS NOT DISTINCT FROM (a.tenant, a.principal_key)
                        AND (k.expires_at IS NULL OR k.expires_at > now()))
                ELSE EXISTS (
                    SELECT FROM metagate.subject AS u
                    WHERE u.issuer = a.issuer AND u.subject = a.subject
                        AND (u.tenant, u.principal_key) IS NOT DISTINCT FROM (a.tenant, a.principal_key))
                    AND (a.kid IS NULL OR EXISTS (
                        SELECT FROM metagate.issuer AS i JOIN metagate.issuer_key AS k ON k.issuer = i.issuer
                        WHERE i.issuer = a.issuer AND k.kid = a.kid AND k.retired_at IS NULL))
                END THEN 'CREDENTIAL_REVOKED'
            WHEN p.suspended THEN 'SUSPENDED'
            WHEN s.startup_id IS NULL THEN 'UNKNOWN'
            WHEN s.principal_key <> a.principal_key THEN 'NOT_YOURS'
            WHEN s.pod_uid IS NOT NULL AND s.pod_uid IS DISTINCT FROM a.pod_uid THEN 'NOT_THIS_POD'
            WHEN s.status = a.wanted THEN 'REPEATED'
            WHEN s.status <> 'OPEN' THEN 'OTHER_STATE'
        END AS verdict
    FROM ask AS a
    LEFT JOIN metagate.principal AS p ON p.tenant = a.tenant AND p.principal_key = a.principal_key
    LEFT JOIN metagate.startup AS s ON s.tenant = a.tenant AND s.startup_id = a.startup_id
),
first AS MATERIALIZED (
    SELECT DISTINCT ON (j.tenant, j.startup_id) j.*
    FROM judged AS j
    WHERE j.verdict IS NULL
    ORDER BY j.tenant, j.startup_id, j.n
),
locked AS MATERIALIZED (
    SELECT f.tenant, f.startup_id, f.wanted, f.payload, f.mirror, f.n
    FROM first AS f
    JOIN metagate.startup AS s ON s.tenant = f.tenant AND s.startup_id = f.startup_id
    WHERE s.status = 'OPEN'
    FOR UPDATE OF s SKIP LOCKED
),
recorded AS (
    UPDATE metagate.startup AS s
    SET status = l.wanted, acknowledged_at = now(), late = now() > s.deadline_at, report = l.payload::jsonb
    FROM locked AS l
    WHERE s.tenant = l.tenant AND s.startup_id = l.startup_id AND s.status = 'OPEN'
    RETURNING s.tenant, s.startup_id, s.status, s.acknowledged_at, s.late, s.principal_key, s.component_key, s.digest,
        s.revision, s.report, l.n, l.mirror
),
mirrored AS (
    INSERT INTO metagate.outbox (tenant, event, startup_id, revision, body)
    SELECT r.tenant, r.status, r.startup_id, r.revision, jsonb_build_object(
        'principal_key', r.principal_key, 'component_key', r.component_key, 'digest', r.digest,
        'acknowledged_at', r.acknowledged_at, 'late', r.late, 'report', r.report)
    FROM recorded AS r
    WHERE r.mirror
    ORDER BY r.n
)
SELECT j.n,
    CASE
        WHEN j.verdict IS NOT NULL THEN j.verdict
        WHEN r.n = j.n THEN 'RECORDED'
        WHEN r.status = j.wanted THEN 'REPEATED'
        WHEN r.status IS NOT NULL THEN 'OTHER_STATE'
        ELSE 'CONTENDED'
    END,
    CASE WHEN j.verdict IN ('REPEATED', 'OTHER_STATE') THEN j.status ELSE r.status END,
    CASE WHEN j.verdict IN ('REPEATED', 'OTHER_STATE') THEN j.acknowledged_at ELSE r.acknowledged_at END,
    CASE WHEN j.verdict IN ('REPEATED', 'OTHER_STATE') THEN j.late ELSE r.late END
FROM judged AS j
LEFT JOIN recorded AS r ON j.verdict IS NULL AND r.tenant = j.tenant AND r.startup_id = j.startup_id
ORDER BY j.n
$$;

ALTER FUNCTION metagate.report(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], startups uuid[], statuses text[], payloads text[], pod_uids text[], mirrors boolean[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.resolve(kinds text[], issuers text[], subjects text[], kids text[]) RETURNS TABLE(n bigint, tenant uuid, namespace text, namespace_created timestamp with time zone, principal_key text, type text, scope text, rights text[], suspended boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT a.n, p.tenant, t.namespace, t.created_at, p.principal_key, p.type, p.scope, p.rights, p.suspended
    FROM unnest(kinds, issuers, subjects, kids) WITH ORDINALITY AS a (kind, issuer, subject, kid, n)
    CROSS JOIN LATERAL (
        SELECT k.tenant, k.principal_key FROM metagate.api_key AS k
        WHERE a.kind = 'key' AND k.sha256 = a.subject AND (k.expires_at IS NULL OR k.expires_at > now())
        UNION ALL
        SELECT s.tenant, s.principal_key FROM metagate.subject AS s
        WHERE a.kind = 'token' AND s.issuer = a.issuer AND s.subject = a.subject
            AND (a.kid IS NULL OR EXISTS (
                SELECT FROM metagate.issuer AS i JOIN metagate.issuer_key AS k ON k.issuer = i.issuer
                WHERE i.issuer = a.issuer AND k.kid = a.kid AND k.retired_at IS NULL))
    ) AS c
    JOIN metagate.principal AS p ON p.tenant = c.tenant AND p.principal_key = c.principal_key
    LEFT JOIN metagate.tenant AS t ON t.tenant = p.tenant
    ORDER BY a.n
$$;

ALTER FUNCTION metagate.resolve(kinds text[], issuers text[], subjects text[], kids text[]) OWNER TO metagate_owner;

CREATE FUNCTION metagate.search(in_tenant uuid, everywhere boolean, wanted text, page integer) RETURNS TABLE(kind text, tenant uuid, namespace text, name text, detail text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET work_mem TO '16MB'
    AS $_$
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
$_$;

ALTER FUNCTION metagate.search(in_tenant uuid, everywhere boolean, wanted text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.standing(in_tenant uuid, in_principal text) RETURNS SETOF metagate.boot
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT b.principal_key, NULL, NULL::uuid, NULL::timestamptz, b.name, b.revision, b.compiled_at, b.digest, p.body
    FROM metagate.binding AS b LEFT JOIN metagate.packet AS p ON p.digest = b.digest
    WHERE b.tenant = in_tenant AND b.principal_key = in_principal
$$;

ALTER FUNCTION metagate.standing(in_tenant uuid, in_principal text) OWNER TO metagate_owner;

CREATE FUNCTION metagate.startup(in_tenant uuid, in_startup uuid) RETURNS SETOF metagate.startup_view
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, s.status = 'OPEN' AND s.deadline_at < now(),
        s.late, s.opened_at, s.deadline_at, s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report,
        s.pod_uid, s.pod_name, s.pod_node
    FROM metagate.startup AS s
    WHERE s.tenant = in_tenant AND s.startup_id = in_startup
$$;

ALTER FUNCTION metagate.startup(in_tenant uuid, in_startup uuid) OWNER TO metagate_owner;

CREATE FUNCTION metagate.startup_everywhere(in_startup uuid) RETURNS TABLE(tenant uuid)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
    SELECT t.tenant FROM metagate.tenant AS t
    CROSS JOIN LATERAL (
        SELECT s.tenant FROM metagate.startup AS s WHERE s.tenant = t.tenant AND s.startup_id = in_startup LIMIT 1
    ) AS f
    LIMIT 1
$$;

ALTER FUNCTION metagate.startup_everywhere(in_startup uuid) OWNER TO metagate_owner;

CREATE FUNCTION metagate.startups(in_tenant uuid, in_status text, in_component text, in_principal text, after_startup uuid, page integer, span integer) RETURNS SETOF metagate.startup_view
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
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
            AND (in_status IS NULL
                OR in_status = CASE WHEN s.status = 'OPEN' AND s.deadline_at < now() THEN 'overdue' ELSE s.status END)
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

ALTER FUNCTION metagate.startups(in_tenant uuid, in_status text, in_component text, in_principal text, after_startup uuid, page integer, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.startups_everywhere(in_status text, in_component text, in_principal text, after_tenant uuid, after_startup uuid, page integer, span integer) RETURNS SETOF metagate.startup_view
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    AS $$
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
            AND (in_status IS NULL
                OR in_status = CASE WHEN s.status = 'OPEN' AND s.deadline_at < now() THEN 'overdue' ELSE s.status END)
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

ALTER FUNCTION metagate.startups_everywhere(in_status text, in_component text, in_principal text, after_tenant uuid, after_startup uuid, page integer, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.startups_failed_with(in_tenant uuid, everywhere boolean, in_error text, before_startup uuid, page integer, span integer) RETURNS SETOF metagate.startup_view
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.startups_failed_with(in_tenant uuid, everywhere boolean, in_error text, before_startup uuid, page integer, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.state() RETURNS TABLE(revision bigint, compiled_at timestamp with time zone, schema_version integer, at timestamp with time zone, mirror_waiting bigint, mirror_lag_seconds double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

ALTER FUNCTION metagate.state() OWNER TO metagate_owner;

CREATE FUNCTION metagate.summary(in_tenant uuid, in_principal text, span integer) RETURNS TABLE(opened bigint, ready bigint, failed bigint, overdue bigint, oldest_open timestamp with time zone, latest timestamp with time zone, counted_since timestamp with time zone)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
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

ALTER FUNCTION metagate.summary(in_tenant uuid, in_principal text, span integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.tenants_everywhere(page integer) RETURNS TABLE(tenant uuid, namespace text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    SELECT t.tenant, t.namespace FROM metagate.tenant AS t WHERE t.retired_at IS NULL ORDER BY t.namespace, t.tenant LIMIT page
$$;

ALTER FUNCTION metagate.tenants_everywhere(page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.topology(in_tenant uuid) RETURNS TABLE(revision bigint, principals json, services json)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    SET work_mem TO '16MB'
    AS $$
    WITH recent AS MATERIALIZED (
        SELECT s.principal_key, s.component_key
        FROM metagate.startup AS s
        WHERE s.tenant = in_tenant
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT 10000
    ),
    seen_by AS MATERIALIZED (
        SELECT d.principal_key, json_agg(d.component_key) AS components
        FROM (SELECT DISTINCT r.principal_key, r.component_key FROM recent AS r ORDER BY 1, 2) AS d
        GROUP BY d.principal_key
    ),
    bound AS MATERIALIZED (
        SELECT b.principal_key, b.components, b.profile, b.manifest, b.digest
        FROM metagate.binding AS b WHERE b.tenant = in_tenant
    ),
    packets AS MATERIALIZED (
        SELECT d.digest, (
            SELECT convert_from(k.body, 'UTF8')::jsonb -> 'services' FROM metagate.packet AS k WHERE k.digest = d.digest
        ) AS services
        FROM (SELECT DISTINCT b.digest FROM bound AS b) AS d
    ),
    -- A service of a packet is used by everybody who is bound to it, so names are listed once a packet.
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
            FROM metagate.principal AS p
            LEFT JOIN bound AS b ON b.principal_key = p.principal_key
            LEFT JOIN named AS n ON n.digest = b.digest
            LEFT JOIN seen_by AS s ON s.principal_key = p.principal_key
            WHERE p.tenant = in_tenant
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
        )
$$;

ALTER FUNCTION metagate.topology(in_tenant uuid) OWNER TO metagate_owner;

CREATE FUNCTION metagate.topology_page(in_tenant uuid, after_name text, page integer) RETURNS TABLE(revision bigint, principals json, services json, more boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    SET work_mem TO '16MB'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
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

ALTER FUNCTION metagate.topology_page(in_tenant uuid, after_name text, page integer) OWNER TO metagate_owner;

CREATE FUNCTION metagate.withdraw(in_tenant uuid, in_problemata text, in_instance text, in_principal text) RETURNS TABLE(outcome text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

ALTER FUNCTION metagate.withdraw(in_tenant uuid, in_problemata text, in_instance text, in_principal text) OWNER TO metagate_owner;

CREATE TABLE metagate.api_key (
    sha256 text NOT NULL COLLATE pg_catalog."C",
    key_id text NOT NULL COLLATE pg_catalog."C",
    tenant uuid NOT NULL,
    principal_key text NOT NULL COLLATE pg_catalog."C",
    expires_at timestamp with time zone,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.api_key OWNER TO metagate_owner;

CREATE TABLE metagate.binding (
    tenant uuid NOT NULL,
    principal_key text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    digest text COLLATE pg_catalog."C",
    components text[] NOT NULL,
    sla_seconds integer,
    profile text,
    manifest text,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    compiled_at timestamp with time zone NOT NULL,
    CONSTRAINT binding_sla_seconds_check CHECK ((sla_seconds > 0))
);

ALTER TABLE metagate.binding OWNER TO metagate_owner;

CREATE TABLE metagate.change (
    seq bigint NOT NULL,
    revision bigint NOT NULL,
    kind text NOT NULL COLLATE pg_catalog."C",
    tenant uuid,
    namespace text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL COLLATE pg_catalog."C",
    uid uuid NOT NULL,
    generation bigint NOT NULL,
    before_digest text,
    after_digest text,
    manager text,
    changed_at timestamp with time zone DEFAULT now() NOT NULL,
    served_generation bigint,
    principal_key text COLLATE pg_catalog."C",
    packet_digest text COLLATE pg_catalog."C"
);

ALTER TABLE metagate.change OWNER TO metagate_owner;

ALTER TABLE metagate.change ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME metagate.change_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE metagate.credential_change (
    kind text NOT NULL,
    a text NOT NULL COLLATE pg_catalog."C",
    b text DEFAULT ''::text NOT NULL COLLATE pg_catalog."C",
    mark bigint NOT NULL,
    CONSTRAINT credential_change_kind_check CHECK ((kind = ANY (ARRAY['api_key'::text, 'issuer'::text, 'issuer_key'::text])))
);

ALTER TABLE metagate.credential_change OWNER TO metagate_owner;

CREATE SEQUENCE metagate.credential_mark
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

ALTER SEQUENCE metagate.credential_mark OWNER TO metagate_owner;

CREATE TABLE metagate.declared (
    uid uuid NOT NULL,
    generation bigint NOT NULL,
    kind text NOT NULL,
    tenant uuid,
    namespace text NOT NULL,
    name text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    spec jsonb NOT NULL,
    manager text,
    declared_at timestamp with time zone DEFAULT now() NOT NULL,
    withdrawn_at timestamp with time zone
);

ALTER TABLE metagate.declared OWNER TO metagate_owner;

CREATE TABLE metagate.epoch (
    singleton boolean DEFAULT true NOT NULL,
    epoch bigint NOT NULL,
    taken_at timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT epoch_singleton_check CHECK (singleton)
);

ALTER TABLE metagate.epoch OWNER TO metagate_owner;

CREATE TABLE metagate.idempotency (
    tenant uuid NOT NULL,
    principal_key text NOT NULL COLLATE pg_catalog."C",
    key text NOT NULL COLLATE pg_catalog."C",
    startup_id uuid NOT NULL,
    packet_id uuid NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    deadline_at timestamp with time zone NOT NULL,
    compiled_at timestamp with time zone NOT NULL,
    revision bigint NOT NULL,
    component_key text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    pod_uid text
);

ALTER TABLE metagate.idempotency OWNER TO metagate_owner;

CREATE TABLE metagate.installation (
    singleton boolean DEFAULT true NOT NULL,
    cluster_uid text NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL,
    CONSTRAINT installation_singleton_check CHECK (singleton)
);

ALTER TABLE metagate.installation OWNER TO metagate_owner;

CREATE TABLE metagate.issuer (
    issuer text NOT NULL COLLATE pg_catalog."C",
    name text NOT NULL,
    audiences text[] NOT NULL,
    algorithms text[] NOT NULL,
    max_token_lifetime_seconds integer NOT NULL,
    source text NOT NULL,
    url text,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    CONSTRAINT issuer_source_check CHECK ((source = ANY (ARRAY['Cluster'::text, 'URL'::text, 'Inline'::text])))
);

ALTER TABLE metagate.issuer OWNER TO metagate_owner;

CREATE TABLE metagate.issuer_key (
    issuer text NOT NULL COLLATE pg_catalog."C",
    kid text NOT NULL COLLATE pg_catalog."C",
    jwk jsonb NOT NULL,
    alg text,
    first_seen timestamp with time zone DEFAULT now() NOT NULL,
    last_seen timestamp with time zone DEFAULT now() NOT NULL,
    misses integer DEFAULT 0 NOT NULL,
    retired_at timestamp with time zone,
    owner uuid,
    content text,
    revision bigint,
    CONSTRAINT issuer_key_jwk_check CHECK ((NOT (jwk ?| ARRAY['d'::text, 'p'::text, 'q'::text, 'dp'::text, 'dq'::text, 'qi'::text, 'k'::text, 'oth'::text])))
);

ALTER TABLE metagate.issuer_key OWNER TO metagate_owner;

CREATE TABLE metagate.key_digest (
    sha256 text NOT NULL COLLATE pg_catalog."C",
    tenant uuid NOT NULL,
    since timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE metagate.key_digest OWNER TO metagate_owner;

CREATE TABLE metagate.manifest (
    tenant uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    body jsonb NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.manifest OWNER TO metagate_owner;

CREATE TABLE metagate.migration (
    version integer NOT NULL,
    name text NOT NULL,
    checksum text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE metagate.migration OWNER TO metagate_owner;

CREATE TABLE metagate.outbox (
    seq bigint NOT NULL,
    tenant uuid,
    event text NOT NULL,
    startup_id uuid,
    revision bigint,
    body jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL,
    attempts integer DEFAULT 0 NOT NULL,
    not_before timestamp with time zone DEFAULT now() NOT NULL,
    last_error text,
    CONSTRAINT outbox_event_check CHECK ((event = ANY (ARRAY['OPEN'::text, 'READY'::text, 'FAILED'::text, 'PUBLISHED'::text])))
);

ALTER TABLE metagate.outbox OWNER TO metagate_owner;

CREATE TABLE metagate.outbox_refused (
    seq bigint NOT NULL,
    tenant uuid,
    event text NOT NULL,
    startup_id uuid,
    revision bigint,
    body jsonb NOT NULL,
    created_at timestamp with time zone NOT NULL,
    refused_at timestamp with time zone DEFAULT now() NOT NULL,
    code text NOT NULL,
    detail text NOT NULL
);

ALTER TABLE metagate.outbox_refused OWNER TO metagate_owner;

ALTER TABLE metagate.outbox ALTER COLUMN seq ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME metagate.outbox_seq_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE metagate.packet (
    digest text NOT NULL COLLATE pg_catalog."C",
    body bytea NOT NULL,
    created_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE metagate.packet OWNER TO metagate_owner;

CREATE TABLE metagate.plan_template (
    tenant uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    body jsonb NOT NULL,
    content_hash text NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.plan_template OWNER TO metagate_owner;

CREATE TABLE metagate.policy_profile (
    tenant uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    body jsonb NOT NULL,
    policy_hash text NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.policy_profile OWNER TO metagate_owner;

CREATE TABLE metagate.principal (
    tenant uuid NOT NULL,
    principal_key text NOT NULL COLLATE pg_catalog."C",
    type text NOT NULL,
    scope text NOT NULL,
    rights text[] NOT NULL,
    suspended boolean NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.principal OWNER TO metagate_owner;

CREATE TABLE metagate.problemata (
    tenant uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    body jsonb NOT NULL,
    content_hash text NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.problemata OWNER TO metagate_owner;

CREATE TABLE metagate.problemata_instance (
    tenant uuid NOT NULL,
    problemata text NOT NULL COLLATE pg_catalog."C",
    instance text NOT NULL COLLATE pg_catalog."C",
    principal_key text NOT NULL COLLATE pg_catalog."C",
    endpoint text NOT NULL,
    version text NOT NULL,
    capabilities text[] NOT NULL,
    health text NOT NULL,
    announced_at timestamp with time zone NOT NULL,
    CONSTRAINT problemata_instance_health_check CHECK ((health = ANY (ARRAY['ok'::text, 'degraded'::text])))
)
WITH (fillfactor='70');

ALTER TABLE metagate.problemata_instance OWNER TO metagate_owner;

CREATE TABLE metagate.profile (
    tenant uuid NOT NULL,
    name text NOT NULL COLLATE pg_catalog."C",
    body jsonb NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.profile OWNER TO metagate_owner;

CREATE TABLE metagate.reference (
    owner uuid NOT NULL,
    path text NOT NULL COLLATE pg_catalog."C",
    kind text NOT NULL,
    tenant uuid,
    name text NOT NULL COLLATE pg_catalog."C",
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.reference OWNER TO metagate_owner;

CREATE TABLE metagate.resource (
    owner uuid NOT NULL,
    kind text NOT NULL,
    tenant uuid,
    namespace text NOT NULL,
    name text NOT NULL,
    generation bigint NOT NULL,
    served_generation bigint,
    created_at timestamp with time zone,
    conditions jsonb NOT NULL,
    uses integer DEFAULT 0 NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    changed_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE metagate.resource OWNER TO metagate_owner;

CREATE TABLE metagate.revision (
    revision bigint NOT NULL,
    published_at timestamp with time zone DEFAULT now() NOT NULL,
    epoch bigint NOT NULL,
    counts jsonb NOT NULL
);

ALTER TABLE metagate.revision OWNER TO metagate_owner;

CREATE TABLE metagate.sighting (
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    uid uuid NOT NULL,
    generation bigint NOT NULL,
    spec_digest text NOT NULL,
    first_seen timestamp with time zone NOT NULL
);

ALTER TABLE metagate.sighting OWNER TO metagate_owner;

CREATE TABLE metagate.startup (
    tenant uuid NOT NULL,
    startup_id uuid NOT NULL,
    packet_id uuid NOT NULL,
    opened_at timestamp with time zone NOT NULL,
    deadline_at timestamp with time zone NOT NULL,
    acknowledged_at timestamp with time zone,
    compiled_at timestamp with time zone NOT NULL,
    revision bigint NOT NULL,
    late boolean,
    status text DEFAULT 'OPEN'::text NOT NULL,
    principal_key text NOT NULL COLLATE pg_catalog."C",
    component_key text NOT NULL COLLATE pg_catalog."C",
    digest text NOT NULL COLLATE pg_catalog."C",
    pod_uid text,
    pod_name text,
    pod_node text,
    report jsonb,
    CONSTRAINT startup_check CHECK (((status = 'OPEN'::text) = (acknowledged_at IS NULL))),
    CONSTRAINT startup_status_check CHECK ((status = ANY (ARRAY['OPEN'::text, 'READY'::text, 'FAILED'::text])))
)
PARTITION BY RANGE (startup_id);

ALTER TABLE metagate.startup OWNER TO metagate_owner;

CREATE TABLE metagate.startup_default (
    tenant uuid CONSTRAINT startup_tenant_not_null NOT NULL,
    startup_id uuid CONSTRAINT startup_startup_id_not_null NOT NULL,
    packet_id uuid CONSTRAINT startup_packet_id_not_null NOT NULL,
    opened_at timestamp with time zone CONSTRAINT startup_opened_at_not_null NOT NULL,
    deadline_at timestamp with time zone CONSTRAINT startup_deadline_at_not_null NOT NULL,
    acknowledged_at timestamp with time zone,
    compiled_at timestamp with time zone CONSTRAINT startup_compiled_at_not_null NOT NULL,
    revision bigint CONSTRAINT startup_revision_not_null NOT NULL,
    late boolean,
    status text DEFAULT 'OPEN'::text CONSTRAINT startup_status_not_null NOT NULL,
    principal_key text CONSTRAINT startup_principal_key_not_null NOT NULL COLLATE pg_catalog."C",
    component_key text CONSTRAINT startup_component_key_not_null NOT NULL COLLATE pg_catalog."C",
    digest text CONSTRAINT startup_digest_not_null NOT NULL COLLATE pg_catalog."C",
    pod_uid text,
    pod_name text,
    pod_node text,
    report jsonb,
    CONSTRAINT startup_check CHECK (((status = 'OPEN'::text) = (acknowledged_at IS NULL))),
    CONSTRAINT startup_status_check CHECK ((status = ANY (ARRAY['OPEN'::text, 'READY'::text, 'FAILED'::text])))
)
WITH (fillfactor='80');

ALTER TABLE metagate.startup_default OWNER TO metagate_owner;

CREATE VIEW metagate.startup_partition AS
 SELECT (c.relname)::text AS name,
    metagate.id_moment((b.bounds[1])::uuid) AS lower,
    metagate.id_moment((b.bounds[2])::uuid) AS upper
   FROM ((pg_inherits i
     JOIN pg_class c ON ((c.oid = i.inhrelid)))
     CROSS JOIN LATERAL regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([0-9a-f-]{36})''\) TO \(''([0-9a-f-]{36})''\)'::text) b(bounds))
  WHERE ((i.inhparent = ('metagate.startup'::regclass)::oid) AND (b.bounds IS NOT NULL));

ALTER VIEW metagate.startup_partition OWNER TO metagate_owner;

CREATE TABLE metagate.subject (
    issuer text NOT NULL COLLATE pg_catalog."C",
    subject text NOT NULL COLLATE pg_catalog."C",
    tenant uuid NOT NULL,
    principal_key text NOT NULL COLLATE pg_catalog."C",
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

ALTER TABLE metagate.subject OWNER TO metagate_owner;

CREATE TABLE metagate.tenant (
    tenant uuid NOT NULL,
    namespace text NOT NULL COLLATE pg_catalog."C",
    created_at timestamp with time zone NOT NULL,
    retired_at timestamp with time zone
);

ALTER TABLE metagate.tenant OWNER TO metagate_owner;

CREATE TABLE metagate.unbound (
    digest text NOT NULL COLLATE pg_catalog."C",
    since timestamp with time zone NOT NULL
);

ALTER TABLE metagate.unbound OWNER TO metagate_owner;

ALTER TABLE ONLY metagate.startup ATTACH PARTITION metagate.startup_default DEFAULT;

ALTER TABLE ONLY metagate.api_key
    ADD CONSTRAINT api_key_pkey PRIMARY KEY (sha256);

ALTER TABLE ONLY metagate.binding
    ADD CONSTRAINT binding_pkey PRIMARY KEY (tenant, principal_key);

ALTER TABLE ONLY metagate.change
    ADD CONSTRAINT change_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY metagate.credential_change
    ADD CONSTRAINT credential_change_pkey PRIMARY KEY (kind, a, b);

ALTER TABLE ONLY metagate.declared
    ADD CONSTRAINT declared_pkey PRIMARY KEY (uid, generation);

ALTER TABLE ONLY metagate.epoch
    ADD CONSTRAINT epoch_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY metagate.idempotency
    ADD CONSTRAINT idempotency_pkey PRIMARY KEY (tenant, principal_key, key);

ALTER TABLE ONLY metagate.installation
    ADD CONSTRAINT installation_pkey PRIMARY KEY (singleton);

ALTER TABLE ONLY metagate.issuer_key
    ADD CONSTRAINT issuer_key_pkey PRIMARY KEY (issuer, kid);

ALTER TABLE ONLY metagate.issuer
    ADD CONSTRAINT issuer_pkey PRIMARY KEY (issuer);

ALTER TABLE ONLY metagate.key_digest
    ADD CONSTRAINT key_digest_pkey PRIMARY KEY (sha256);

ALTER TABLE ONLY metagate.manifest
    ADD CONSTRAINT manifest_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY metagate.migration
    ADD CONSTRAINT migration_pkey PRIMARY KEY (version);

ALTER TABLE ONLY metagate.outbox
    ADD CONSTRAINT outbox_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY metagate.outbox_refused
    ADD CONSTRAINT outbox_refused_pkey PRIMARY KEY (seq);

ALTER TABLE ONLY metagate.packet
    ADD CONSTRAINT packet_pkey PRIMARY KEY (digest);

ALTER TABLE ONLY metagate.plan_template
    ADD CONSTRAINT plan_template_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY metagate.policy_profile
    ADD CONSTRAINT policy_profile_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY metagate.principal
    ADD CONSTRAINT principal_pkey PRIMARY KEY (tenant, principal_key);

ALTER TABLE ONLY metagate.problemata_instance
    ADD CONSTRAINT problemata_instance_pkey PRIMARY KEY (tenant, problemata, instance);

ALTER TABLE ONLY metagate.problemata
    ADD CONSTRAINT problemata_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY metagate.profile
    ADD CONSTRAINT profile_pkey PRIMARY KEY (tenant, name);

ALTER TABLE ONLY metagate.reference
    ADD CONSTRAINT reference_pkey PRIMARY KEY (owner, path);

ALTER TABLE ONLY metagate.resource
    ADD CONSTRAINT resource_pkey PRIMARY KEY (owner);

ALTER TABLE ONLY metagate.revision
    ADD CONSTRAINT revision_pkey PRIMARY KEY (revision);

ALTER TABLE ONLY metagate.sighting
    ADD CONSTRAINT sighting_pkey PRIMARY KEY (kind, namespace, name);

ALTER TABLE ONLY metagate.startup
    ADD CONSTRAINT startup_pkey PRIMARY KEY (tenant, startup_id);

ALTER TABLE ONLY metagate.startup_default
    ADD CONSTRAINT startup_default_pkey PRIMARY KEY (tenant, startup_id);

ALTER TABLE ONLY metagate.subject
    ADD CONSTRAINT subject_pkey PRIMARY KEY (issuer, subject);

ALTER TABLE ONLY metagate.tenant
    ADD CONSTRAINT tenant_pkey PRIMARY KEY (tenant);

ALTER TABLE ONLY metagate.unbound
    ADD CONSTRAINT unbound_pkey PRIMARY KEY (digest);

CREATE INDEX api_key_principal ON metagate.api_key USING btree (tenant, principal_key);

CREATE INDEX binding_digest ON metagate.binding USING btree (digest);

CREATE INDEX binding_name ON metagate.binding USING btree (tenant, name);

CREATE INDEX change_name ON metagate.change USING btree (tenant, kind, name, revision, seq);

CREATE INDEX change_order ON metagate.change USING btree (revision, seq);

CREATE INDEX change_principal ON metagate.change USING btree (tenant, principal_key, revision, seq) WHERE (principal_key IS NOT NULL);

CREATE INDEX change_tenant ON metagate.change USING btree (tenant, revision, seq);

CREATE INDEX change_uid ON metagate.change USING btree (uid, seq);

CREATE UNIQUE INDEX credential_change_mark ON metagate.credential_change USING btree (mark);

CREATE INDEX outbox_startup ON metagate.outbox USING btree (startup_id);

CREATE INDEX reference_target ON metagate.reference USING btree (kind, tenant, name);

CREATE INDEX resource_not_served ON metagate.resource USING btree (tenant, changed_at) WHERE ((NOT (conditions @> '[{"type": "Ready", "status": "True"}]'::jsonb)) OR (served_generation IS DISTINCT FROM generation));

CREATE INDEX subject_principal ON metagate.subject USING btree (tenant, principal_key);

CREATE INDEX tenant_namespace ON metagate.tenant USING btree (namespace) WHERE (retired_at IS NULL);

ALTER INDEX metagate.startup_pkey ATTACH PARTITION metagate.startup_default_pkey;

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON metagate.change FOR EACH STATEMENT EXECUTE FUNCTION metagate.refuse();

CREATE TRIGGER append_only BEFORE DELETE OR UPDATE OR TRUNCATE ON metagate.revision FOR EACH STATEMENT EXECUTE FUNCTION metagate.refuse();

CREATE TRIGGER immutable BEFORE UPDATE ON metagate.packet FOR EACH STATEMENT EXECUTE FUNCTION metagate.refuse();

CREATE TRIGGER mark AFTER INSERT OR DELETE OR UPDATE ON metagate.api_key FOR EACH ROW EXECUTE FUNCTION metagate.mark_credential('sha256', '');

CREATE TRIGGER mark AFTER INSERT OR DELETE OR UPDATE ON metagate.issuer FOR EACH ROW EXECUTE FUNCTION metagate.mark_credential('issuer', '');

CREATE TRIGGER mark AFTER INSERT OR DELETE OR UPDATE OF jwk, alg, retired_at ON metagate.issuer_key FOR EACH ROW EXECUTE FUNCTION metagate.mark_credential('issuer', 'kid');

CREATE TRIGGER mark BEFORE UPDATE ON metagate.resource FOR EACH ROW EXECUTE FUNCTION metagate.mark_verdict();

CREATE TRIGGER own BEFORE INSERT OR UPDATE ON metagate.api_key FOR EACH ROW EXECUTE FUNCTION metagate.own_key_digest();

CREATE TRIGGER unbound_by_delete AFTER DELETE ON metagate.binding REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION metagate.mark_unbound();

CREATE TRIGGER unbound_by_update AFTER UPDATE ON metagate.binding REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION metagate.mark_unbound();

ALTER TABLE ONLY metagate.binding
    ADD CONSTRAINT binding_digest_fkey FOREIGN KEY (digest) REFERENCES metagate.packet(digest);

ALTER TABLE ONLY metagate.problemata_instance
    ADD CONSTRAINT problemata_instance_tenant_problemata_fkey FOREIGN KEY (tenant, problemata) REFERENCES metagate.problemata(tenant, name) ON DELETE CASCADE;

ALTER TABLE ONLY metagate.unbound
    ADD CONSTRAINT unbound_digest_fkey FOREIGN KEY (digest) REFERENCES metagate.packet(digest) ON DELETE CASCADE;

GRANT USAGE ON SCHEMA metagate TO metagate_publisher;

GRANT USAGE ON SCHEMA metagate TO metagate_api;

GRANT USAGE ON SCHEMA metagate TO metagate_identity;

REVOKE ALL ON TYPE metagate.boot FROM PUBLIC;

GRANT ALL ON TYPE metagate.boot TO metagate_api;

REVOKE ALL ON TYPE metagate.declaration FROM PUBLIC;

GRANT ALL ON TYPE metagate.declaration TO metagate_api;

REVOKE ALL ON TYPE metagate.found FROM PUBLIC;

GRANT ALL ON TYPE metagate.found TO metagate_api;

REVOKE ALL ON TYPE metagate.happening FROM PUBLIC;

GRANT ALL ON TYPE metagate.happening TO metagate_api;

REVOKE ALL ON TYPE metagate.item FROM PUBLIC;

GRANT ALL ON TYPE metagate.item TO metagate_api;

REVOKE ALL ON TYPE metagate.overview FROM PUBLIC;

GRANT ALL ON TYPE metagate.overview TO metagate_api;

REVOKE ALL ON TYPE metagate.startup_view FROM PUBLIC;

GRANT ALL ON TYPE metagate.startup_view TO metagate_api;

REVOKE ALL ON FUNCTION metagate.announce(in_tenant uuid, in_problemata text, in_instance text, in_principal text, in_endpoint text, in_version text, in_capabilities text[], in_health text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.announce(in_tenant uuid, in_problemata text, in_instance text, in_principal text, in_endpoint text, in_version text, in_capabilities text[], in_health text) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.announced(in_tenant uuid, only_name text, after_name text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.announced(in_tenant uuid, only_name text, after_name text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.booted(in_tenant uuid, in_startup uuid) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.booted(in_tenant uuid, in_startup uuid) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.bootstrap(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], components text[], startups uuid[], packets uuid[], keys text[], expected text[], pod_uids text[], pod_names text[], pod_nodes text[], mirrors boolean[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.bootstrap(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], components text[], startups uuid[], packets uuid[], keys text[], expected text[], pod_uids text[], pod_names text[], pod_nodes text[], mirrors boolean[]) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.changed_specs(in_tenant uuid, everywhere boolean, of_changes bigint[], budget bigint) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.changed_specs(in_tenant uuid, everywhere boolean, of_changes bigint[], budget bigint) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.claim(in_cluster text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.claim(in_cluster text) TO metagate_publisher;

REVOKE ALL ON FUNCTION metagate.credential_mark() FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.credential_mark() TO metagate_api;

GRANT ALL ON FUNCTION metagate.credential_mark() TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.credentials(since bigint) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.credentials(since bigint) TO metagate_api;

GRANT ALL ON FUNCTION metagate.credentials(since bigint) TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.declared_at(in_tenant uuid, in_revision bigint, after_kind text, after_name text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.declared_at(in_tenant uuid, in_revision bigint, after_kind text, after_name text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.declared_then(in_tenant uuid, in_kind text, in_name text, in_revision bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.errors_of(of_tenants uuid[], of_startups uuid[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.errors_of(of_tenants uuid[], of_startups uuid[]) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.everybody() FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.everybody() TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.failures(in_tenant uuid, everywhere boolean, span integer, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.failures(in_tenant uuid, everywhere boolean, span integer, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.history(in_tenant uuid, in_kind text, in_name text, before_revision bigint, before_seq bigint, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.history(in_tenant uuid, in_kind text, in_name text, before_revision bigint, before_seq bigint, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.history_everywhere(before_revision bigint, before_seq bigint, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.history_everywhere(before_revision bigint, before_seq bigint, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.id_at(moment timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.id_moment(id uuid) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.id_moment(id uuid) TO metagate_publisher;

REVOKE ALL ON FUNCTION metagate.interview(in_tenant uuid, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.interview(in_tenant uuid, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.issuers_seen(page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.issuers_seen(page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.item(in_tenant uuid, in_kind text, in_name text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.item(in_tenant uuid, in_kind text, in_name text) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.items(in_tenant uuid, in_kind text, after_name text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.items(in_tenant uuid, in_kind text, after_name text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.items_everywhere(in_kind text, after_tenant uuid, after_name text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.items_everywhere(in_kind text, after_tenant uuid, after_name text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.items_of(kind text, only_tenant uuid, after_tenant uuid, after_name text, only_name text, page integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.layers(in_tenant uuid, in_principal text, in_revision bigint) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.layers(in_tenant uuid, in_principal text, in_revision bigint) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.mark_credential() FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.mark_unbound() FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.mark_verdict() FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.named(in_tenant uuid, in_prefix text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.named(in_tenant uuid, in_prefix text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.named_everywhere(in_prefix text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.named_everywhere(in_prefix text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.named_of(of_tenants uuid[], in_prefix text, page integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.not_served(in_tenant uuid, everywhere boolean, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.not_served(in_tenant uuid, everywhere boolean, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.others_failed_with(in_tenant uuid, in_startup uuid, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.others_failed_with(in_tenant uuid, in_startup uuid, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.overview(in_tenant uuid, span integer, most integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.overview(in_tenant uuid, span integer, most integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.overview_everywhere(span integer, most integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.overview_everywhere(span integer, most integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.overview_of(of_tenants uuid[], spans integer[], most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.own_key_digest() FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.packet_now(in_tenant uuid, in_principal text, in_kind text, in_issuer text, in_subject text, in_kid text, in_startup uuid, in_expected text, in_pod_uid text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.packet_now(in_tenant uuid, in_principal text, in_kind text, in_issuer text, in_subject text, in_kid text, in_startup uuid, in_expected text, in_pod_uid text) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.permits(components text[], component text) FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.plan_templates(known text[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.plan_templates(known text[]) TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.policies(known text[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.policies(known text[]) TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.policy_profile(in_tenant uuid, in_name text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.policy_profile(in_tenant uuid, in_name text) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.prepare_partitions(days integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.prepare_partitions(days integer) TO metagate_publisher;

REVOKE ALL ON FUNCTION metagate.principals_page(in_tenant uuid, everywhere boolean, in_state text, in_letters text, in_manifest text, at_name text, after_tenant uuid, after_name text, page integer, scan integer, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.principals_page(in_tenant uuid, everywhere boolean, in_state text, in_letters text, in_manifest text, at_name text, after_tenant uuid, after_name text, page integer, scan integer, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.problematas(known text[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.problematas(known text[]) TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.purge(retention interval, mirroring boolean, batch integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.purge(retention interval, mirroring boolean, batch integer) TO metagate_publisher;

REVOKE ALL ON FUNCTION metagate.purge_packets(retention interval, batch integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.purge_packets(retention interval, batch integer) TO metagate_publisher;

REVOKE ALL ON FUNCTION metagate.refuse() FROM PUBLIC;

REVOKE ALL ON FUNCTION metagate.report(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], startups uuid[], statuses text[], payloads text[], pod_uids text[], mirrors boolean[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.report(tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], startups uuid[], statuses text[], payloads text[], pod_uids text[], mirrors boolean[]) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.resolve(kinds text[], issuers text[], subjects text[], kids text[]) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.resolve(kinds text[], issuers text[], subjects text[], kids text[]) TO metagate_api;

GRANT ALL ON FUNCTION metagate.resolve(kinds text[], issuers text[], subjects text[], kids text[]) TO metagate_identity;

REVOKE ALL ON FUNCTION metagate.search(in_tenant uuid, everywhere boolean, wanted text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.search(in_tenant uuid, everywhere boolean, wanted text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.standing(in_tenant uuid, in_principal text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.standing(in_tenant uuid, in_principal text) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.startup(in_tenant uuid, in_startup uuid) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.startup(in_tenant uuid, in_startup uuid) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.startup_everywhere(in_startup uuid) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.startup_everywhere(in_startup uuid) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.startups(in_tenant uuid, in_status text, in_component text, in_principal text, after_startup uuid, page integer, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.startups(in_tenant uuid, in_status text, in_component text, in_principal text, after_startup uuid, page integer, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.startups_everywhere(in_status text, in_component text, in_principal text, after_tenant uuid, after_startup uuid, page integer, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.startups_everywhere(in_status text, in_component text, in_principal text, after_tenant uuid, after_startup uuid, page integer, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.startups_failed_with(in_tenant uuid, everywhere boolean, in_error text, before_startup uuid, page integer, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.startups_failed_with(in_tenant uuid, everywhere boolean, in_error text, before_startup uuid, page integer, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.state() FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.state() TO metagate_api;

GRANT ALL ON FUNCTION metagate.state() TO metagate_identity;

GRANT ALL ON FUNCTION metagate.state() TO metagate_publisher;

REVOKE ALL ON FUNCTION metagate.summary(in_tenant uuid, in_principal text, span integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.summary(in_tenant uuid, in_principal text, span integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.tenants_everywhere(page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.tenants_everywhere(page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.topology(in_tenant uuid) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.topology(in_tenant uuid) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.topology_page(in_tenant uuid, after_name text, page integer) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.topology_page(in_tenant uuid, after_name text, page integer) TO metagate_api;

REVOKE ALL ON FUNCTION metagate.withdraw(in_tenant uuid, in_problemata text, in_instance text, in_principal text) FROM PUBLIC;

GRANT ALL ON FUNCTION metagate.withdraw(in_tenant uuid, in_problemata text, in_instance text, in_principal text) TO metagate_api;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.api_key TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.binding TO metagate_publisher;

GRANT SELECT,INSERT ON TABLE metagate.change TO metagate_publisher;

GRANT SELECT,INSERT,UPDATE ON TABLE metagate.declared TO metagate_publisher;

GRANT SELECT,UPDATE ON TABLE metagate.epoch TO metagate_publisher;

GRANT SELECT ON TABLE metagate.installation TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.issuer TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.issuer_key TO metagate_publisher;

GRANT SELECT ON TABLE metagate.key_digest TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.manifest TO metagate_publisher;

GRANT SELECT ON TABLE metagate.migration TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.outbox TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.outbox_refused TO metagate_publisher;

GRANT SELECT,INSERT ON TABLE metagate.packet TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.plan_template TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.policy_profile TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.principal TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.problemata TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.profile TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.reference TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.resource TO metagate_publisher;

GRANT SELECT,INSERT ON TABLE metagate.revision TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.sighting TO metagate_publisher;

GRANT SELECT ON TABLE metagate.startup TO metagate_publisher;

GRANT SELECT ON TABLE metagate.startup_partition TO metagate_publisher;

GRANT SELECT,INSERT,DELETE,UPDATE ON TABLE metagate.subject TO metagate_publisher;

GRANT SELECT,INSERT,UPDATE ON TABLE metagate.tenant TO metagate_publisher;
