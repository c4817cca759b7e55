-- Revoking a task or its lease, and what AsyncGate does by itself: the pass (AG-13).

CREATE FUNCTION asyncgate.revoke(
    prefix text, tenants uuid[], task_ids text[], whole boolean[], revokers text[], reasons text[],
    task_form text, lease_form text, canceled_form text, expired_form text, poisoned_form text
) RETURNS TABLE (ordinal integer, outcome text, detail text, lease_ended boolean)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    verdicts text[];
    live boolean[];
    last_lease boolean[];
    chosen integer[];
    refusals text[];
BEGIN
    PERFORM lock_tasks(
        tenants, task_ids,
        ARRAY(SELECT t.obligation_id FROM unnest(tenants, task_ids) WITH ORDINALITY AS i(tenant, task_id, ord)
              LEFT JOIN LATERAL (SELECT x.obligation_id FROM task AS x WHERE x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS t ON true
              ORDER BY i.ord),
        array_fill(true, ARRAY[cardinality(tenants)]));
    at := clock_timestamp();

    SELECT array_agg(CASE
               WHEN t.task_id IS NULL AND past.how = 'revoked' AND i.is_whole THEN 'REPLAYED'
               WHEN t.task_id IS NULL AND past.how IS NOT NULL THEN 'TASK_ENDED'
               WHEN t.task_id IS NULL THEN 'NOT_PARKED'
               WHEN i.place > 1 THEN CASE WHEN i.is_whole THEN 'REPLAYED' ELSE 'NO_LEASE' END
               WHEN i.is_whole THEN 'TASK'
               WHEN t.lease_id IS NULL THEN 'NO_LEASE'
               WHEN t.lease_until <= at THEN 'OVERDUE' ELSE 'LEASE' END ORDER BY i.ord),
           array_agg(coalesce(t.lease_until > at, false) ORDER BY i.ord), array_agg(t.number >= t.max_leases ORDER BY i.ord)
    INTO verdicts, live, last_lease
    FROM (SELECT u.*, row_number() OVER (PARTITION BY u.tenant, u.task_id ORDER BY u.is_whole DESC, u.ord) AS place
          FROM unnest(tenants, task_ids, whole) WITH ORDINALITY AS u(tenant, task_id, is_whole, ord)) AS i
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS t ON true
    LEFT JOIN LATERAL (SELECT x.how FROM archive AS x WHERE x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS past ON true;
    SELECT array_agg(o::integer ORDER BY o) INTO chosen FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, o) WHERE verdict IN ('TASK', 'LEASE', 'OVERDUE');

    IF chosen IS NOT NULL THEN
        SELECT array_agg(s.refusal ORDER BY s.ordinal) INTO refusals
        FROM settle(
            prefix,
            ARRAY(SELECT tenants[o] FROM unnest(chosen) AS o), ARRAY(SELECT task_ids[o] FROM unnest(chosen) AS o),
            ARRAY(SELECT CASE WHEN verdicts[o] = 'TASK' THEN 'revoked' WHEN last_lease[o] THEN 'escalated' END FROM unnest(chosen) AS o),
            ARRAY(SELECT CASE verdicts[o] WHEN 'TASK' THEN task_form WHEN 'LEASE' THEN lease_form ELSE expired_form END FROM unnest(chosen) AS o),
            ARRAY(SELECT CASE WHEN verdicts[o] = 'TASK' THEN canceled_form WHEN last_lease[o] THEN poisoned_form END FROM unnest(chosen) AS o),
            array_fill(NULL::bytea, ARRAY[cardinality(chosen)]), array_fill(interval '0', ARRAY[cardinality(chosen)]),
            ARRAY(SELECT revokers[o] FROM unnest(chosen) AS o), ARRAY(SELECT reasons[o] FROM unnest(chosen) AS o)) AS s;
    END IF;

    RETURN QUERY
    SELECT i.ord::integer,
           CASE WHEN i.verdict IN ('TASK', 'LEASE') AND r.refusal IS NOT NULL THEN 'REFUSED'
                WHEN i.verdict IN ('TASK', 'LEASE', 'OVERDUE', 'NO_LEASE') THEN 'REVOKED' ELSE i.verdict END,
           CASE WHEN i.verdict IN ('TASK', 'LEASE') THEN r.refusal END,
           i.verdict IN ('TASK', 'LEASE') AND live[i.ord]
    FROM unnest(verdicts) WITH ORDINALITY AS i(verdict, ord)
    CROSS JOIN LATERAL (SELECT refusals[array_position(chosen, i.ord::integer)] AS refusal) AS r;
END
$$;
COMMENT ON FUNCTION asyncgate.revoke IS 'Ends tasks, or only their leases. NOT_PARKED: AsyncGate does not hold it, and `revoke_minted` may end it.';

-- An obligation that was minted for AsyncGate and never parked: it is the custodian, so it can end it (AG-10).
CREATE FUNCTION asyncgate.revoke_minted(
    prefix text, of_tenant uuid, minted_id text, revoker text, reason text, task_form text, canceled_form text
) RETURNS TABLE (outcome text, detail text)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
DECLARE
    minted record;
    refusal text;
    ended_at timestamptz;
BEGIN
    PERFORM lock_tasks(ARRAY[of_tenant], ARRAY[NULL::text], ARRAY[minted_id], ARRAY[true]);
    SELECT c.* INTO minted FROM memorygate.custody(ARRAY[of_tenant], ARRAY[minted_id]) AS c;
    IF minted.state IS DISTINCT FROM 'open' OR minted.custodian <> 'svc:asyncgate' OR minted.task_id <> minted_id
       OR EXISTS (SELECT FROM task AS x WHERE x.task_id = minted_id AND x.tenant = of_tenant) THEN
        RETURN QUERY SELECT 'TASK_NOT_FOUND', NULL::text;
        RETURN;
    END IF;
    SELECT max(e.outcome) FILTER (WHERE e.outcome NOT IN ('STORED', 'GROUP_REFUSED')), max(e.stored_at) INTO refusal, ended_at
    FROM memorygate.emit_asyncgate(ARRAY[
        put(put(filled(task_form, ulid(prefix, 0), of_tenant, minted_id, minted_id, minted.principal_ai, minted.opened_by), 'B', revoker), 'R', reason),
        put(filled(canceled_form, ulid(prefix, 1), of_tenant, minted_id, minted_id, minted.principal_ai, ulid(prefix, 0)),
            'Z', rfc3339(clock_timestamp()))], ARRAY[1, 1]) AS e;
    IF refusal IS NULL THEN
        INSERT INTO archive (tenant, task_id, obligation_id, principal_ai, capability, how, ended_by, ended_at)
        VALUES (of_tenant, minted_id, minted_id, minted.principal_ai, 'default', 'revoked', ulid(prefix, 1), ended_at);
        PERFORM wake(ARRAY[of_tenant], ARRAY[minted_id], ARRAY[ulid(prefix, 1)]);
    END IF;
    RETURN QUERY SELECT CASE WHEN refusal IS NULL THEN 'REVOKED' ELSE 'REFUSED' END, refusal;
END
$$;

CREATE FUNCTION asyncgate.owner_of(of_tenant uuid, wanted text) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, minter text, parked boolean, ended text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.minter, true, NULL::text FROM task AS t WHERE t.task_id = wanted AND t.tenant = of_tenant
    UNION ALL
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.minter, true, t.how FROM archive AS t WHERE t.task_id = wanted AND t.tenant = of_tenant;
    IF NOT FOUND THEN
        RETURN QUERY
        SELECT c.task_id, wanted, c.principal_ai, r.body::json ->> 'emitter', false, NULL::text
        FROM memorygate.custody(ARRAY[of_tenant], ARRAY[wanted]) AS c
        LEFT JOIN LATERAL memorygate.receipt(of_tenant, c.opened_by) AS r ON true
        WHERE c.state = 'open' AND c.custodian = 'svc:asyncgate' AND c.task_id = wanted;
    END IF;
END
$$;
COMMENT ON FUNCTION asyncgate.owner_of IS 'Who may revoke a task: of one that is held, that is over, or that was minted and never parked.';

-- ── the pass ─────────────────────────────────────────────────────────────────────────────────────────────────────────

CREATE FUNCTION asyncgate.expire_overdue(prefix text, most integer, expired_form text, poisoned_form text)
RETURNS TABLE (expired integer, escalated integer)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    of_tenants uuid[];
    tasks text[];
    obligations text[];
    lease_ids text[];
    last_lease boolean[];
    refused integer;
BEGIN
    IF NOT pg_try_advisory_xact_lock(lock_key('the pass')) THEN
        RETURN;
    END IF;
    SELECT array_agg(t.tenant ORDER BY t.ord), array_agg(t.task_id ORDER BY t.ord), array_agg(t.obligation_id ORDER BY t.ord),
           array_agg(t.lease_id ORDER BY t.ord), array_agg(t.number >= t.max_leases ORDER BY t.ord)
    INTO of_tenants, tasks, obligations, lease_ids, last_lease
    FROM (SELECT x.*, row_number() OVER (ORDER BY x.lease_until, x.task_id) AS ord FROM task AS x
          WHERE x.lease_until <= clock_timestamp() ORDER BY x.lease_until LIMIT most) AS t;
    IF tasks IS NULL THEN
        RETURN QUERY SELECT 0, 0;
        RETURN;
    END IF;
    PERFORM lock_tasks(of_tenants, tasks, obligations, last_lease);
    -- The same lease, not renewed meanwhile.
    SELECT array_agg(of_tenants[o] ORDER BY o), array_agg(tasks[o] ORDER BY o), array_agg(last_lease[o] ORDER BY o) INTO of_tenants, tasks, last_lease
    FROM unnest(lease_ids) WITH ORDINALITY AS u(lease_id, o)
    CROSS JOIN LATERAL (SELECT FROM task AS x WHERE x.lease_id = u.lease_id AND x.tenant = of_tenants[u.o] AND x.lease_until <= clock_timestamp()
                        LIMIT 1) AS t;
    SELECT count(s.refusal) INTO refused
    FROM (SELECT cardinality(tasks) AS n) AS size
    CROSS JOIN LATERAL settle(
        prefix, of_tenants, tasks, ARRAY(SELECT CASE WHEN is_last THEN 'escalated' END FROM unnest(last_lease) AS u(is_last)),
        array_fill(expired_form, ARRAY[n]), ARRAY(SELECT CASE WHEN is_last THEN poisoned_form END FROM unnest(last_lease) AS u(is_last)),
        array_fill(NULL::bytea, ARRAY[n]), array_fill(interval '0', ARRAY[n]), array_fill(NULL::text, ARRAY[n]), array_fill(NULL::text, ARRAY[n])) AS s
    WHERE n > 0;
    RETURN QUERY SELECT coalesce(cardinality(tasks), 0) - refused, coalesce(cardinality(array_positions(last_lease, true)), 0);
END
$$;
COMMENT ON FUNCTION asyncgate.expire_overdue IS 'Writes down that leases are over their time; ends what was leased as often as it may be. No row: another process is at it.';

-- Needs that are held elsewhere, from a mark on, in the order of the index: nobody tells AsyncGate of their end (INV-075: whether, not how).
CREATE FUNCTION asyncgate.meet_needs(after_tenant uuid, after_obligation text, most integer)
RETURNS TABLE (met integer, last_tenant uuid, last_obligation text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    of_tenants uuid[];
    obligations text[];
    closed_tenants uuid[];
    closed_obligations text[];
    closed_by text[];
    looked_at integer;
    woken integer := 0;
BEGIN
    IF NOT pg_try_advisory_xact_lock(lock_key('the pass')) THEN
        RETURN;
    END IF;
    SELECT array_agg(n.tenant ORDER BY n.tenant, n.obligation_id), array_agg(n.obligation_id ORDER BY n.tenant, n.obligation_id), sum(n.number)
    INTO of_tenants, obligations, looked_at
    FROM (SELECT y.tenant, y.obligation_id, count(*) AS number
          FROM (SELECT x.tenant, x.obligation_id FROM need AS x
                WHERE x.elsewhere AND (x.tenant, x.obligation_id) > (after_tenant, after_obligation COLLATE "C")
                ORDER BY x.tenant, x.obligation_id LIMIT most) AS y GROUP BY 1, 2) AS n;
    IF obligations IS NOT NULL THEN
        SELECT array_agg(of_tenants[c.ordinal] ORDER BY c.ordinal), array_agg(obligations[c.ordinal] ORDER BY c.ordinal),
               array_agg(c.closed_by ORDER BY c.ordinal)
        INTO closed_tenants, closed_obligations, closed_by
        FROM memorygate.custody(of_tenants, obligations) AS c WHERE c.state <> 'open';
    END IF;
    IF closed_obligations IS NOT NULL THEN
        -- The names too: a task that is parked now sees the obligation closed, or its need is in the snapshot of what follows.
        PERFORM lock_tasks(closed_tenants, array_fill(NULL::text, ARRAY[cardinality(closed_tenants)]), closed_obligations,
                           array_fill(true, ARRAY[cardinality(closed_tenants)]));
        woken := wake(closed_tenants, closed_obligations, closed_by);
    END IF;
    IF looked_at < most THEN
        of_tenants := NULL;
        obligations := NULL;
    END IF;
    RETURN QUERY SELECT woken, of_tenants[cardinality(of_tenants)], obligations[cardinality(obligations)];
END
$$;
COMMENT ON FUNCTION asyncgate.meet_needs IS 'Releases tasks whose needs were closed elsewhere. Answers where to go on; NULL: the round is over. No row: another process is at it.';

CREATE FUNCTION asyncgate.purge(archive_days integer, most integer) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp SET enable_seqscan = off AS $$
DECLARE
    purged integer;
BEGIN
    WITH tasks AS (
        DELETE FROM archive WHERE ctid IN (
            SELECT x.ctid FROM archive AS x WHERE x.ended_at < clock_timestamp() - archive_days * interval '1 day'
            ORDER BY x.ended_at LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), admissions AS (
        DELETE FROM admission WHERE ctid IN (
            SELECT x.ctid FROM admission AS x WHERE x.used_at < clock_timestamp() - interval '24 hours'
            ORDER BY x.used_at LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    ), requests AS (
        DELETE FROM request WHERE ctid IN (
            SELECT x.ctid FROM request AS x WHERE x.stored_at < clock_timestamp() - interval '24 hours'
            ORDER BY x.stored_at LIMIT most FOR UPDATE SKIP LOCKED)
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM tasks) + (SELECT count(*) FROM admissions) + (SELECT count(*) FROM requests) INTO purged;
    RETURN purged;
END
$$;
COMMENT ON FUNCTION asyncgate.purge IS 'Forgets ended tasks after their days, admissions and keys after one. At most so many of each at once.';
