-- Artifacts, their blobs and the receipts `artifact/stored` in one commit (DP-03).
--
-- Locks (D-58): the names of artifacts, sorted; rows of blobs by (sha256, tenant); the leases in AsyncGate's order; then the ledger's,
-- by one call of `emit_depotgate`. No lock is held while bytes move: they are durable before this is called.

-- One row for each item, of which no two have the same artifact_id. `task_ids`, `causes`: as the depositor named them. In `forms`
-- T, O, P, C, A and B stand for what only this statement knows: where the receipt is filed, and the key of the blob.
CREATE FUNCTION depotgate.store(
    tenants uuid[], artifact_ids text[], receipt_ids text[], keys text[], digests text[], sizes bigint[], media_types text[],
    roles text[], task_ids text[], names text[], depositors text[], causes text[], lease_ids text[], forms text[]
) RETURNS TABLE (
    ordinal integer, outcome text, detail text, artifact_id text, sha256 text, size_bytes bigint, media_type text, role text,
    task_id text, name text, depositor text, lease_number bigint, stored_at timestamptz, receipt_id text, state text, key text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    verdicts text[];
    details text[];
    leased integer[];
    filed text[];
    obligations text[];
    owners text[];
    issuers text[];
    numbers bigint[];
    known text[];
    chosen integer[];
    times timestamptz[];
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT lock_key(i.tenant || 'a' || i.artifact_id) AS key
          FROM unnest(tenants, artifact_ids) AS i(tenant, artifact_id) ORDER BY key) AS wanted;

    -- What is stored under this id already (§7: the same content is bytes, media type, role, task and depositor), and causes.
    SELECT array_agg(CASE
               WHEN a.artifact_id IS NULL THEN
                   CASE WHEN i.cause IS NOT NULL AND NOT EXISTS (
                       SELECT FROM memorygate.receipt(i.tenant, i.cause) AS r WHERE r.body::json ->> 'task_id' = i.task_id)
                   THEN 'CAUSE_UNKNOWN' END
               WHEN a.sha256 = decode(i.digest, 'hex') AND a.size_bytes = i.size AND a.media_type = i.media_type AND a.role = i.role
                    AND a.depositor = i.depositor AND a.task_id IS NOT DISTINCT FROM i.task_id THEN 'REPLAYED'
               ELSE 'ARTIFACT_CONFLICT' END ORDER BY i.ord)
    INTO verdicts
    FROM unnest(tenants, artifact_ids, digests, sizes, media_types, roles, task_ids, depositors, causes)
         WITH ORDINALITY AS i(tenant, artifact_id, digest, size, media_type, role, task_id, depositor, cause, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM artifact AS x WHERE x.artifact_id = i.artifact_id AND x.tenant = i.tenant LIMIT 1) AS a ON true;

    -- The first upload of some bytes names their blob; a later one waits for the row, and uses it if it is still there (DP-02).
    INSERT INTO blob AS b (tenant, sha256, key, size_bytes)
    SELECT DISTINCT ON (d.sha256, i.tenant) i.tenant, d.sha256, i.key, i.size
    FROM unnest(tenants, digests, keys, sizes, verdicts) WITH ORDINALITY AS i(tenant, digest, key, size, verdict, ord)
    CROSS JOIN LATERAL decode(i.digest, 'hex') AS d(sha256)
    WHERE i.verdict IS NULL ORDER BY d.sha256, i.tenant, i.ord
    ON CONFLICT (sha256, tenant) DO UPDATE SET size_bytes = b.size_bytes;

    chosen := ARRAY(SELECT o::integer FROM unnest(verdicts, lease_ids) WITH ORDINALITY AS u(verdict, lease_id, o)
                    WHERE verdict IS NULL AND lease_id IS NOT NULL ORDER BY o);
    SELECT array_agg(l.number ORDER BY i.ord), array_agg(l.issued_by ORDER BY i.ord), array_agg(l.principal_ai ORDER BY i.ord),
           array_agg(l.task_id ORDER BY i.ord), array_agg(l.obligation_id ORDER BY i.ord),
           array_agg(CASE WHEN i.verdict IS NULL AND i.lease_id IS NOT NULL AND l.number IS NULL THEN 'LEASE_LOST' ELSE i.verdict END ORDER BY i.ord)
    INTO numbers, issuers, owners, filed, obligations, verdicts
    FROM unnest(verdicts, lease_ids) WITH ORDINALITY AS i(verdict, lease_id, ord)
    LEFT JOIN held_leases(ARRAY(SELECT tenants[o] FROM unnest(chosen) AS o), ARRAY(SELECT lease_ids[o] FROM unnest(chosen) AS o),
                          ARRAY(SELECT depositors[o] FROM unnest(chosen) AS o)) AS l ON chosen[l.ordinal] = i.ord;

    -- The ledger settles the root of a task at the first receipt that names it. A deposit must not decide where a plan's step hangs, so
    -- one whose task the ledger does not know is filed under its own id (DP-07).
    SELECT array_agg(CASE WHEN filed[i.ord] IS NOT NULL THEN filed[i.ord]
                          WHEN r.root_task_id IS NOT NULL THEN i.task_id ELSE i.receipt_id END ORDER BY i.ord)
    INTO filed
    FROM unnest(task_ids, receipt_ids) WITH ORDINALITY AS i(task_id, receipt_id, ord)
    LEFT JOIN memorygate.roots(tenants, task_ids) AS r ON r.ordinal = i.ord;

    chosen := ARRAY(SELECT o::integer FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, o) WHERE verdict IS NULL ORDER BY o);
    SELECT array_agg(CASE WHEN v.verdict IS NULL AND e.outcome <> 'STORED' THEN 'REFUSED' ELSE v.verdict END ORDER BY v.ord),
           array_agg(e.outcome ORDER BY v.ord), array_agg(e.stored_at ORDER BY v.ord)
    INTO verdicts, details, times
    FROM unnest(verdicts) WITH ORDINALITY AS v(verdict, ord)
    LEFT JOIN memorygate.emit_depotgate(
        ARRAY(SELECT put(put(put(put(put(replace(forms[o], chr(30) || 'A', coalesce(numbers[o]::text, 'null')),
                         'T', filed[o]), 'O', coalesce(obligations[o], filed[o])), 'P', owners[o]), 'C', issuers[o]), 'B', b.key)
              FROM unnest(chosen) AS o
              CROSS JOIN LATERAL (SELECT x.key FROM blob AS x WHERE x.sha256 = decode(digests[o], 'hex') AND x.tenant = tenants[o] LIMIT 1) AS b
              ORDER BY o), NULL) AS e ON chosen[e.ordinal] = v.ord;

    INSERT INTO artifact (tenant, artifact_id, sha256, size_bytes, media_type, role, task_id, name, depositor, lease_number, stored_at, receipt_id)
    SELECT tenants[o], artifact_ids[o], decode(digests[o], 'hex'), sizes[o], media_types[o], roles[o], task_ids[o], names[o], depositors[o],
           numbers[o], times[o], receipt_ids[o]
    FROM unnest(chosen) AS o WHERE verdicts[o] IS NULL;

    -- A blob that was named for an artifact which is not stored after all, and which no other has. Its bytes are the caller's to remove.
    DELETE FROM blob AS b USING unnest(tenants, digests, verdicts) AS i(tenant, digest, verdict)
    WHERE i.verdict IN ('LEASE_LOST', 'REFUSED') AND b.sha256 = decode(i.digest, 'hex') AND b.tenant = i.tenant
      AND NOT EXISTS (SELECT FROM artifact AS a WHERE a.sha256 = b.sha256 AND a.tenant = b.tenant AND a.retired_at IS NULL);

    RETURN QUERY
    SELECT i.ord::integer, coalesce(i.verdict, 'STORED'), CASE WHEN i.verdict = 'REFUSED' THEN i.detail END, v.artifact_id, v.sha256, v.size_bytes,
           v.media_type, v.role, v.task_id, v.name, v.depositor, v.lease_number, v.stored_at, v.receipt_id, v.state, v.key
    FROM unnest(verdicts, details) WITH ORDINALITY AS i(verdict, detail, ord)
    LEFT JOIN views(tenants, artifact_ids) AS v ON v.ordinal = i.ord AND (i.verdict IS NULL OR i.verdict = 'REPLAYED');
END
$$;
COMMENT ON FUNCTION depotgate.store IS 'Artifacts whose bytes are durable: rows and receipts, or why not.';
