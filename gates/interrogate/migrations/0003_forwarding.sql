-- What became of the targets of a decision (IG-09), and what may be forgotten.

CREATE FUNCTION interrogate.forwards(tenants uuid[], receipt_ids text[]) RETURNS TABLE (
    ordinal integer, target text, state text, status integer, reason text, answer text, escalation_receipt_id text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT i.ord::integer, f.target, f.state, f.status, f.reason, f.answer, f.escalation_receipt_id
    FROM unnest(tenants, receipt_ids) WITH ORDINALITY AS i(tenant, receipt_id, ord)
    CROSS JOIN LATERAL (SELECT x.* FROM interrogate.forward AS x
                        WHERE x.receipt_id = i.receipt_id AND x.tenant = i.tenant ORDER BY x.target OFFSET 0) AS f;
END
$$;
COMMENT ON FUNCTION interrogate.forwards IS 'The targets of decisions and what became of them. None: nothing was to be forwarded, or it was purged.';

-- A row for each target. `escalations`: the escalate receipt of its decision, where the target failed; the first one of a decision is
-- emitted, in this commit, and named by all its failed targets.
CREATE FUNCTION interrogate.settle_forwards(
    tenants uuid[], receipt_ids text[], targets text[], states text[], statuses integer[], reasons text[], answers text[],
    escalation_ids text[], escalations text[]
) RETURNS TABLE (
    ordinal integer, outcome text, state text, status integer, reason text, answer text, escalation_receipt_id text, detail text
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    pending boolean[];
    named_ids text[];
    emitting integer[];
    refusals text[];
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT lock_key(tenant || 'F' || receipt_id) AS key FROM unnest(tenants, receipt_ids) AS i(tenant, receipt_id)
          ORDER BY key) AS wanted;

    SELECT array_agg(coalesce(f.state = 'pending', false) ORDER BY i.ord),
           array_agg(escalated.id ORDER BY i.ord)
    INTO pending, named_ids
    FROM unnest(tenants, receipt_ids, targets, states) WITH ORDINALITY AS i(tenant, receipt_id, target, state, ord)
    LEFT JOIN LATERAL (SELECT x.state FROM forward AS x
                       WHERE x.receipt_id = i.receipt_id AND x.target = i.target AND x.tenant = i.tenant LIMIT 1) AS f ON true
    LEFT JOIN LATERAL (SELECT x.escalation_receipt_id AS id FROM forward AS x
                       WHERE x.receipt_id = i.receipt_id AND x.tenant = i.tenant AND x.state = 'failed' LIMIT 1) AS escalated ON true;

    -- Which escalate receipts to emit: one for each decision that had none, of the first of its targets that fails now.
    SELECT array_agg(o) INTO emitting
    FROM (SELECT DISTINCT ON (tenants[o], receipt_ids[o]) o::integer FROM unnest(pending) WITH ORDINALITY AS u(is_pending, o)
          WHERE is_pending AND states[o] = 'failed' AND named_ids[o] IS NULL ORDER BY tenants[o], receipt_ids[o], o) AS first;
    IF emitting IS NOT NULL THEN
        SELECT array_agg(CASE WHEN e.outcome NOT IN ('STORED', 'REPLAYED') THEN e.outcome END ORDER BY e.ordinal) INTO refusals
        FROM memorygate.emit_interrogate(ARRAY(SELECT escalations[o] FROM unnest(emitting) AS o), NULL) AS e;
        SELECT array_agg(coalesce(u.named, CASE WHEN refusals[array_position(emitting, e.o)] IS NULL THEN escalation_ids[e.o] END) ORDER BY u.ord)
        INTO named_ids
        FROM unnest(named_ids) WITH ORDINALITY AS u(named, ord)
        LEFT JOIN unnest(emitting) AS e(o) ON tenants[e.o] = tenants[u.ord] AND receipt_ids[e.o] = receipt_ids[u.ord];
    END IF;

    -- Without its escalate receipt nothing failed (D-57): the row stays pending, and the sweep tries again.
    UPDATE forward AS f SET
        state = i.state, status = i.status, reason = i.reason, answer = i.answer, settled_at = clock_timestamp(),
        escalation_receipt_id = CASE WHEN i.state = 'failed' THEN i.named END
    FROM unnest(tenants, receipt_ids, targets, states, statuses, reasons, answers, named_ids)
         AS i(tenant, receipt_id, target, state, status, reason, answer, named)
    WHERE f.receipt_id = i.receipt_id AND f.target = i.target AND f.tenant = i.tenant AND f.state = 'pending'
      AND (i.state = 'delivered' OR i.named IS NOT NULL);

    RETURN QUERY
    SELECT i.ord::integer,
           CASE WHEN f.target IS NULL THEN 'UNKNOWN' WHEN NOT pending[i.ord] THEN 'SETTLED_BEFORE'
                WHEN f.state = 'pending' THEN 'REFUSED' ELSE 'SETTLED' END,
           f.state, f.status, f.reason, f.answer, f.escalation_receipt_id,
           (SELECT refusals[p] FROM unnest(emitting) WITH ORDINALITY AS e(o, p)
            WHERE tenants[e.o] = i.tenant AND receipt_ids[e.o] = i.receipt_id AND f.state = 'pending')
    FROM unnest(tenants, receipt_ids, targets) WITH ORDINALITY AS i(tenant, receipt_id, target, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM forward AS x
                       WHERE x.receipt_id = i.receipt_id AND x.target = i.target AND x.tenant = i.tenant LIMIT 1) AS f ON true;
END
$$;
COMMENT ON FUNCTION interrogate.settle_forwards IS 'What became of targets, with the one escalate receipt of a decision in the same commit.';

CREATE FUNCTION interrogate.stale_forwards(older_than interval, most integer) RETURNS TABLE (
    tenant uuid, receipt_id text, targets text[], escalate_to text, stored_at timestamptz, body text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT f.tenant, f.receipt_id, f.targets, f.escalate_to, r.stored_at, r.body
    FROM (SELECT x.tenant, x.receipt_id, array_agg(x.target ORDER BY x.target) AS targets, min(x.escalate_to) AS escalate_to
          FROM (SELECT y.* FROM forward AS y WHERE y.state = 'pending' AND y.created_at < clock_timestamp() - older_than
                ORDER BY y.created_at LIMIT most) AS x
          GROUP BY x.tenant, x.receipt_id) AS f
    CROSS JOIN LATERAL memorygate.receipt(f.tenant, f.receipt_id) AS r;
END
$$;
COMMENT ON FUNCTION interrogate.stale_forwards IS 'Decisions with targets that nobody settled in time: their process died. With the receipt of each.';

-- Each table by itself, the oldest first, without waiting for anybody.
CREATE FUNCTION interrogate.purge(most integer) RETURNS TABLE (requests bigint, forwards bigint, rates bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    WITH old_requests AS (
        DELETE FROM request WHERE ctid IN (
            SELECT x.ctid FROM request AS x WHERE x.stored_at < clock_timestamp() - interval '24 hours'
            ORDER BY x.stored_at LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), old_forwards AS (
        DELETE FROM forward WHERE ctid IN (
            SELECT x.ctid FROM forward AS x WHERE x.state <> 'pending' AND x.settled_at < clock_timestamp() - interval '72 hours'
            ORDER BY x.settled_at LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), full_rates AS (
        -- A bucket whose time has passed is full, which is what no row means.
        DELETE FROM rate WHERE ctid IN (
            SELECT x.ctid FROM rate AS x WHERE x.tat < microseconds(clock_timestamp()) LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM old_requests), (SELECT count(*) FROM old_forwards), (SELECT count(*) FROM full_rates);
END
$$;
COMMENT ON FUNCTION interrogate.purge IS 'Forgets keys after 24 hours, settled forwards after 72, full buckets. At most so many of each at once.';

CREATE FUNCTION interrogate.decision(of_tenant uuid, wanted text) RETURNS TABLE (receipt_id text, stored_at timestamptz, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT r.receipt_id, r.stored_at, r.body FROM memorygate.receipt($1, $2) AS r
    WHERE (r.body::json ->> 'emitter', r.body::json ->> 'kind') = ('svc:interrogate', 'admission')
      AND r.body::json ->> 'phase' IN ('accepted', 'rejected');
END
$$;
COMMENT ON FUNCTION interrogate.decision IS 'The receipt of a decision of this gate; of any other receipt nothing.';

CREATE FUNCTION interrogate.ruleset(wanted text) RETURNS text
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
AS $$ SELECT r.body FROM interrogate.ruleset AS r WHERE r.policy_hash = $1 $$;
COMMENT ON FUNCTION interrogate.ruleset IS 'The policy of a decision, as it was then.';

CREATE FUNCTION interrogate.pending_forwards(of_tenant uuid) RETURNS TABLE (pending bigint, oldest timestamptz)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
BEGIN
    RETURN QUERY
    SELECT count(*), min(b.created_at)
    FROM (SELECT x.created_at, x.tenant FROM forward AS x WHERE x.state = 'pending' ORDER BY x.created_at LIMIT 10000) AS b
    WHERE of_tenant IS NULL OR b.tenant = of_tenant;
END
$$;
COMMENT ON FUNCTION interrogate.pending_forwards IS 'How many targets are not settled, of one tenant or of all (NULL), and since when; the oldest 10,000 of all are looked at.';
