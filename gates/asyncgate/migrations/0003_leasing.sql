-- Leasing and renewing.
--
-- Locks: keys and lanes (a tenant's mailbox) exclusive, in one order; then free rows, none of which is waited for; then the ledger's.
-- A lane is held because SKIP LOCKED in a snapshot taken before waits for rows that were leased and ended meanwhile.

CREATE FUNCTION asyncgate.lease(
    prefix text, tenants uuid[], holders text[], mosts integer[], ttls integer[], keys text[],
    lane_items integer[], lane_capabilities text[], issued_form text, reassigned_form text, expired_form text
) RETURNS TABLE (
    ordinal integer, lease_id text, number integer, issued_at timestamptz, expires_at timestamptz, expires_in_ms integer,
    latest_expiry timestamptz, renewals_left integer, evidence text[], root_task_id text, depth integer,
    task_id text, obligation_id text, principal_ai text, document text
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    capabilities text[];
    known boolean[];
    items integer[] := '{}';
    chosen_tasks text[] := '{}';
    chosen_places bigint[] := '{}';
    answered text[];
    more_tasks text[];
    more_places bigint[];
    bodies text[];
    body_rows integer[];
    refused integer[];
    lacking integer;
BEGIN
    PERFORM pg_advisory_xact_lock(key)
    FROM (SELECT lock_key(tenants[lane_item] || 'l' || capability) AS key FROM unnest(lane_items, lane_capabilities) AS u(lane_item, capability)
          UNION
          SELECT lock_key(tenant || 'k' || length(holder) || '/' || holder || lease_key)
          FROM unnest(tenants, holders, keys) AS u(tenant, holder, lease_key) WHERE lease_key IS NOT NULL
          ORDER BY key) AS wanted;
    at := clock_timestamp();

    known := ARRAY(SELECT r.holder IS NOT NULL
                   FROM unnest(tenants, holders, keys) WITH ORDINALITY AS i(tenant, holder, lease_key, ord)
                   LEFT JOIN LATERAL (SELECT x.holder FROM request AS x
                                      WHERE x.idempotency_key = i.lease_key AND x.holder = i.holder AND x.tenant = i.tenant
                                        AND x.stored_at > at - interval '24 hours' LIMIT 1) AS r ON true
                   ORDER BY i.ord);

    FOR i IN 1..cardinality(tenants) LOOP
        -- The same key twice in one statement: the second is answered with the leases of the first.
        CONTINUE WHEN known[i] OR (keys[i] IS NOT NULL AND EXISTS (
            SELECT FROM unnest(tenants, holders, keys) WITH ORDINALITY AS u(tenant, holder, lease_key, ord)
            WHERE ord < i AND (tenant, holder, lease_key) = (tenants[i], holders[i], keys[i])));
        capabilities := ARRAY(SELECT DISTINCT capability FROM unnest(lane_items, lane_capabilities) AS u(item, capability) WHERE item = i);
        SELECT array_agg(p.task_id ORDER BY p.available_at, p.seq), array_agg(p.seq ORDER BY p.available_at, p.seq) INTO more_tasks, more_places
        FROM (SELECT f.task_id, f.available_at, f.seq
              FROM unnest(capabilities) AS c(capability)
              CROSS JOIN LATERAL (
                  SELECT x.task_id, x.available_at, x.seq FROM task AS x
                  WHERE x.capability = c.capability AND x.tenant = tenants[i] AND x.lease_until IS NULL AND x.waits = 0
                    AND x.available_at <= at AND x.seq <> ALL (chosen_places)
                  ORDER BY x.available_at, x.seq LIMIT mosts[i] FOR UPDATE SKIP LOCKED) AS f
              ORDER BY f.available_at, f.seq LIMIT mosts[i]) AS p;
        lacking := mosts[i] - coalesce(cardinality(more_tasks), 0);
        chosen_tasks := chosen_tasks || more_tasks;
        chosen_places := chosen_places || more_places;
        items := items || array_fill(i, ARRAY[mosts[i] - lacking]);
        CONTINUE WHEN lacking = 0;

        -- Too few: what is overdue is taken over, its expiry written in the same commit (AG-12). What was leased as often as it may be is
        -- left to the pass, which holds the names that its end needs.
        SELECT array_agg(p.task_id ORDER BY p.lease_until), array_agg(p.seq ORDER BY p.lease_until) INTO more_tasks, more_places
        FROM (SELECT f.task_id, f.lease_until, f.seq
              FROM unnest(capabilities) AS c(capability)
              CROSS JOIN LATERAL (
                  SELECT x.task_id, x.lease_until, x.seq FROM task AS x
                  WHERE uuid_hash(x.tenant) = uuid_hash(tenants[i]) AND x.tenant = tenants[i] AND x.capability = c.capability
                    AND x.lease_until <= at AND x.number < x.max_leases AND x.seq <> ALL (chosen_places)
                  ORDER BY x.lease_until LIMIT lacking FOR UPDATE SKIP LOCKED) AS f
              ORDER BY f.lease_until LIMIT lacking) AS p;
        chosen_tasks := chosen_tasks || more_tasks;
        chosen_places := chosen_places || more_places;
        items := items || array_fill(i, ARRAY[coalesce(cardinality(more_tasks), 0)]);
    END LOOP;

    IF cardinality(items) > 0 THEN
        at := clock_timestamp();
        -- Four ids for each row: the lease, `expired`, `lease_issued`, `reassigned`.
        SELECT array_agg(b.body ORDER BY r.place, b.part), array_agg(r.place::integer ORDER BY r.place, b.part) INTO bodies, body_rows
        FROM unnest(items, chosen_tasks) WITH ORDINALITY AS r(item, task_id, place)
        CROSS JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.task_id = r.task_id AND x.tenant = tenants[r.item] LIMIT 1) AS t
        CROSS JOIN LATERAL (
            SELECT 1 AS part, replace(put(put(
                filled(expired_form, ulid(prefix, r.place * 4 - 3), t.tenant, t.task_id, t.obligation_id, t.principal_ai, t.issued_by),
                'H', t.holder), 'L', t.lease_id), chr(30) || 'A', t.number::text) AS body
            WHERE t.lease_id IS NOT NULL
            UNION ALL
            SELECT 2, replace(replace(put(put(put(
                filled(issued_form, ulid(prefix, r.place * 4 - 2), t.tenant, t.task_id, t.obligation_id, t.principal_ai,
                       CASE WHEN t.lease_id IS NULL THEN t.cause ELSE ulid(prefix, r.place * 4 - 3) END),
                'H', holders[r.item]), 'L', ulid(prefix, r.place * 4 - 4)),
                'E', rfc3339(at + least(coalesce(ttls[r.item], t.ttl_seconds), t.max_ttl_seconds, t.max_lifetime_seconds) * interval '1 second')),
                chr(30) || 'A', (t.number + 1)::text), chr(30) || 'V', to_json(t.evidence)::text)
            UNION ALL
            SELECT 3, put(put(
                filled(reassigned_form, ulid(prefix, r.place * 4 - 1), t.tenant, t.task_id, t.obligation_id, t.principal_ai,
                       ulid(prefix, r.place * 4 - 2)),
                'H', holders[r.item]), 'F', t.last_holder)
            WHERE t.last_holder <> holders[r.item]) AS b;

        SELECT array_agg(DISTINCT body_rows[e.ordinal]) INTO refused
        FROM memorygate.emit_asyncgate(bodies, body_rows) AS e WHERE e.outcome <> 'STORED';
        IF refused IS NOT NULL THEN
            RAISE EXCEPTION 'the ledger refused a lease' USING ERRCODE = 'internal_error';
        END IF;

        UPDATE task AS t SET
            number = t.number + 1, last_holder = holders[r.item], lease_id = ulid(prefix, r.place * 4 - 4), holder = holders[r.item],
            issued_by = ulid(prefix, r.place * 4 - 2), issued_at = at,
            lease_until = at + least(coalesce(ttls[r.item], t.ttl_seconds), t.max_ttl_seconds, t.max_lifetime_seconds) * interval '1 second',
            latest_expiry = at + t.max_lifetime_seconds * interval '1 second', renewals_left = t.max_renewals
        FROM unnest(items, chosen_tasks) WITH ORDINALITY AS r(item, task_id, place)
        WHERE t.task_id = r.task_id AND t.tenant = tenants[r.item];

        INSERT INTO request (tenant, holder, idempotency_key, lease_ids)
        SELECT tenants[item], holders[item], keys[item], array_agg(ulid(prefix, place * 4 - 4) ORDER BY place)
        FROM unnest(items) WITH ORDINALITY AS r(item, place) WHERE keys[item] IS NOT NULL GROUP BY item
        ON CONFLICT (idempotency_key, holder, tenant) DO UPDATE SET lease_ids = excluded.lease_ids, stored_at = excluded.stored_at;
    END IF;

    RETURN QUERY
    SELECT r.item, t.lease_id, t.number, t.issued_at, t.lease_until,
           (extract(epoch FROM t.lease_until - clock_timestamp()) * 1000)::integer, t.latest_expiry, t.renewals_left, t.evidence,
           t.root_task_id, t.depth, t.task_id, t.obligation_id, t.principal_ai, t.document
    FROM unnest(items, chosen_tasks) WITH ORDINALITY AS r(item, task_id, place)
    CROSS JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.task_id = r.task_id AND x.tenant = tenants[r.item] LIMIT 1) AS t
    WHERE keys[r.item] IS NULL
    UNION ALL
    SELECT i.ord::integer, t.lease_id, t.number, t.issued_at, t.lease_until,
           (extract(epoch FROM t.lease_until - clock_timestamp()) * 1000)::integer, t.latest_expiry, t.renewals_left, t.evidence,
           t.root_task_id, t.depth, t.task_id, t.obligation_id, t.principal_ai, t.document
    FROM unnest(tenants, holders, keys) WITH ORDINALITY AS i(tenant, holder, lease_key, ord)
    CROSS JOIN LATERAL (SELECT x.lease_ids FROM request AS x
                        WHERE x.idempotency_key = i.lease_key AND x.holder = i.holder AND x.tenant = i.tenant LIMIT 1) AS q
    CROSS JOIN LATERAL unnest(q.lease_ids) AS l(id)
    CROSS JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.lease_id = l.id AND x.tenant = i.tenant AND x.lease_until > at LIMIT 1) AS t
    WHERE i.lease_key IS NOT NULL;
