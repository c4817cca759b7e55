-- The tree of a root without an index entry for every receipt.
--
-- Most receipts belong to the root task itself, and `receipt_of_task` finds those. Only what hangs below a root needs an index of
-- its own. Within one root time and position grow together, because a root's receipts are stored one after another under its
-- lock and the ledger's clock never goes back; so two ranges, each in the order of time, merge into the order of the chain.

DROP INDEX memorygate.receipt_of_root;
CREATE INDEX receipt_below_root ON memorygate.receipt (root_task_id, tenant, stored_at) WHERE task_id <> root_task_id;

-- No release has asked for it.
DROP FUNCTION memorygate.root_page;

CREATE FUNCTION memorygate.tree_page(tenant uuid, task_id text, after_at timestamptz, most integer, bytes bigint)
RETURNS TABLE (
    receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint, digest bytea, chain bytea, signature text, body text, more boolean
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    root text := (SELECT t.root_task_id FROM task AS t WHERE t.task_id = $2 AND t.tenant = $1 LIMIT 1);
BEGIN
    RETURN QUERY
    SELECT p.receipt_id, p.stored_at, p.root_task_id, p.position, p.digest, p.chain, p.signature, p.body, p.found > count(*) OVER ()
    FROM (
        SELECT q.*, row_number() OVER w AS place, sum(octet_length(q.body)) OVER w AS so_far, count(*) OVER () AS found
        FROM (
            (SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
             FROM receipt AS r
             WHERE r.task_id = root AND r.tenant = $1 AND r.stored_at > $3
             ORDER BY r.stored_at LIMIT $4 + 1)
            UNION ALL
            (SELECT r.receipt_id, r.stored_at, r.root_task_id, r.position, r.digest, r.chain, r.signature, r.body
             FROM receipt AS r
             WHERE r.root_task_id = root AND r.task_id <> r.root_task_id AND r.tenant = $1 AND r.stored_at > $3
             ORDER BY r.stored_at LIMIT $4 + 1)
            ORDER BY stored_at LIMIT $4 + 1
        ) AS q
        WINDOW w AS (ORDER BY q.stored_at)
    ) AS p
    WHERE p.place = 1 OR (p.place <= $4 AND p.so_far <= $5)
    ORDER BY p.stored_at;
END
$$;
COMMENT ON FUNCTION memorygate.tree_page IS 'Receipts of the whole tree in which a task hangs, in the order of its chain.';
