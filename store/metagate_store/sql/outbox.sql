-- name: outbox.share
-- Whether this transaction has a share of the startups to itself; it waits for nobody, and for the disk neither.
-- What a crash of the server brings back into the outbox is sent again, under the same ids.
SELECT pg_try_advisory_xact_lock(1835363705, $1::integer) FROM set_config('synchronous_commit', 'off', true);

-- name: outbox.batch
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

-- name: outbox.delivered
-- What the ledger has.
DELETE FROM metagate.outbox WHERE seq = ANY ($1::bigint[]);

-- name: outbox.refuse
-- What the ledger will never take: out of the way, kept for whoever looks into it.
WITH taken AS (
    DELETE FROM metagate.outbox AS o WHERE o.seq = $1
    RETURNING o.seq, o.tenant, o.event, o.startup_id, o.revision, o.body, o.created_at
)
INSERT INTO metagate.outbox_refused (seq, tenant, event, startup_id, revision, body, created_at, code, detail)
SELECT t.seq, t.tenant, t.event, t.startup_id, t.revision, t.body, t.created_at, $2, left($3, 500) FROM taken AS t;

-- name: outbox.refused
-- How many dead letters there are.
SELECT count(*) FROM metagate.outbox_refused;

-- name: outbox.backlog
-- How much waits, and for how long the oldest has.
SELECT s.mirror_waiting, s.mirror_lag_seconds FROM metagate.state() AS s;
