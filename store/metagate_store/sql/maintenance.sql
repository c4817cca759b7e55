-- name: maintenance.partitions
-- Make the partitions of the coming days.
SELECT metagate.prepare_partitions($1);

-- name: maintenance.purge
-- Remove what is older than the retention.
SELECT p.startups, p.partitions, p.keys FROM metagate.purge($1, $2, $3) AS p;

-- name: maintenance.purge_packets
-- Remove packets that nothing refers to.
SELECT metagate.purge_packets($1, $2);

-- name: maintenance.by_index
-- For this transaction: a look at the newest sessions must not become a scan of all of them, whatever statistics say.
SELECT set_config('enable_seqscan', 'off', true);

-- name: maintenance.overdue
-- Components with a session whose deadline passed within the last hour without a word, and no later session that reported.
SELECT count(*)
FROM (
    SELECT max(s.opened_at) FILTER (
            WHERE s.status = 'OPEN' AND s.deadline_at < now() AND s.deadline_at > now() - interval '1 hour'
        ) AS overdue,
        max(s.opened_at) FILTER (WHERE s.status <> 'OPEN') AS reported
    FROM (
        SELECT n.tenant, least($1::bigint, greatest($2::bigint / count(*) OVER (), 1)) AS share
        FROM (
            SELECT p.tenant FROM metagate.tenant AS p
            WHERE p.retired_at IS NULL ORDER BY p.created_at DESC, p.tenant LIMIT $2::bigint
        ) AS n
    ) AS t
    CROSS JOIN LATERAL (
        SELECT n.principal_key, n.component_key, n.status, n.opened_at, n.deadline_at
        FROM metagate.startup AS n
        WHERE n.tenant = t.tenant
        ORDER BY n.tenant DESC, n.startup_id DESC
        LIMIT t.share
    ) AS s
    GROUP BY t.tenant, s.principal_key, s.component_key
) AS c
WHERE c.overdue IS NOT NULL AND (c.reported IS NULL OR c.reported <= c.overdue);
