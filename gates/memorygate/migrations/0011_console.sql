-- What the ledger's console asks beside what the API asks: the newest trees with the heads of their chains, admissions with their
-- reasons, whether a principal is named in a tree, and all of what the last `memorygate verify` found.
--
-- Lists go backwards from a place. Each looks at no more than `scan` rows, whatever it leaves out, and its last row says where the
-- next page begins: a tenant with a hundred million receipts is listed as fast as one with a hundred.

-- Only a decision is one entry: what became of it, and every other receipt, costs nothing here.
CREATE INDEX receipt_admission ON memorygate.receipt (tenant, stored_at, receipt_id) WHERE kind = 'admission' AND phase IN ('accepted', 'rejected');

CREATE FUNCTION memorygate.names_principal(body text, principal text) RETURNS boolean
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp
-- The search for the characters spares most receipts the parsing; what it finds in another member does not count.
RETURN strpos(body, trim(BOTH '"' FROM to_json(principal)::text)) > 0
       AND principal IN (body::json ->> 'emitter', body::json ->> 'principal_ai', body::json ->> 'recipient_ai');
COMMENT ON FUNCTION memorygate.names_principal IS 'Whether a receipt is a principal''s: it emitted, owns or was given what the receipt tells.';

CREATE FUNCTION memorygate.tree_names(tenant uuid, task_id text, principal text, most integer) RETURNS boolean
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    root text := (SELECT t.root_task_id FROM task AS t WHERE t.task_id = $2 AND t.tenant = $1 LIMIT 1);
BEGIN
    RETURN EXISTS (
        SELECT FROM (SELECT r.body FROM receipt AS r WHERE r.task_id = root AND r.tenant = $1 ORDER BY r.stored_at LIMIT $4) AS own
        WHERE names_principal(own.body, $3)
    ) OR EXISTS (
        SELECT FROM (SELECT r.body FROM receipt AS r
                     WHERE r.root_task_id = root AND r.task_id <> r.root_task_id AND r.tenant = $1 ORDER BY r.stored_at LIMIT $4) AS below
        WHERE names_principal(below.body, $3)
    );
END
$$;
COMMENT ON FUNCTION memorygate.tree_names IS 'Whether a principal is named in the tree in which a task hangs; `most` receipts of the root and as many below it are looked at.';

CREATE FUNCTION memorygate.newest_trees(
    tenant uuid, principal text, before_written xid8, before_at timestamptz, most integer, scan integer
) RETURNS TABLE (
    root_task_id text, length bigint, head bytea, last_id text, last_task_id text, last_kind text, last_phase text, last_at timestamptz,
    written_by xid8
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    looked integer := 0;
    listed integer := 0;
    r record;
BEGIN
    FOR r IN
        SELECT x.receipt_id, x.stored_at, x.written_by, x.kind, x.phase, x.task_id, x.root_task_id, x.position
        FROM receipt AS x
        WHERE uuid_hash(x.tenant) = uuid_hash($1) AND x.tenant = $1
          AND (x.written_by, x.stored_at) < ($3, $4)
        ORDER BY x.written_by DESC, x.stored_at DESC LIMIT $6
    LOOP
        looked := looked + 1;
        last_at := r.stored_at;
        written_by := r.written_by;
        -- A tree is listed at the last receipt of its chain, so it is in one place of the list.
        SELECT t.length, t.head INTO length, head FROM task AS t WHERE t.task_id = r.root_task_id AND t.tenant = $1 LIMIT 1;
        IF length = r.position AND ($2 IS NULL OR tree_names($1, r.root_task_id, $2, 300)) THEN
            listed := listed + 1;
            root_task_id := r.root_task_id;
            last_id := r.receipt_id;
            last_task_id := r.task_id;
            last_kind := r.kind;
            last_phase := r.phase;
            RETURN NEXT;
            EXIT WHEN listed = $5;
        END IF;
    END LOOP;
    IF listed = $5 OR looked = $6 THEN
        root_task_id := NULL;
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION memorygate.newest_trees IS 'Trees by the time of their last receipt, newest first. A last row without a root says where the next page begins.';

CREATE FUNCTION memorygate.admissions(
    tenant uuid, principal text, reason text, before_at timestamptz, before_id text, most integer, scan integer
) RETURNS TABLE (receipt_id text, stored_at timestamptz, root_task_id text, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
DECLARE
    looked integer := 0;
    listed integer := 0;
    r record;
BEGIN
    FOR r IN
        SELECT x.receipt_id, x.stored_at, x.root_task_id, x.body
        FROM receipt AS x
        WHERE x.tenant = $1 AND x.kind = 'admission' AND x.phase IN ('accepted', 'rejected')
          AND (x.stored_at, x.receipt_id) < ($4, $5 COLLATE "C")
        ORDER BY x.stored_at DESC, x.receipt_id DESC LIMIT $7
    LOOP
        looked := looked + 1;
        receipt_id := r.receipt_id;
        stored_at := r.stored_at;
        IF ($2 IS NULL OR names_principal(r.body, $2))
           AND ($3 IS NULL OR $3 = coalesce(r.body::json -> 'body' ->> 'reason_code', 'ALLOW')) THEN
            listed := listed + 1;
            root_task_id := r.root_task_id;
            body := r.body;
            RETURN NEXT;
            EXIT WHEN listed = $6;
        END IF;
    END LOOP;
    IF listed = $6 OR looked = $7 THEN
        root_task_id := NULL;
        body := NULL;
        RETURN NEXT;
    END IF;
END
$$;
COMMENT ON FUNCTION memorygate.admissions IS 'Decisions of InterroGate, newest first, of one reason (ALLOW: admitted) or all. A last row without a body says where the next page begins.';

CREATE FUNCTION memorygate.admission_reasons(tenant uuid, principal text, scan integer)
RETURNS TABLE (reason text, decisions bigint, latest timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT coalesce(x.body::json -> 'body' ->> 'reason_code', 'ALLOW'), count(*), max(x.stored_at)
    FROM (SELECT r.stored_at, r.body FROM receipt AS r
          WHERE r.tenant = $1 AND r.kind = 'admission' AND r.phase IN ('accepted', 'rejected')
          ORDER BY r.stored_at DESC, r.receipt_id DESC LIMIT $3) AS x
    WHERE $2 IS NULL OR names_principal(x.body, $2)
    GROUP BY 1 ORDER BY 2 DESC, 1;
END
$$;
COMMENT ON FUNCTION memorygate.admission_reasons IS 'How often each reason occurs among the newest `scan` decisions; ALLOW where it was admitted.';

CREATE FUNCTION memorygate.verification(tenant uuid) RETURNS TABLE (
    started_at timestamptz, finished_at timestamptz, held boolean, receipts bigint, roots bigint, rebuilt boolean, place text, reason text
)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
    SELECT v.started_at, v.finished_at, v.bad_reason IS NULL, v.receipts, v.roots, v.rebuilt,
           CASE WHEN v.bad_tenant = $1::text THEN v.bad_place END, CASE WHEN v.bad_tenant = $1::text THEN v.bad_reason END
    FROM verification AS v
$$;
COMMENT ON FUNCTION memorygate.verification IS 'What the last `memorygate verify` found in the whole database; where it did not hold is told to the tenant whose receipt it is.';
