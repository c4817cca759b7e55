-- What ends a lease: returning, escalating, releasing and revoking it, and its time. All of it is `settle`.
--
-- Locks: the names of obligations that end, sorted; all rows, theirs and those of tasks that wait for them, by (task_id, tenant); then the
-- ledger's. Under the name nobody parks a task that needs the obligation, so none is left asleep.

CREATE FUNCTION asyncgate.lock_tasks(tenants uuid[], task_ids text[], obligation_ids text[], ending boolean[]) RETURNS void
LANGUAGE plpgsql SET search_path = asyncgate, pg_catalog, pg_temp AS $$
DECLARE
    row_tenants uuid[];
    row_tasks text[];
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT lock_key(i.tenant || 'n' || i.obligation_id) AS key
          FROM unnest(tenants, obligation_ids, ending) AS i(tenant, obligation_id, ends)
          WHERE i.ends AND i.obligation_id IS NOT NULL ORDER BY key) AS wanted;
    SELECT array_agg(r.task_id ORDER BY r.task_id COLLATE "C", r.tenant), array_agg(r.tenant ORDER BY r.task_id COLLATE "C", r.tenant)
    INTO row_tasks, row_tenants
    FROM (SELECT i.tenant, i.task_id FROM unnest(tenants, task_ids) AS i(tenant, task_id) WHERE i.task_id IS NOT NULL
          UNION
          SELECT i.tenant, n.task_id FROM unnest(tenants, obligation_ids, ending) AS i(tenant, obligation_id, ends)
          CROSS JOIN LATERAL (SELECT x.task_id FROM need AS x
                              WHERE x.obligation_id = i.obligation_id AND x.tenant = i.tenant OFFSET 0) AS n
          WHERE i.ends) AS r;
    FOR place IN 1..coalesce(cardinality(row_tasks), 0) LOOP
        PERFORM FROM task AS x WHERE x.task_id = row_tasks[place] AND x.tenant = row_tenants[place] FOR UPDATE;
    END LOOP;
END
$$;

-- Obligations that were closed, each by a receipt: whoever waits for them waits for one less; at none it joins the end of its line.
-- The rows of those who wait are locked.
CREATE FUNCTION asyncgate.wake(tenants uuid[], obligation_ids text[], receipt_ids text[]) RETURNS integer
LANGUAGE plpgsql SET search_path = asyncgate, pg_catalog, pg_temp AS $$
#variable_conflict use_column
DECLARE
    met integer;
BEGIN
    WITH gone AS (
        DELETE FROM need AS n USING unnest(tenants, obligation_ids, receipt_ids) AS i(tenant, obligation_id, receipt_id)
        WHERE n.obligation_id = i.obligation_id AND n.tenant = i.tenant
        RETURNING n.tenant, n.task_id, i.receipt_id
    ), counted AS (
        SELECT tenant, task_id, count(*)::integer AS number, array_agg(receipt_id ORDER BY receipt_id) AS receipts FROM gone GROUP BY 1, 2
    ), woken AS (
        UPDATE task AS t SET
            waits = t.waits - c.number, evidence = t.evidence || c.receipts,
            available_at = CASE WHEN t.waits = c.number THEN greatest(clock_timestamp(), t.not_before) ELSE t.available_at END,
            seq = CASE WHEN t.waits = c.number THEN nextval('asyncgate.line') ELSE t.seq END
        FROM counted AS c WHERE t.task_id = c.task_id AND t.tenant = c.tenant
    )
    SELECT coalesce(sum(number), 0) INTO met FROM counted;
    RETURN met;
END
$$;

-- One row for each task, each task once, all locked by `lock_tasks`. `first_forms` and, where there is a second receipt, `second_forms`;
-- `hows`: how the task leaves, NULL: it stays and joins the end of its line after `delays`. `claim_digests`: of what the holder sent.
CREATE FUNCTION asyncgate.settle(
    prefix text, tenants uuid[], task_ids text[], hows text[], first_forms text[], second_forms text[], claim_digests bytea[],
    delays interval[], revokers text[], reasons text[]
) RETURNS TABLE (ordinal integer, refusal text, receipt_id text, stored_at timestamptz)
LANGUAGE plpgsql SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz := clock_timestamp();
    body_rows integer[];
    bodies text[];
    refusals text[];
    times timestamptz[];
    obligations text[];
