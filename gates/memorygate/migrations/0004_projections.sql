-- What is derived, derived again: the whole of it as queries over the receipts (INV-050). `drifted` compares, `rebuild` replaces.

CREATE VIEW memorygate.derived_task AS
SELECT tenant, task_id, root_task_id,
       CASE WHEN task_id = root_task_id THEN length ELSE 0 END AS length,
       CASE WHEN task_id = root_task_id THEN head END AS head
FROM (
    SELECT DISTINCT ON (s.tenant, s.task_id) s.tenant, s.task_id, s.root_task_id, ends.length, ends.head
    FROM (
        SELECT tenant, task_id, root_task_id FROM memorygate.receipt
        UNION ALL SELECT tenant, root_task_id, root_task_id FROM memorygate.receipt
    ) AS s
    LEFT JOIN (
        SELECT DISTINCT ON (tenant, root_task_id) tenant, root_task_id, position AS length, chain AS head
        FROM memorygate.receipt ORDER BY tenant, root_task_id, position DESC
    ) AS ends ON ends.tenant = s.tenant AND ends.root_task_id = s.task_id
    ORDER BY s.tenant, s.task_id
) AS seen;

CREATE VIEW memorygate.derived_obligation AS
SELECT opened.tenant, opened.kind, opened.obligation_id, opened.task_id, opened.body::jsonb ->> 'principal_ai' AS principal_ai,
       coalesce(moved.body, opened.body)::jsonb ->> 'recipient_ai' AS custodian,
       coalesce(closed.body::jsonb ->> 'status', 'open') AS state,
       opened.receipt_id AS opened_by, opened.stored_at AS opened_at,
       coalesce(moved.receipt_id, opened.receipt_id) AS moved_by, coalesce(moved.stored_at, opened.stored_at) AS custody_at,
       closed.receipt_id AS closed_by, closed.stored_at AS closed_at
FROM (
    SELECT DISTINCT ON (tenant, kind, obligation_id) *
    FROM memorygate.receipt WHERE kind IN ('obligation', 'startup') AND phase = 'accepted'
    ORDER BY tenant, kind, obligation_id, position
) AS opened
LEFT JOIN (
    SELECT DISTINCT ON (tenant, kind, obligation_id) *
    FROM memorygate.receipt WHERE kind IN ('obligation', 'startup') AND phase = 'escalate'
    ORDER BY tenant, kind, obligation_id, position DESC
) AS moved USING (tenant, kind, obligation_id)
LEFT JOIN (
    SELECT * FROM memorygate.receipt WHERE kind IN ('obligation', 'startup') AND phase = 'complete'
) AS closed USING (tenant, kind, obligation_id);

CREATE VIEW memorygate.derived_tally AS
SELECT r.tenant, count(*) AS receipts,
       count(*) FILTER (WHERE o.kind = 'obligation') AS obligations,
       count(*) FILTER (WHERE o.kind = 'obligation' AND o.state = 'success') AS succeeded,
       count(*) FILTER (WHERE o.kind = 'obligation' AND o.state = 'failure') AS failed,
       count(*) FILTER (WHERE o.kind = 'obligation' AND o.state = 'canceled') AS canceled,
       count(*) FILTER (WHERE o.kind = 'startup') AS startups,
       count(*) FILTER (WHERE o.kind = 'startup' AND o.state = 'success') AS startups_ready,
       count(*) FILTER (WHERE o.kind = 'startup' AND o.state IN ('failure', 'canceled')) AS startups_failed,
       max(r.stored_at) AS last_stored_at
FROM memorygate.receipt AS r
LEFT JOIN memorygate.derived_obligation AS o ON o.tenant = r.tenant AND o.opened_by = r.receipt_id
GROUP BY r.tenant;

CREATE FUNCTION memorygate.moment(said text) RETURNS timestamptz
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp SET timezone = 'UTC' AS $$
BEGIN
    RETURN CASE WHEN said ~ '^\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d(:?\d\d)?)$' THEN said::timestamptz END;
EXCEPTION WHEN others THEN
    RETURN NULL;
END
$$;

