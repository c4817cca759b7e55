-- Calls of tools (GW-13): a row for each that was decided, also for a denial, written with the decision and with the outcome.
--
-- The table is derived from receipts (`interrogate verify --rebuild`) and holds no argument and no result, only their digests.

CREATE TABLE interrogate.call (
    tenant               uuid NOT NULL,
    admission_receipt_id text COLLATE "C" NOT NULL,
    outcome_receipt_id   text COLLATE "C",
    at                   timestamptz NOT NULL,
    principal_key        text COLLATE "C" NOT NULL,
    problemata           text COLLATE "C" NOT NULL,
    tool                 text COLLATE "C" NOT NULL,
    task_id              text COLLATE "C" NOT NULL,
    outcome              text COLLATE "C" NOT NULL,
    reason_code          text COLLATE "C",
    timeout_ms           integer NOT NULL,
    duration_us          bigint,
    arguments_sha256     text COLLATE "C" NOT NULL,
    arguments_bytes      integer NOT NULL,
    result_sha256        text COLLATE "C",
    result_bytes         bigint,
    CHECK ((outcome IN ('denied', 'pending')) = (outcome_receipt_id IS NULL)),
    CHECK ((outcome = 'denied') = (reason_code IS NOT NULL)),
    PRIMARY KEY (admission_receipt_id, tenant)
);
-- One index for each way to ask: of everybody, of a principal, of a tool. All give the newest first.
CREATE INDEX call_time ON interrogate.call (tenant, at, admission_receipt_id);
CREATE INDEX call_principal ON interrogate.call (tenant, principal_key, at, admission_receipt_id);
CREATE INDEX call_tool ON interrogate.call (tenant, problemata, tool, at, admission_receipt_id);
CREATE INDEX call_pending ON interrogate.call (at) WHERE outcome = 'pending';
COMMENT ON TABLE interrogate.call IS 'Derived: each decided call of a tool, and how it ended.';
COMMENT ON COLUMN interrogate.call.at IS 'When the decision was stored.';
COMMENT ON COLUMN interrogate.call.tool IS 'The name of the tool at its MCP server.';
COMMENT ON COLUMN interrogate.call.outcome IS 'denied, pending, success, tool_error, protocol_error, or the reason of its escalation.';

-- As `record`, which does the work, with the rows of the tool calls among the requests in the same commit.
CREATE FUNCTION interrogate.record_calls(
    tenants uuid[], principal_keys text[], receipt_ids text[], digests bytea[], idempotency_keys text[], profiles text[],
    root_ids text[], task_ids text[], lease_ids text[],
    versions bigint[], task_roots text[], tasks_admitted boolean[], spawn_counts integer[], revisions bigint[],
    observed_revisions bigint[],
    policy_hashes text[], rulesets text[], bodies text[],
    admits boolean[], begins boolean[], admitted_roots text[], parent_ids text[], depths integer[], budgets bigint[],
    capability_ids text[], recents text[], spawns boolean[],
    rate_items integer[], rate_keys text[], rate_marks bigint[], rate_tats bigint[],
    forward_items integer[], forward_targets text[], forward_escalations text[],
    call_items integer[], call_problematas text[], call_tools text[], call_task_ids text[], call_outcomes text[], call_reasons text[],
    call_timeouts integer[], call_digests text[], call_sizes integer[]
) RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, body text, detail text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH recorded AS MATERIALIZED (
        SELECT r.* FROM record(
            tenants, principal_keys, receipt_ids, digests, idempotency_keys, profiles, root_ids, task_ids, lease_ids,
            versions, task_roots, tasks_admitted, spawn_counts, revisions, observed_revisions, policy_hashes,
            rulesets, bodies, admits, begins, admitted_roots, parent_ids, depths, budgets, capability_ids,
            recents, spawns, rate_items, rate_keys, rate_marks, rate_tats, forward_items, forward_targets,
            forward_escalations) AS r
    ), calls AS (
        INSERT INTO call (tenant, admission_receipt_id, at, principal_key, problemata, tool, task_id, outcome, reason_code, timeout_ms,
                          arguments_sha256, arguments_bytes)
        SELECT tenants[c.item], r.receipt_id, r.stored_at, principal_keys[c.item], c.problemata, c.tool, c.task_id, c.outcome, c.reason,
               c.timeout_ms, c.sha256, c.size
        FROM unnest(call_items, call_problematas, call_tools, call_task_ids, call_outcomes, call_reasons, call_timeouts, call_digests,
                    call_sizes) AS c(item, problemata, tool, task_id, outcome, reason, timeout_ms, sha256, size)
        -- What was replayed has its row since it was stored.
        JOIN recorded AS r ON r.ordinal = c.item AND r.outcome = 'STORED'
    )
    SELECT * FROM recorded;