BEGIN
    IF coalesce(cardinality(tenants), 0) = 0 THEN
        RETURN;
    END IF;
    -- Two ids for each row.
    SELECT array_agg(b.body ORDER BY i.ord, b.part), array_agg(i.ord::integer ORDER BY i.ord, b.part) INTO bodies, body_rows
    FROM unnest(tenants, task_ids, first_forms, second_forms, revokers, reasons)
         WITH ORDINALITY AS i(tenant, task_id, first_form, second_form, revoker, reason, ord)
    CROSS JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS t
    CROSS JOIN LATERAL (
        SELECT 1 AS part, put(put(put(put(put(replace(
            filled(i.first_form, ulid(prefix, i.ord * 2 - 2), t.tenant, t.task_id, t.obligation_id, t.principal_ai, coalesce(t.issued_by, t.cause)),
            chr(30) || 'A', t.number::text), 'H', t.holder), 'L', t.lease_id), 'Z', rfc3339(at)), 'B', i.revoker), 'R', i.reason) AS body
        UNION ALL
        SELECT 2, put(put(
            filled(i.second_form, ulid(prefix, i.ord * 2 - 1), t.tenant, t.task_id, t.obligation_id, t.principal_ai, ulid(prefix, i.ord * 2 - 2)),
            'Z', rfc3339(at)), 'X', coalesce(t.escalation_to[1], t.principal_ai))
        WHERE i.second_form IS NOT NULL) AS b;

    SELECT array_agg(a.refusal ORDER BY a.row), array_agg(a.at ORDER BY a.row) INTO refusals, times
    FROM (SELECT body_rows[e.ordinal] AS row, max(e.outcome) FILTER (WHERE e.outcome NOT IN ('STORED', 'GROUP_REFUSED')) AS refusal,
                 max(e.stored_at) AS at
          FROM memorygate.emit_asyncgate(bodies, body_rows) AS e GROUP BY 1) AS a;

    UPDATE task AS t SET
        available_at = at + delays[i.ord], seq = nextval('asyncgate.line'), cause = ulid(prefix, i.ord * 2 - 2),
        lease_id = NULL, holder = NULL, issued_by = NULL, issued_at = NULL, lease_until = NULL, latest_expiry = NULL, renewals_left = NULL
    FROM unnest(tenants, task_ids, hows, refusals) WITH ORDINALITY AS i(tenant, task_id, how, refusal, ord)
    WHERE i.how IS NULL AND i.refusal IS NULL AND t.task_id = i.task_id AND t.tenant = i.tenant;

    IF array_remove(hows, NULL) <> '{}' THEN
        -- What the ended tasks waited for themselves; then they; then what waited for them.
        DELETE FROM need AS n USING unnest(tenants, task_ids, hows, refusals) AS i(tenant, task_id, how, refusal)
        WHERE i.how IS NOT NULL AND i.refusal IS NULL AND n.task_id = i.task_id AND n.tenant = i.tenant;
        WITH gone AS (
            DELETE FROM task AS t USING unnest(tenants, task_ids, hows, refusals) WITH ORDINALITY AS i(tenant, task_id, how, refusal, ord)
            WHERE i.how IS NOT NULL AND i.refusal IS NULL AND t.task_id = i.task_id AND t.tenant = i.tenant
            RETURNING t.*, i.ord
        ), kept AS (
            INSERT INTO archive (tenant, task_id, obligation_id, principal_ai, capability, minter, depth, digest, accepted_by, accepted_at,
                                 how, ended_by, ended_at, lease_id, holder, claim_digest)
            SELECT tenant, task_id, obligation_id, principal_ai, capability, minter, depth, digest, accepted_by, accepted_at, hows[ord],
                   ulid(prefix, ord * 2 - CASE WHEN second_forms[ord] IS NULL THEN 2 ELSE 1 END), times[ord],
                   CASE WHEN claim_digests[ord] IS NOT NULL THEN lease_id END, CASE WHEN claim_digests[ord] IS NOT NULL THEN holder END,
                   claim_digests[ord]
            FROM gone
        )
        SELECT array_agg(g.obligation_id ORDER BY i.ord) INTO obligations
        FROM generate_subscripts(tenants, 1) AS i(ord) LEFT JOIN gone AS g ON g.ord = i.ord;
        PERFORM wake(
            ARRAY(SELECT tenants[o] FROM unnest(hows) WITH ORDINALITY AS u(how, o) WHERE how <> 'escalated' ORDER BY o),
            ARRAY(SELECT obligations[o] FROM unnest(hows) WITH ORDINALITY AS u(how, o) WHERE how <> 'escalated' ORDER BY o),
            ARRAY(SELECT ulid(prefix, o * 2 - CASE WHEN second_forms[o] IS NULL THEN 2 ELSE 1 END)
                  FROM unnest(hows) WITH ORDINALITY AS u(how, o) WHERE how <> 'escalated' ORDER BY o));
        UPDATE need AS n SET elsewhere = true
        FROM unnest(tenants, obligations, hows) AS i(tenant, obligation_id, how)
        WHERE i.how = 'escalated' AND n.obligation_id = i.obligation_id AND n.tenant = i.tenant AND NOT n.elsewhere;
    END IF;

    RETURN QUERY
    SELECT i.ord::integer, i.refusal, ulid(prefix, i.ord * 2 - CASE WHEN second_forms[i.ord] IS NULL THEN 2 ELSE 1 END), times[i.ord]
    FROM unnest(refusals) WITH ORDINALITY AS i(refusal, ord);
