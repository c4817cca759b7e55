-- name: witness.take
-- The oldest receipts that are due; none before an older one of its startup that waits.
SELECT o.seq, o.tenant, o.event, o.startup_id, o.revision, o.body, o.created_at, o.attempts
FROM metagate.outbox AS o
WHERE o.not_before <= now()
    AND NOT EXISTS (
        SELECT FROM metagate.outbox AS e
        WHERE e.startup_id = o.startup_id AND e.seq < o.seq AND e.not_before > now()
    )
ORDER BY o.seq
LIMIT $1;

-- name: witness.delivered
-- What the ledger has.
DELETE FROM metagate.outbox WHERE seq = ANY ($1::bigint[]);

-- name: witness.postpone
-- What the ledger could not take now; the reason is ours, never its text.
UPDATE metagate.outbox
SET attempts = attempts + 1, not_before = now() + make_interval(secs => $2), last_error = left($3, 200)
WHERE seq = ANY ($1::bigint[]);

-- name: witness.refuse
-- What the ledger will never take: out of the way, kept for whoever looks into it.
WITH taken AS (
    DELETE FROM metagate.outbox AS o WHERE o.seq = $1
    RETURNING o.seq, o.tenant, o.event, o.startup_id, o.revision, o.body, o.created_at
)
INSERT INTO metagate.outbox_refused (seq, tenant, event, startup_id, revision, body, created_at, code, detail)
SELECT t.seq, t.tenant, t.event, t.startup_id, t.revision, t.body, t.created_at, $2, left($3, 500) FROM taken AS t;

-- name: witness.partitions
-- Make the partitions of the coming days.
SELECT metagate.prepare_partitions($1);

-- name: witness.purge
-- Remove what is older than the retention.
SELECT p.startups, p.partitions, p.keys FROM metagate.purge($1, $2, $3) AS p;

-- name: witness.purge_packets
-- Remove packets that nothing refers to.
SELECT metagate.purge_packets($1, $2);

-- name: witness.backlog
-- How much waits, and for how long the oldest has.
SELECT s.mirror_waiting, s.mirror_lag_seconds FROM metagate.state() AS s;

-- name: witness.share
-- Whether this transaction has a share of the startups to itself; it waits for nobody, and for the disk neither.
-- What a crash of the server brings back into the outbox is sent again, under the same ids.
SELECT pg_try_advisory_xact_lock(1835363705, $1::integer) FROM set_config('synchronous_commit', 'off', true);

-- name: witness.batch
-- Due receipts of one share of the startups, locked until the transaction ends; none before an older one of its startup that waits.
SELECT o.seq, o.tenant, o.event, o.startup_id, o.revision, o.created_at, o.attempts,
    CASE WHEN s.pod_uid IS NULL THEN o.body
        ELSE o.body || jsonb_build_object('pod', jsonb_build_object('uid', s.pod_uid, 'name', s.pod_name, 'node', s.pod_node))
    END AS body
FROM metagate.outbox AS o
LEFT JOIN metagate.startup AS s ON s.tenant = o.tenant AND s.startup_id = o.startup_id
WHERE o.not_before <= now()
    AND ($2 = 1 OR coalesce(uuid_hash(o.startup_id) & 2147483647, 0) % $2 = $3)
    AND NOT EXISTS (
        SELECT FROM metagate.outbox AS e
        WHERE e.startup_id = o.startup_id AND e.seq < o.seq AND e.not_before > now()
    )
ORDER BY o.seq
LIMIT $1
FOR UPDATE OF o SKIP LOCKED;

-- name: witness.refused
-- How many dead letters there are.
SELECT count(*) FROM metagate.outbox_refused;

-- name: witness.by_index
-- For this transaction: a look at the newest sessions must not become a scan of all of them, whatever statistics say.
SELECT set_config('enable_seqscan', 'off', true);

-- name: witness.overdue
-- Components with a session whose deadline passed within the last hour without a word, and no later session that reported.
SELECT count(*)
FROM (
    SELECT max(s.opened_at) FILTER (
            WHERE s.status = 'OPEN' AND s.deadline_at < now() AND s.deadline_at > now() - interval '1 hour'
        ) AS overdue,
        max(s.opened_at) FILTER (WHERE s.status <> 'OPEN') AS reported
    FROM metagate.tenant AS t
    CROSS JOIN LATERAL (
        SELECT n.principal_key, n.component_key, n.status, n.opened_at, n.deadline_at
        FROM metagate.startup AS n
        WHERE n.tenant = t.tenant
        ORDER BY n.tenant DESC, n.startup_id DESC
        LIMIT $1
    ) AS s
    WHERE t.retired_at IS NULL
    GROUP BY t.tenant, s.principal_key, s.component_key
) AS c
WHERE c.overdue IS NOT NULL AND (c.reported IS NULL OR c.reported <= c.overdue);
