-- What is asked about artifacts, and what sweep and verify compare with the store.

CREATE FUNCTION depotgate.artifacts(
    of_tenant uuid, of_task text, of_role text, before_at timestamptz, before_id text, most integer
) RETURNS TABLE (
    artifact_id text, sha256 text, size_bytes bigint, media_type text, role text, task_id text, name text, depositor text,
    lease_number bigint, stored_at timestamptz, receipt_id text, state text, key text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan AS $$
DECLARE
    ids text[];
    moment timestamptz := coalesce(before_at, 'infinity');
    last_id text := coalesce(before_id, '');
BEGIN
    IF of_task IS NULL THEN
        ids := ARRAY(SELECT a.artifact_id FROM artifact AS a
                     WHERE uuid_hash_extended(a.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND a.tenant = of_tenant
                       AND (a.stored_at, a.artifact_id) < (moment, last_id) AND (of_role IS NULL OR a.role = of_role)
                     ORDER BY a.stored_at DESC, a.artifact_id DESC LIMIT most);
    ELSE
        ids := ARRAY(SELECT a.artifact_id FROM artifact AS a
                     WHERE a.task_id = of_task AND a.tenant = of_tenant
                       AND (a.stored_at, a.artifact_id) < (moment, last_id) AND (of_role IS NULL OR a.role = of_role)
                     ORDER BY a.stored_at DESC, a.artifact_id DESC LIMIT most);
    END IF;
    RETURN QUERY
    SELECT v.artifact_id, v.sha256, v.size_bytes, v.media_type, v.role, v.task_id, v.name, v.depositor, v.lease_number, v.stored_at,
           v.receipt_id, v.state, v.key
    FROM views(array_fill(of_tenant, ARRAY[cardinality(ids)]), ids) AS v ORDER BY v.ordinal;
END
$$;
COMMENT ON FUNCTION depotgate.artifacts IS 'A page of a tenant''s artifacts, the newest first.';

CREATE FUNCTION depotgate.totals(of_tenant uuid) RETURNS TABLE (kept bigint, retired bigint, as_of timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT count(*) FILTER (WHERE x.retired_at IS NULL), count(*) FILTER (WHERE x.retired_at IS NOT NULL), clock_timestamp()
    FROM (SELECT a.retired_at FROM artifact AS a
          WHERE uuid_hash_extended(a.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND a.tenant = of_tenant LIMIT 10001) AS x;
END
$$;
COMMENT ON FUNCTION depotgate.totals IS 'How many artifacts a tenant has; at most 10,001 are counted.';

CREATE FUNCTION depotgate.blobs(after_key text, most integer) RETURNS TABLE (
    tenant uuid, key text, sha256 text, size_bytes bigint, artifact_ids text[]
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT b.tenant, b.key, encode(b.sha256, 'hex'), b.size_bytes,
           ARRAY(SELECT a.artifact_id FROM artifact AS a WHERE a.sha256 = b.sha256 AND a.tenant = b.tenant AND a.retired_at IS NULL ORDER BY 1)
    FROM blob AS b WHERE b.key > after_key ORDER BY b.key LIMIT most;
END
$$;
COMMENT ON FUNCTION depotgate.blobs IS 'A page of the blobs that artifacts have, by key, and whose they are: `verify` reads each of them.';

CREATE FUNCTION depotgate.known_keys(keys text[]) RETURNS TABLE (key text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT b.key FROM unnest(keys) AS i(key) CROSS JOIN LATERAL (SELECT x.key FROM blob AS x WHERE x.key = i.key LIMIT 1) AS b;
END
$$;
COMMENT ON FUNCTION depotgate.known_keys IS 'Which of these blobs some artifact has: `sweep` removes old ones that none has.';
