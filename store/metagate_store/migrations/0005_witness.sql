-- What the ledger and the relay to it need (D-04, D-48, EXT-20).

CREATE FUNCTION metagate.everybody()
RETURNS TABLE (
    issuer text, subject text, tenant uuid, namespace text, namespace_created timestamptz, principal_key text, type text,
    scope text, rights text[], suspended boolean
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
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
COMMENT ON FUNCTION metagate.everybody IS
    'Whom every credential speaks for, in one snapshot: for a gate that goes on while this database is away.';

CREATE TABLE metagate.outbox_refused (
    seq bigint PRIMARY KEY,
    tenant uuid,
    event text NOT NULL,
    startup_id uuid,
    revision bigint,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    refused_at timestamptz NOT NULL DEFAULT now(),
    code text NOT NULL,
    detail text NOT NULL
);
COMMENT ON TABLE metagate.outbox_refused IS
    'Dead letters: what the ledger refused. Not sent again, counted, kept for whoever looks into it (EXT-20).';
