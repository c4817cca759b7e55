-- What anybody of the tenant may look at.

CREATE FUNCTION asyncgate.task_state(lease_until timestamptz, waits integer, available_at timestamptz) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN CASE WHEN lease_until > clock_timestamp() THEN 'leased' WHEN lease_until IS NOT NULL THEN 'waiting'
            WHEN waits > 0 OR available_at > clock_timestamp() THEN 'held_back' ELSE 'waiting' END;
COMMENT ON FUNCTION asyncgate.task_state IS 'Available is computed: a lease over its time holds nothing, whether anybody wrote it down or not (AG-12).';

CREATE FUNCTION asyncgate.tasks(of_tenant uuid, of_capability text, of_state text, after_task text, most integer) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, capability text, state text, document text,
    accepted_by text, accepted_at timestamptz, available_at timestamptz, waits_for text[],
    holder text, number integer, expires_at timestamptz, how text, ended_at timestamptz, ended_by text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
BEGIN
    -- Each mailbox in the order of its index, then the first of all: a tenant's tasks are read in pages, and never another tenant's.
    IF of_state IS DISTINCT FROM 'ended' THEN
        RETURN QUERY
        WITH RECURSIVE mailbox AS (
            SELECT of_capability AS name WHERE of_capability IS NOT NULL
            UNION ALL
            (SELECT x.capability FROM task AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND of_capability IS NULL ORDER BY x.capability LIMIT 1)
            UNION ALL
            SELECT (SELECT x.capability FROM task AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability > m.name ORDER BY x.capability LIMIT 1)
            FROM mailbox AS m WHERE m.name IS NOT NULL AND of_capability IS NULL
        )
        SELECT t.task_id, t.obligation_id, t.principal_ai, t.capability, t.current_state, t.document, t.accepted_by, t.accepted_at,
               CASE WHEN t.waits = 0 AND t.current_state <> 'leased' THEN t.available_at END,
               CASE WHEN t.waits > 0 THEN ARRAY(SELECT n.obligation_id FROM need AS n WHERE n.task_id = t.task_id AND n.tenant = t.tenant ORDER BY 1)
                    ELSE '{}' END,
               CASE WHEN t.current_state = 'leased' THEN t.holder END, t.number, CASE WHEN t.current_state = 'leased' THEN t.lease_until END,
               NULL::text, NULL::timestamptz, NULL::text
        FROM (SELECT p.* FROM mailbox AS m
              CROSS JOIN LATERAL (
                  SELECT x.*, task_state(x.lease_until, x.waits, x.available_at) AS current_state FROM task AS x
                  WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability = m.name AND x.task_id > coalesce(after_task, '')
                    AND (of_state IS NULL OR task_state(x.lease_until, x.waits, x.available_at) = of_state)
                  ORDER BY x.task_id LIMIT most) AS p
              ORDER BY p.task_id LIMIT most) AS t
        ORDER BY t.task_id;
    ELSE
        RETURN QUERY
        WITH RECURSIVE mailbox AS (
            SELECT of_capability AS name WHERE of_capability IS NOT NULL
            UNION ALL
            (SELECT x.capability FROM archive AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND of_capability IS NULL ORDER BY x.capability LIMIT 1)
            UNION ALL
            SELECT (SELECT x.capability FROM archive AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability > m.name ORDER BY x.capability LIMIT 1)
            FROM mailbox AS m WHERE m.name IS NOT NULL AND of_capability IS NULL
        )
        SELECT t.task_id, t.obligation_id, t.principal_ai, t.capability, 'ended', NULL::text, t.accepted_by, t.accepted_at,
               NULL::timestamptz, '{}'::text[], NULL::text, NULL::integer, NULL::timestamptz, t.how, t.ended_at, t.ended_by
        FROM (SELECT p.* FROM mailbox AS m
              CROSS JOIN LATERAL (SELECT x.* FROM archive AS x
                                  WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability = m.name AND x.task_id > coalesce(after_task, '')
                                  ORDER BY x.task_id LIMIT most) AS p
              ORDER BY p.task_id LIMIT most) AS t
        ORDER BY t.task_id;
    END IF;
END
$$;
COMMENT ON FUNCTION asyncgate.tasks IS 'Tasks of a tenant by id: what is not over, of a state or of all; `ended`: the archive.';