END
$$;
COMMENT ON FUNCTION asyncgate.lease IS 'Leases the oldest tasks of mailboxes. A row for each lease; a request that finds none has no row.';

-- How a lease is seen by its holder now, and by another gate in its own statements (AG-06).
CREATE FUNCTION asyncgate.live_lease(tenant uuid, lease_id text, holder text) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, authority text, depth integer, root_task_id text, number integer,
    issued_by text, expires_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.authority, t.depth, t.root_task_id, t.number, t.issued_by, t.lease_until
    FROM task AS t
    WHERE t.lease_id = $2 AND t.tenant = $1 AND t.holder = $3 AND t.lease_until > clock_timestamp();
END
$$;
COMMENT ON FUNCTION asyncgate.live_lease IS 'The lease, if it is live and this holder''s; else no row.';

CREATE FUNCTION asyncgate.hold_leases(tenants uuid[], lease_ids text[], holders text[]) RETURNS TABLE (
    ordinal integer, task_id text, obligation_id text, principal_ai text, authority text, depth integer, root_task_id text, number integer,
    issued_by text, expires_at timestamptz
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan AS $$
#variable_conflict use_column
DECLARE
    held_tasks text[];
    held_tenants uuid[];
BEGIN
    SELECT array_agg(t.task_id ORDER BY t.task_id COLLATE "C", t.tenant), array_agg(t.tenant ORDER BY t.task_id COLLATE "C", t.tenant)
    INTO held_tasks, held_tenants
    FROM (SELECT DISTINCT x.task_id, x.tenant FROM unnest(tenants, lease_ids) AS i(tenant, lease_id)
          CROSS JOIN LATERAL (SELECT y.task_id, y.tenant FROM task AS y WHERE y.lease_id = i.lease_id AND y.tenant = i.tenant LIMIT 1) AS x) AS t;
    FOR place IN 1..coalesce(cardinality(held_tasks), 0) LOOP
        PERFORM FROM task AS x WHERE x.task_id = held_tasks[place] AND x.tenant = held_tenants[place] FOR KEY SHARE;
    END LOOP;
    -- Looked at again now that no verb can end them: what was waited for may have ended them.
    RETURN QUERY
    SELECT i.ord::integer, t.task_id, t.obligation_id, t.principal_ai, t.authority, t.depth, t.root_task_id, t.number, t.issued_by, t.lease_until
    FROM unnest(tenants, lease_ids, holders) WITH ORDINALITY AS i(tenant, lease_id, holder, ord)
    CROSS JOIN LATERAL (SELECT x.* FROM task AS x
                        WHERE x.lease_id = i.lease_id AND x.tenant = i.tenant AND x.holder = i.holder AND x.lease_until > clock_timestamp()
                        LIMIT 1) AS t;
END
$$;
COMMENT ON FUNCTION asyncgate.hold_leases IS 'The live leases of these holders; until the asking transaction ends no verb ends them. Of any other there is no row.';
