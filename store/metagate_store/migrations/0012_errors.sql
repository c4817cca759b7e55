-- The error text beside a component that is not up: what some sessions reported, asked for by tenant and id.

CREATE FUNCTION metagate.errors_of(of_tenants uuid[], of_startups uuid[]) RETURNS TABLE (startup_id uuid, error text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT s.startup_id, left(s.report ->> 'error', 300)
    FROM unnest(of_tenants, of_startups) AS a (tenant, startup_id)
    JOIN metagate.startup AS s ON s.tenant = a.tenant AND s.startup_id = a.startup_id
    WHERE s.status = 'FAILED' AND s.report ->> 'error' IS NOT NULL
$$;
COMMENT ON FUNCTION metagate.errors_of IS 'The error that each of these sessions reported; for one session of each tenant and id given.';