CREATE FUNCTION asyncgate.task_view(of_tenant uuid, wanted text) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, capability text, state text, document text,
    accepted_by text, accepted_at timestamptz, available_at timestamptz, waits_for text[],
    holder text, number integer, expires_at timestamptz, how text, ended_at timestamptz, ended_by text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.capability, t.current_state, t.document, t.accepted_by, t.accepted_at,
           CASE WHEN t.waits = 0 AND t.current_state <> 'leased' THEN t.available_at END,
           ARRAY(SELECT n.obligation_id FROM need AS n WHERE n.task_id = t.task_id AND n.tenant = t.tenant ORDER BY 1),
           CASE WHEN t.current_state = 'leased' THEN t.holder END, t.number, CASE WHEN t.current_state = 'leased' THEN t.lease_until END,
           NULL::text, NULL::timestamptz, NULL::text
    FROM (SELECT x.*, task_state(x.lease_until, x.waits, x.available_at) AS current_state FROM task AS x
          WHERE x.task_id = wanted AND x.tenant = of_tenant) AS t
    UNION ALL
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.capability, 'ended', NULL, t.accepted_by, t.accepted_at,
           NULL, '{}', NULL, NULL, NULL, t.how, t.ended_at, t.ended_by
    FROM archive AS t WHERE t.task_id = wanted AND t.tenant = of_tenant;
END
$$;
COMMENT ON FUNCTION asyncgate.task_view IS 'One task, held or over.';

-- Numbers of at most 10,000 rows of each mailbox: a queue of a million must not cost its reader a million rows.
CREATE FUNCTION asyncgate.depth(of_tenant uuid, of_capability text) RETURNS TABLE (
    capability text, waiting integer, held_back integer, leased integer, oldest_available_at timestamptz, capped boolean, as_of timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE mailbox AS (
        (SELECT x.capability FROM task AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND (of_capability IS NULL OR x.capability = of_capability)
         ORDER BY x.capability LIMIT 1)
        UNION ALL
        SELECT (SELECT x.capability FROM task AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability > m.capability AND of_capability IS NULL
                ORDER BY x.capability LIMIT 1)
        FROM mailbox AS m WHERE m.capability IS NOT NULL
    )
    SELECT m.capability, c.waiting, c.held_back, c.leased, oldest.available_at, c.rows > 10000, clock_timestamp()
    FROM mailbox AS m
    CROSS JOIN LATERAL (
        SELECT (count(*) FILTER (WHERE t.state = 'waiting'))::integer AS waiting, (count(*) FILTER (WHERE t.state = 'held_back'))::integer AS held_back,
               (count(*) FILTER (WHERE t.state = 'leased'))::integer AS leased, count(*) AS rows
        FROM (SELECT task_state(x.lease_until, x.waits, x.available_at) AS state FROM task AS x
              WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability = m.capability LIMIT 10001) AS t) AS c
    LEFT JOIN LATERAL (SELECT x.available_at FROM task AS x
                       WHERE x.capability = m.capability AND x.tenant = of_tenant AND x.lease_until IS NULL AND x.waits = 0
                         AND x.available_at <= clock_timestamp()
                       ORDER BY x.available_at, x.seq LIMIT 1) AS oldest ON true
    WHERE m.capability IS NOT NULL ORDER BY m.capability;
END
$$;
COMMENT ON FUNCTION asyncgate.depth IS 'How much lies in each mailbox of a tenant that is not empty.';

CREATE FUNCTION asyncgate.totals() RETURNS TABLE (waiting integer, oldest_available_at timestamptz, leased integer, as_of timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT count(*) FILTER (WHERE t.state = 'waiting')::integer, min(t.available_at) FILTER (WHERE t.state = 'waiting'),
           count(*) FILTER (WHERE t.state = 'leased')::integer, clock_timestamp()
    FROM (SELECT asyncgate.task_state(x.lease_until, x.waits, x.available_at) AS state, x.available_at
          FROM asyncgate.task AS x LIMIT 10000) AS t;
END
$$;
COMMENT ON FUNCTION asyncgate.totals IS 'Of all tenants, for metrics; at most 10,000 tasks are counted.';

-- A live lease as its holder may see it, to choose whom to escalate to.
CREATE FUNCTION asyncgate.held_lease(of_tenant uuid, of_holder text, wanted text) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, number integer, expires_at timestamptz, escalation_to text[]
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.number, t.lease_until, t.escalation_to FROM asyncgate.task AS t
    WHERE t.lease_id = wanted AND t.tenant = of_tenant AND t.holder = of_holder AND t.lease_until > clock_timestamp();
END
$$;

CREATE FUNCTION asyncgate.admission_receipt(of_tenant uuid, wanted text) RETURNS TABLE (body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT r.body FROM memorygate.receipt(of_tenant, wanted) AS r
    WHERE r.stored_at > clock_timestamp() - interval '10 minutes' AND r.body::json ->> 'kind' = 'admission';
END
$$;
COMMENT ON FUNCTION asyncgate.admission_receipt IS 'An admission that is young enough to admit a task (AG-09).';