END
$$;
COMMENT ON FUNCTION asyncgate.settle IS 'The receipts and the rows of tasks whose leases end, and of tasks that end. No role may call it: it believes what it is told.';

-- Where a task goes that can be leased again: NULL, or `escalated` when this was its last lease (AG-11).
CREATE FUNCTION asyncgate.after_lease(number integer, max_leases integer) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN CASE WHEN number >= max_leases THEN 'escalated' END;

-- Whether a row's lease is live, its holder's; or over its time, which the first to look writes down (AG-12).
CREATE FUNCTION asyncgate.end_leases(
    prefix text, tenants uuid[], lease_ids text[], holders text[], verb text, forms text[], claim_digests bytea[], targets text[],
    delays interval[], reasons text[], expired_form text, poisoned_form text
) RETURNS TABLE (
    ordinal integer, outcome text, detail text, task_id text, obligation_id text, receipt_id text, stored_at timestamptz, available_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    tasks text[];
    obligations text[];
    last_lease boolean[];
    verdicts text[];
    chosen integer[];
    hows text[];
    settled_refusals text[];
    settled_receipts text[];
    settled_times timestamptz[];
BEGIN
    SELECT array_agg(t.task_id ORDER BY i.ord), array_agg(t.obligation_id ORDER BY i.ord), array_agg(t.number >= t.max_leases ORDER BY i.ord)
    INTO tasks, obligations, last_lease
    FROM unnest(tenants, lease_ids) WITH ORDINALITY AS i(tenant, lease_id, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.lease_id = i.lease_id AND x.tenant = i.tenant LIMIT 1) AS t ON true;
    PERFORM lock_tasks(tenants, tasks, obligations, ARRAY(SELECT verb IN ('complete', 'escalate') OR is_last
                                                          FROM unnest(last_lease) WITH ORDINALITY AS u(is_last, o) ORDER BY o));
    at := clock_timestamp();

    -- LIVE: this item ends the lease. OVERDUE: its time is over, and this item writes it down.
    SELECT array_agg(CASE
               WHEN past.lease_id IS NOT NULL AND past.claim_digest = i.claim_digest THEN 'REPLAYED'
               WHEN t.lease_id IS NULL THEN 'LEASE_LOST'
               WHEN i.place > 1 THEN 'AGAIN'
               WHEN t.lease_until <= at THEN 'OVERDUE'
               WHEN verb = 'escalate' AND i.target <> ALL (t.escalation_to) THEN 'ESCALATION_NOT_PERMITTED'
               ELSE 'LIVE' END ORDER BY i.ord)
    INTO verdicts
    FROM (SELECT u.*, row_number() OVER (PARTITION BY u.tenant, u.lease_id, u.holder ORDER BY u.ord) AS place
          FROM unnest(tenants, lease_ids, holders, claim_digests, targets)
               WITH ORDINALITY AS u(tenant, lease_id, holder, claim_digest, target, ord)) AS i
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x
                       WHERE x.lease_id = i.lease_id AND x.tenant = i.tenant AND x.holder = i.holder LIMIT 1) AS t ON true
    LEFT JOIN LATERAL (SELECT x.lease_id, x.claim_digest FROM archive AS x
                       WHERE x.lease_id = i.lease_id AND x.tenant = i.tenant AND x.holder = i.holder LIMIT 1) AS past ON true;
    SELECT array_agg(o::integer ORDER BY o) INTO chosen FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, o) WHERE verdict IN ('LIVE', 'OVERDUE');

    IF chosen IS NOT NULL THEN
        hows := ARRAY(SELECT CASE WHEN verdicts[o] = 'OVERDUE' OR verb = 'release' THEN CASE WHEN last_lease[o] THEN 'escalated' END
                                  WHEN verb = 'complete' THEN 'returned' ELSE 'escalated' END FROM unnest(chosen) WITH ORDINALITY AS c(o, p) ORDER BY p);
        SELECT array_agg(s.refusal ORDER BY s.ordinal), array_agg(s.receipt_id ORDER BY s.ordinal), array_agg(s.stored_at ORDER BY s.ordinal)
        INTO settled_refusals, settled_receipts, settled_times
        FROM settle(
            prefix,
            ARRAY(SELECT tenants[o] FROM unnest(chosen) AS o), ARRAY(SELECT tasks[o] FROM unnest(chosen) AS o), hows,
            ARRAY(SELECT CASE WHEN verdicts[o] = 'OVERDUE' THEN expired_form ELSE forms[o] END FROM unnest(chosen) AS o),
            ARRAY(SELECT CASE WHEN (verdicts[o] = 'OVERDUE' OR verb = 'release') AND last_lease[o] THEN poisoned_form END FROM unnest(chosen) AS o),
            ARRAY(SELECT CASE WHEN verdicts[o] = 'LIVE' THEN claim_digests[o] END FROM unnest(chosen) AS o),
            ARRAY(SELECT CASE WHEN verdicts[o] = 'LIVE' THEN delays[o] ELSE interval '0' END FROM unnest(chosen) AS o),
            ARRAY(SELECT NULL::text FROM unnest(chosen) AS o), ARRAY(SELECT reasons[o] FROM unnest(chosen) AS o)) AS s;
    END IF;

    RETURN QUERY
    SELECT i.ord::integer,
           CASE WHEN i.verdict = 'LIVE' AND settled_refusals[place.of] IS NOT NULL THEN 'REFUSED'
                WHEN i.verdict = 'LIVE' THEN 'ENDED'
                WHEN i.verdict = 'OVERDUE' THEN 'LEASE_LOST'
                WHEN i.verdict = 'AGAIN' THEN CASE WHEN past.claim_digest = claim_digests[i.ord] THEN 'REPLAYED' ELSE 'LEASE_LOST' END
                ELSE i.verdict END,
           CASE WHEN i.verdict = 'LIVE' THEN settled_refusals[place.of] END,
           coalesce(past.task_id, tasks[i.ord]), coalesce(past.obligation_id, obligations[i.ord]),
           coalesce(past.ended_by, settled_receipts[place.of]), coalesce(past.ended_at, settled_times[place.of]), free.available_at
    FROM unnest(verdicts) WITH ORDINALITY AS i(verdict, ord)
    CROSS JOIN LATERAL (SELECT array_position(chosen, i.ord::integer) AS of) AS place
    LEFT JOIN LATERAL (SELECT x.* FROM archive AS x
                       WHERE x.lease_id = lease_ids[i.ord] AND x.tenant = tenants[i.ord] AND x.holder = holders[i.ord] LIMIT 1) AS past ON true
    LEFT JOIN LATERAL (SELECT x.available_at FROM task AS x
                       WHERE x.task_id = tasks[i.ord] AND x.tenant = tenants[i.ord] AND x.lease_until IS NULL LIMIT 1) AS free ON true;