END
$$;
COMMENT ON FUNCTION interrogate.record_calls IS 'As record, with a row of `call` for each tool call that is stored.';

-- How calls ended: the receipt of each, and its row, in one commit. A call has one outcome: what was settled before stays and is answered.
CREATE FUNCTION interrogate.settle_calls(
    tenants uuid[], admission_ids text[], receipt_ids text[], bodies text[], outcomes text[], durations bigint[], result_digests text[],
    result_sizes bigint[]
) RETURNS TABLE (ordinal integer, settled text, detail text, row_of_call interrogate.call)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    pending integer[];
    refusals text[];
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT DISTINCT lock_key(tenant || 'C' || admission_id) AS key FROM unnest(tenants, admission_ids) AS i(tenant, admission_id)
          ORDER BY key) AS wanted;

    -- The first of a batch, where two settle the same call.
    SELECT array_agg(o) INTO pending
    FROM (SELECT DISTINCT ON (i.tenant, i.admission_id) i.ord::integer AS o
          FROM unnest(tenants, admission_ids) WITH ORDINALITY AS i(tenant, admission_id, ord)
          CROSS JOIN LATERAL (SELECT x.outcome FROM call AS x
                              WHERE x.admission_receipt_id = i.admission_id AND x.tenant = i.tenant LIMIT 1) AS c
          WHERE c.outcome = 'pending' ORDER BY i.tenant, i.admission_id, i.ord) AS first;

    IF pending IS NOT NULL THEN
        SELECT array_agg(CASE WHEN e.outcome NOT IN ('STORED', 'REPLAYED') THEN e.outcome END ORDER BY e.ordinal) INTO refusals
        FROM memorygate.emit_interrogate(ARRAY(SELECT bodies[o] FROM unnest(pending) AS o), NULL) AS e;
        UPDATE call AS c SET
            outcome_receipt_id = receipt_ids[p.o], outcome = outcomes[p.o], duration_us = durations[p.o],
            result_sha256 = result_digests[p.o], result_bytes = result_sizes[p.o]
        FROM unnest(pending, refusals) AS p(o, refusal)
        WHERE c.admission_receipt_id = admission_ids[p.o] AND c.tenant = tenants[p.o] AND p.refusal IS NULL;
    END IF;

    RETURN QUERY
    SELECT i.ord::integer,
           CASE WHEN (c.whole).admission_receipt_id IS NULL THEN 'UNKNOWN' WHEN p.o IS NULL THEN 'SETTLED_BEFORE'
                WHEN p.refusal IS NULL THEN 'STORED' ELSE 'REFUSED' END,
           p.refusal, c.whole
    FROM unnest(tenants, admission_ids) WITH ORDINALITY AS i(tenant, admission_id, ord)
    LEFT JOIN LATERAL (SELECT x AS whole FROM call AS x
                       WHERE x.admission_receipt_id = i.admission_id AND x.tenant = i.tenant LIMIT 1) AS c ON true
    LEFT JOIN unnest(pending, refusals) AS p(o, refusal) ON p.o = i.ord;
END
$$;
COMMENT ON FUNCTION interrogate.settle_calls IS 'Stores the outcome of each call with its receipt, once.';

CREATE FUNCTION interrogate.call_of(of_tenant uuid, wanted text) RETURNS SETOF interrogate.call
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
AS $$ SELECT c.* FROM interrogate.call AS c WHERE c.admission_receipt_id = $2 AND c.tenant = $1 $$;
COMMENT ON FUNCTION interrogate.call_of IS 'The call of that admission; no row: there is none.';

