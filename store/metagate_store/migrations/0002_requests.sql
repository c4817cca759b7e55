-- What a component asks: each question is a row of the arguments, each answer a row of the result, in one statement.
--
-- Plans must not depend on statistics (a partition is empty in the morning and large in the evening), so each function
-- asks for index lookups, driven from its arguments. A credential is compared with its principal by IS NOT DISTINCT FROM,
-- which no index serves: it must be found by its own key, or the cost would grow with the keys of a principal (EXT-01).
-- No outcome raises: one row must never spoil the others.

CREATE FUNCTION metagate.permits(components text[], component text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM unnest(components) AS c (pattern)
        WHERE c.pattern = component OR (right(c.pattern, 1) = '*' AND starts_with(component, left(c.pattern, -1)))
    )
$$;
COMMENT ON FUNCTION metagate.permits IS 'D-16: an exact key or `prefix*`; an empty list permits none.';

CREATE FUNCTION metagate.bootstrap(
    tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[], components text[],
    startups uuid[], packets uuid[], keys text[], expected text[], pod_uids text[], pod_names text[], pod_nodes text[],
    mirrors boolean[]
) RETURNS TABLE (
    n bigint, outcome text, startup_id uuid, packet_id uuid, issued_at timestamptz, deadline_at timestamptz,
    digest text, body bytea, revision bigint, compiled_at timestamptz
)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
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
-- Whoever comes first with a key writes it; everybody else, also those who could not see it yet, gets the winner's row back.
-- In the order of keys, so that two batches never wait for each other.
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
COMMENT ON FUNCTION metagate.bootstrap IS
    'Resolve, permit, insert OPEN and answer, for each row of the arguments (D-03, D-16, D-38, D-41, D-43, D-45).';

CREATE FUNCTION metagate.report(
    tenants uuid[], principals text[], kinds text[], issuers text[], subjects text[], kids text[],
    startups uuid[], statuses text[], payloads text[], pod_uids text[], mirrors boolean[]
) RETURNS TABLE (n bigint, outcome text, status text, acknowledged_at timestamptz, late boolean)
LANGUAGE sql VOLATILE SECURITY DEFINER
SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off
SET plan_cache_mode = force_generic_plan
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
-- A row that somebody else holds is left alone, so that it cannot keep the rest of the batch waiting.
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
COMMENT ON FUNCTION metagate.report IS 'READY or FAILED for each row of the arguments: a conditional update, once (D-11, D-42, D-43).';

CREATE FUNCTION metagate.resolve(kinds text[], issuers text[], subjects text[], kids text[])
RETURNS TABLE (
    n bigint, tenant uuid, namespace text, namespace_created timestamptz, principal_key text, type text, scope text,
    rights text[], suspended boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION metagate.resolve IS 'Whom each credential speaks for; rows of credentials that stand for nobody are left out.';

CREATE FUNCTION metagate.credentials(since bigint)
RETURNS TABLE (mark bigint, kind text, a text, b text, body jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION metagate.credentials IS 'Every credential that changed after a mark; body null: taken back (D-45).';

CREATE FUNCTION metagate.credential_mark()
RETURNS bigint
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT coalesce(max(c.mark), 0) FROM metagate.credential_change AS c $$;

CREATE FUNCTION metagate.packet_now(
    in_tenant uuid, in_principal text, in_kind text, in_issuer text, in_subject text, in_kid text, in_startup uuid,
    in_expected text, in_pod_uid text
) RETURNS TABLE (
    outcome text, component_key text, packet_id uuid, issued_at timestamptz, deadline_at timestamptz, status text,
    digest text, body bytea, revision bigint, compiled_at timestamptz
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION metagate.packet_now IS 'The packet as of now for the owner of a startup; nothing is written (D-47).';
