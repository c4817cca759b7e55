-- Retirement (DP-12): tombstone and `artifact/retired` in one commit; the caller removes bytes that no artifact has any more after it.
--
-- Locks, in the order of `store`: names of artifacts, rows of blobs, the ledger's. So either a deposit of the same bytes finds their blob
-- and it stays, or the blob is gone and the deposit names its own (promise 6).

-- One row for each item that is retired now or was before, in any order. `forms`: marks T, O, P and C are read from `artifact/stored`.
CREATE FUNCTION depotgate.retire(tenants uuid[], artifact_ids text[], receipt_ids text[], forms text[]) RETURNS TABLE (
    ordinal integer, artifact_id text, sha256 text, size_bytes bigint, media_type text, role text, task_id text, name text,
    depositor text, lease_number bigint, stored_at timestamptz, receipt_id text, state text, key text, freed_key text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    chosen integer[];
    retired integer[];
    times timestamptz[];
    freed text[];
    of_digests bytea[];
    of_tenants uuid[];
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT lock_key(i.tenant || 'a' || i.artifact_id) AS key
          FROM unnest(tenants, artifact_ids) AS i(tenant, artifact_id) ORDER BY key) AS wanted;
    SELECT coalesce(array_agg(i.ord::integer ORDER BY i.ord), '{}') INTO chosen
    FROM unnest(tenants, artifact_ids) WITH ORDINALITY AS i(tenant, artifact_id, ord)
    CROSS JOIN LATERAL (SELECT FROM artifact AS x
                        WHERE x.artifact_id = i.artifact_id AND x.tenant = i.tenant AND x.retired_at IS NULL LIMIT 1) AS a;

    SELECT array_agg(b.sha256 ORDER BY b.sha256, b.tenant), array_agg(b.tenant ORDER BY b.sha256, b.tenant) INTO of_digests, of_tenants
    FROM (SELECT DISTINCT a.sha256, a.tenant FROM unnest(chosen) AS o
          CROSS JOIN LATERAL (SELECT x.sha256, x.tenant FROM artifact AS x
                              WHERE x.artifact_id = artifact_ids[o] AND x.tenant = tenants[o] LIMIT 1) AS a) AS b;
    FOR place IN 1..coalesce(cardinality(of_digests), 0) LOOP
        PERFORM FROM blob AS x WHERE x.sha256 = of_digests[place] AND x.tenant = of_tenants[place] FOR UPDATE;
    END LOOP;

    SELECT coalesce(array_agg(chosen[e.ordinal] ORDER BY e.ordinal) FILTER (WHERE e.outcome = 'STORED'), '{}'),
           coalesce(array_agg(e.stored_at ORDER BY e.ordinal) FILTER (WHERE e.outcome = 'STORED'), '{}')
    INTO retired, times
    FROM memorygate.emit_depotgate(
        ARRAY(SELECT put(put(put(put(forms[o], 'T', r.body::json ->> 'task_id'), 'O', r.body::json ->> 'obligation_id'),
                                 'P', r.body::json ->> 'principal_ai'), 'C', a.receipt_id)
              FROM unnest(chosen) AS o
              CROSS JOIN LATERAL (SELECT x.receipt_id FROM artifact AS x
                                  WHERE x.artifact_id = artifact_ids[o] AND x.tenant = tenants[o] LIMIT 1) AS a
              CROSS JOIN LATERAL memorygate.receipt(tenants[o], a.receipt_id) AS r
              ORDER BY o), NULL) AS e;
    UPDATE artifact AS a SET retired_at = i.at, retired_by = receipt_ids[i.o]
    FROM unnest(retired, times) AS i(o, at) WHERE a.artifact_id = artifact_ids[i.o] AND a.tenant = tenants[i.o];

    WITH gone AS (
        DELETE FROM blob AS b USING unnest(of_digests, of_tenants) AS i(sha256, tenant)
        WHERE b.sha256 = i.sha256 AND b.tenant = i.tenant
          AND NOT EXISTS (SELECT FROM artifact AS a WHERE a.sha256 = b.sha256 AND a.tenant = b.tenant AND a.retired_at IS NULL)
        RETURNING b.sha256, b.tenant, b.key
    )
    SELECT array_agg(g.key ORDER BY i.ord) INTO freed
    FROM unnest(tenants, artifact_ids) WITH ORDINALITY AS i(tenant, artifact_id, ord)
    LEFT JOIN LATERAL (SELECT x.sha256 FROM artifact AS x WHERE x.artifact_id = i.artifact_id AND x.tenant = i.tenant LIMIT 1) AS a ON true
    LEFT JOIN gone AS g ON g.sha256 = a.sha256 AND g.tenant = i.tenant;

    RETURN QUERY
    SELECT v.ordinal, v.artifact_id, v.sha256, v.size_bytes, v.media_type, v.role, v.task_id, v.name, v.depositor, v.lease_number,
           v.stored_at, v.receipt_id, v.state, v.key, freed[v.ordinal]
    FROM views(tenants, artifact_ids) AS v WHERE v.state = 'retired';
END
$$;
COMMENT ON FUNCTION depotgate.retire IS 'Whether they may go has been judged: no receipt names them, their task has nothing open.';