-- At most ten thousand rows are looked at for a page, whatever is asked for: `more` says where the next page begins.
CREATE FUNCTION interrogate.calls(
    of_tenant uuid, of_principal text, of_problemata text, of_tool text, of_outcome text, since timestamptz,
    before_at timestamptz, before_id text, most integer
) RETURNS TABLE (row_of_call interrogate.call, next_at timestamptz, next_id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    looked_at CONSTANT integer := 10000;
BEGIN
    RETURN QUERY EXECUTE
        'WITH scanned AS MATERIALIZED (
             SELECT c, row_number() OVER (ORDER BY c.at DESC, c.admission_receipt_id DESC) AS place
             FROM interrogate.call AS c
             WHERE c.tenant = $1'
        || CASE WHEN of_principal IS NOT NULL THEN ' AND c.principal_key = $2' ELSE '' END
        || CASE WHEN of_principal IS NULL AND of_problemata IS NOT NULL THEN ' AND c.problemata = $3' ELSE '' END
        || CASE WHEN of_principal IS NULL AND of_problemata IS NOT NULL AND of_tool IS NOT NULL THEN ' AND c.tool = $4' ELSE '' END
        || CASE WHEN since IS NOT NULL THEN ' AND c.at >= $6' ELSE '' END
        || CASE WHEN before_at IS NOT NULL THEN ' AND (c.at, c.admission_receipt_id) < ($7, $8)' ELSE '' END
        || ' ORDER BY c.at DESC, c.admission_receipt_id DESC LIMIT $10
         ), matching AS MATERIALIZED (
             SELECT s.c, s.place FROM scanned AS s
             WHERE ($3 IS NULL OR (s.c).problemata = $3) AND ($4 IS NULL OR (s.c).tool = $4) AND ($5 IS NULL OR (s.c).outcome = $5)
             ORDER BY s.place LIMIT $9
         ), last AS (
             -- A full page ends at its last row; one that is not full, at the last row that was looked at, if there may be more.
             SELECT s.c FROM scanned AS s
             WHERE s.place = CASE WHEN (SELECT count(*) FROM matching) = $9 THEN (SELECT max(m.place) FROM matching AS m)
                                  WHEN (SELECT count(*) FROM scanned) = $10 THEN $10 END
         )
         SELECT m.c, NULL::timestamptz, NULL::text FROM matching AS m
         UNION ALL SELECT NULL, (l.c).at, (l.c).admission_receipt_id FROM last AS l'
        USING of_tenant, of_principal, of_problemata, of_tool, of_outcome, since, before_at, before_id, most, looked_at;
END
$$;
COMMENT ON FUNCTION interrogate.calls IS 'Calls of a tenant, newest first; the last row has no call and says where the next page begins, if there may be one.';

-- `grace` comes on top of the time that the call itself was given.
CREATE FUNCTION interrogate.stale_calls(grace interval, most integer)
RETURNS TABLE (tenant uuid, receipt_id text, stored_at timestamptz, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT c.tenant, c.admission_receipt_id, c.at, r.body
    FROM (SELECT x.* FROM call AS x
          WHERE x.outcome = 'pending' AND x.at < clock_timestamp() - grace
            AND x.at + x.timeout_ms * interval '1 millisecond' < clock_timestamp() - grace
          ORDER BY x.at LIMIT most) AS c
    CROSS JOIN LATERAL memorygate.receipt(c.tenant, c.admission_receipt_id) AS r;
END
$$;
COMMENT ON FUNCTION interrogate.stale_calls IS 'Calls whose outcome nobody stored in time: their process died. With the receipt of each admission.';

-- Where a lease stands whose holder calls a tool without naming a parent (GW-10). No row: the lease is not live, or its task in no tree.
CREATE FUNCTION interrogate.leased_task(of_tenant uuid, of_lease text, of_holder text) RETURNS TABLE (task_id text, root_task_id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT a.task_id, a.root_task_id
    FROM live_leases(ARRAY[of_tenant], ARRAY[of_lease], ARRAY[of_holder]) AS l
    CROSS JOIN LATERAL (SELECT x.task_id, x.root_task_id FROM admitted AS x
                        WHERE x.task_id = l.task_id AND x.tenant = of_tenant LIMIT 1) AS a;
END
$$;
COMMENT ON FUNCTION interrogate.leased_task IS 'The admitted task of a live lease, and its root.';
