-- What became of a task that was admitted, for the MCP gateway (GW-05, GW-06): read from receipts, so that any process answers.

CREATE TABLE interrogate.canceled_handle (
    tenant      uuid NOT NULL,
    receipt_id  text COLLATE "C" NOT NULL,
    canceled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (receipt_id, tenant)
);
CREATE INDEX canceled_handle_age ON interrogate.canceled_handle (canceled_at);
COMMENT ON TABLE interrogate.canceled_handle IS 'Task handles of MCP clients that were canceled. The work goes on: a handle is a view of it, and only the view ended.';

CREATE FUNCTION interrogate.asked_task(of_tenant uuid, of_task text, of_receipt text) RETURNS TABLE (
    receipt_id text, stored_at timestamptz, body text, state text, custodian text, closing text, closed_at timestamptz, forwards text,
    canceled_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
#variable_conflict use_column
DECLARE
    wanted text := coalesce(of_receipt, (SELECT a.receipt_id FROM admitted AS a WHERE a.task_id = of_task AND a.tenant = of_tenant));
BEGIN
    RETURN QUERY
    SELECT d.receipt_id, d.stored_at, d.body, c.state, c.custodian, e.body, e.stored_at,
           (SELECT json_agg(json_build_object('target', f.target, 'state', f.state, 'status', f.status, 'reason', f.reason,
                                              'answer', f.answer, 'escalation_receipt_id', f.escalation_receipt_id) ORDER BY f.target)::text
            FROM forward AS f WHERE f.receipt_id = d.receipt_id AND f.tenant = of_tenant),
           (SELECT h.canceled_at FROM canceled_handle AS h WHERE h.receipt_id = d.receipt_id AND h.tenant = of_tenant)
    FROM interrogate.decision(of_tenant, wanted) AS d
    CROSS JOIN LATERAL memorygate.custody(ARRAY[of_tenant], ARRAY[d.body::json ->> 'task_id']) AS c
    LEFT JOIN LATERAL memorygate.receipt(of_tenant, c.closed_by) AS e ON true
    WHERE d.body::json ->> 'phase' = 'accepted';
END
$$;
COMMENT ON FUNCTION interrogate.asked_task IS 'An admission of this gate, by its task or its receipt: custody of the task, the receipt that closed it, what its targets answered.';

CREATE FUNCTION interrogate.task_receipts(of_tenant uuid, of_task text, most integer) RETURNS TABLE (receipt_id text, stored_at timestamptz, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT r.receipt_id, r.stored_at, r.body FROM memorygate.task_receipts(of_tenant, of_task, '-infinity', '', most) AS r;
END
$$;
COMMENT ON FUNCTION interrogate.task_receipts IS 'The receipts of a task, oldest first.';

CREATE FUNCTION interrogate.closed_tasks(tenants uuid[], task_ids text[]) RETURNS TABLE (ordinal integer)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT c.ordinal FROM memorygate.custody(tenants, task_ids) AS c WHERE c.closed_by IS NOT NULL;
END
$$;
COMMENT ON FUNCTION interrogate.closed_tasks IS 'Which tasks are over: what callers wait for.';

CREATE FUNCTION interrogate.cancel_handle(of_tenant uuid, of_receipt text) RETURNS void
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO canceled_handle (tenant, receipt_id) VALUES (of_tenant, of_receipt) ON CONFLICT DO NOTHING;
END
$$;
COMMENT ON FUNCTION interrogate.cancel_handle IS 'Ends the handle of a task for the client that has it.';

CREATE FUNCTION interrogate.purge_handles(most integer) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp AS $$
DECLARE
    purged bigint;
BEGIN
    DELETE FROM canceled_handle WHERE ctid IN (
        SELECT x.ctid FROM canceled_handle AS x WHERE x.canceled_at < clock_timestamp() - interval '72 hours'
        ORDER BY x.canceled_at LIMIT most FOR UPDATE SKIP LOCKED);
    GET DIAGNOSTICS purged = ROW_COUNT;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION interrogate.purge_handles IS 'Forgets canceled handles after 72 hours, as settled forwards.';
