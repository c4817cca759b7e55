-- What plans of work are made of. They are followed (D-60) and never stand in packets.

CREATE TABLE metagate.plan_template (
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

-- What DeleGate follows, as metagate.problematas.
CREATE FUNCTION metagate.plan_templates(known text[])
RETURNS TABLE (tenant uuid, namespace text, name text, revision bigint, content_hash text, body jsonb)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET jit = off AS $$
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
COMMENT ON FUNCTION metagate.plan_templates IS
    'Every served PlanTemplate, in one snapshot. A body comes once per content_hash, and not where the caller holds it already: what is absent is gone.';
