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

-- name: witness.backlog
-- How much waits, and for how long the oldest has.
SELECT s.mirror_waiting, s.mirror_lag_seconds FROM metagate.state() AS s;
