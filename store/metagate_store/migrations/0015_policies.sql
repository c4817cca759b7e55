-- What an admission boundary follows (D-60).

CREATE FUNCTION metagate.policies(known text[])
RETURNS TABLE (tenant uuid, namespace text, name text, revision bigint, policy_hash text, body jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
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
COMMENT ON FUNCTION metagate.policies IS
    'Every served PolicyProfile, in one snapshot. A body comes once per policy_hash, and not where the caller holds it already: what is absent is gone.';