END
$$;
COMMENT ON FUNCTION asyncgate.end_leases IS 'Ends live leases by `verb`: complete, escalate (the task ends) or release (it can be leased again). One row for each.';

CREATE FUNCTION asyncgate.renew(prefix text, tenants uuid[], lease_ids text[], holders text[], ttls integer[], expired_form text)
RETURNS TABLE (ordinal integer, outcome text, detail text, expires_at timestamptz, expires_in_ms integer, renewals_left integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    row_tasks text[];
    row_tenants uuid[];
    verdicts text[];
    overdue_tasks text[];
    overdue_tenants uuid[];
BEGIN
    SELECT array_agg(t.task_id ORDER BY t.task_id COLLATE "C", t.tenant), array_agg(t.tenant ORDER BY t.task_id COLLATE "C", t.tenant)
    INTO row_tasks, row_tenants
    FROM (SELECT DISTINCT x.task_id, x.tenant FROM unnest(tenants, lease_ids) AS i(tenant, lease_id)
          CROSS JOIN LATERAL (SELECT y.task_id, y.tenant FROM task AS y WHERE y.lease_id = i.lease_id AND y.tenant = i.tenant LIMIT 1) AS x) AS t;
    -- Weaker than what ends a lease: who holds leases for another gate does not wait for their renewal, nor it for them.
    FOR place IN 1..coalesce(cardinality(row_tasks), 0) LOOP
        PERFORM FROM task AS x WHERE x.task_id = row_tasks[place] AND x.tenant = row_tenants[place] FOR NO KEY UPDATE;
    END LOOP;
    at := clock_timestamp();

    SELECT array_agg(CASE WHEN t.lease_id IS NULL THEN 'LEASE_LOST' WHEN t.lease_until <= at THEN 'OVERDUE'
                          WHEN t.renewals_left < i.place OR t.lease_until >= t.latest_expiry THEN 'LEASE_EXHAUSTED' ELSE 'RENEWED' END ORDER BY i.ord)
    INTO verdicts
    FROM (SELECT u.*, row_number() OVER (PARTITION BY u.tenant, u.lease_id, u.holder ORDER BY u.ord) AS place
          FROM unnest(tenants, lease_ids, holders) WITH ORDINALITY AS u(tenant, lease_id, holder, ord)) AS i
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x
                       WHERE x.lease_id = i.lease_id AND x.tenant = i.tenant AND x.holder = i.holder LIMIT 1) AS t ON true;

    UPDATE task AS t SET
        renewals_left = t.renewals_left - i.times,
        lease_until = least(greatest(at + least(coalesce(i.ttl, t.ttl_seconds), t.max_ttl_seconds) * interval '1 second', t.lease_until), t.latest_expiry)
    FROM (SELECT tenants[o] AS tenant, lease_ids[o] AS lease_id, count(*)::integer AS times, max(ttls[o]) AS ttl
          FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, o) WHERE verdict = 'RENEWED' GROUP BY 1, 2) AS i
    WHERE t.lease_id = i.lease_id AND t.tenant = i.tenant;

    IF 'OVERDUE' = ANY (verdicts) THEN
        -- The last lease of a task is left to the pass, which holds the names that an end needs; and so is a row that another gate holds.
        SELECT array_agg(x.task_id), array_agg(x.tenant) INTO overdue_tasks, overdue_tenants
        FROM (SELECT DISTINCT tenants[o] AS tenant, lease_ids[o] AS lease_id FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, o)
              WHERE verdict = 'OVERDUE') AS i
        CROSS JOIN LATERAL (SELECT y.task_id, y.tenant FROM task AS y WHERE y.lease_id = i.lease_id AND y.tenant = i.tenant
                              AND y.number < y.max_leases LIMIT 1 FOR UPDATE SKIP LOCKED) AS x;
        PERFORM settle(prefix, overdue_tenants, overdue_tasks, array_fill(NULL::text, ARRAY[n]), array_fill(expired_form, ARRAY[n]),
                       array_fill(NULL::text, ARRAY[n]), array_fill(NULL::bytea, ARRAY[n]), array_fill(interval '0', ARRAY[n]),
                       array_fill(NULL::text, ARRAY[n]), array_fill(NULL::text, ARRAY[n]))
        FROM (SELECT cardinality(overdue_tasks) AS n) AS size WHERE n > 0;
    END IF;

    RETURN QUERY
    SELECT i.ord::integer, CASE i.verdict WHEN 'OVERDUE' THEN 'LEASE_LOST' ELSE i.verdict END, NULL::text, t.lease_until,
           (extract(epoch FROM t.lease_until - clock_timestamp()) * 1000)::integer, t.renewals_left
    FROM unnest(verdicts, tenants, lease_ids) WITH ORDINALITY AS i(verdict, tenant, lease_id, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x
                       WHERE i.verdict = 'RENEWED' AND x.lease_id = i.lease_id AND x.tenant = i.tenant LIMIT 1) AS t ON true;
END
$$;
COMMENT ON FUNCTION asyncgate.renew IS 'Moves the end of live leases. Leaves no receipt, but that of a lease found over its time.';