CREATE FUNCTION memorygate.drifted(most integer) RETURNS TABLE (tenant uuid, projection text, name text)
LANGUAGE sql STABLE SET search_path = memorygate, pg_catalog, pg_temp AS $$
    (SELECT coalesce(d.tenant, t.tenant), 'task', coalesce(d.task_id, t.task_id)
     FROM derived_task AS d FULL JOIN task AS t USING (tenant, task_id)
     WHERE (d.root_task_id, d.length, d.head) IS DISTINCT FROM (t.root_task_id, t.length, t.head)
     LIMIT most)
    UNION ALL
    (SELECT coalesce(d.tenant, o.tenant), 'obligation', coalesce(d.obligation_id, o.obligation_id)
     FROM derived_obligation AS d FULL JOIN obligation AS o USING (tenant, kind, obligation_id)
     WHERE (d.task_id, d.principal_ai, d.custodian, d.state, d.opened_by, d.opened_at, d.moved_by, d.custody_at, d.closed_by, d.closed_at)
           IS DISTINCT FROM
           (o.task_id, o.principal_ai, o.custodian, o.state, o.opened_by, o.opened_at, o.moved_by, o.custody_at, o.closed_by, o.closed_at)
     LIMIT most)
    UNION ALL
    (SELECT coalesce(d.tenant, t.tenant), 'tally', 'of the tenant'
     FROM derived_tally AS d FULL JOIN (
        SELECT tenant, sum(receipts) AS receipts, sum(obligations) AS obligations, sum(succeeded) AS succeeded, sum(failed) AS failed,
               sum(canceled) AS canceled, sum(startups) AS startups, sum(startups_ready) AS startups_ready,
               sum(startups_failed) AS startups_failed
        FROM tally GROUP BY tenant) AS t USING (tenant)
     WHERE (d.receipts, d.obligations, d.succeeded, d.failed, d.canceled, d.startups, d.startups_ready, d.startups_failed)
           IS DISTINCT FROM
           (t.receipts, t.obligations, t.succeeded, t.failed, t.canceled, t.startups, t.startups_ready, t.startups_failed)
     LIMIT most)
    UNION ALL
    (SELECT coalesce(d.tenant, e.tenant), 'dedupe', coalesce(d.dedupe_key, e.dedupe_key)
     FROM (SELECT r.tenant, r.body::jsonb ->> 'emitter' AS emitter, r.body::jsonb ->> 'dedupe_key' AS dedupe_key, r.receipt_id
           FROM receipt AS r WHERE r.body::jsonb ? 'dedupe_key') AS d
     FULL JOIN dedupe AS e USING (tenant, emitter, dedupe_key)
     WHERE d.receipt_id IS DISTINCT FROM e.receipt_id
     LIMIT most)
$$;
COMMENT ON FUNCTION memorygate.drifted IS 'Rows of derived tables that are not what the receipts say.';

-- The digest of a dedupe_key is over the canonical form without two fields. Fields are sorted and their values canonical already,
-- so that taking the members out and writing the rest as it stands is that form; the process computes the same (a test says so).
CREATE FUNCTION memorygate.dedupe_digest(body text) RETURNS bytea
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
RETURN sha256(convert_to('{' || (
    SELECT string_agg(to_json(e.key)::text || ':' || e.value::text, ',' ORDER BY e.place)
    FROM json_each(body::json) WITH ORDINALITY AS e(key, value, place)
    WHERE e.key NOT IN ('receipt_id', 'created_at')) || '}', 'UTF8'));

CREATE FUNCTION memorygate.rebuild() RETURNS void
LANGUAGE plpgsql SET search_path = memorygate, pg_catalog, pg_temp AS $$
BEGIN
    LOCK TABLE receipt IN SHARE ROW EXCLUSIVE MODE;
    DELETE FROM task; DELETE FROM obligation; DELETE FROM dedupe; DELETE FROM tally;
    INSERT INTO task (tenant, task_id, root_task_id, length, head) SELECT tenant, task_id, root_task_id, length, head FROM derived_task;
    INSERT INTO obligation (tenant, kind, obligation_id, task_id, principal_ai, custodian, state, opened_by, opened_at, moved_by,
                            custody_at, due_at, closed_by, closed_at)
    SELECT d.tenant, d.kind, d.obligation_id, d.task_id, d.principal_ai, d.custodian, d.state, d.opened_by, d.opened_at, d.moved_by,
           d.custody_at, moment(r.body::jsonb -> 'metadata' ->> 'deadline_at'), d.closed_by, d.closed_at
    FROM derived_obligation AS d JOIN receipt AS r ON r.tenant = d.tenant AND r.receipt_id = d.opened_by;
    INSERT INTO dedupe (tenant, emitter, dedupe_key, receipt_id, digest, stored_at, position)
    SELECT tenant, body::jsonb ->> 'emitter', body::jsonb ->> 'dedupe_key', receipt_id, dedupe_digest(body), stored_at, position
    FROM receipt WHERE body::jsonb ? 'dedupe_key';
    INSERT INTO tally (tenant, slot, receipts, obligations, succeeded, failed, canceled, startups, startups_ready, startups_failed, last_stored_at)
    SELECT tenant, 0, receipts, obligations, succeeded, failed, canceled, startups, startups_ready, startups_failed, last_stored_at
    FROM derived_tally;
END
$$;
COMMENT ON FUNCTION memorygate.rebuild IS 'Empties what is derived and derives it again; run by the owner only (`memorygate verify --rebuild`).';
