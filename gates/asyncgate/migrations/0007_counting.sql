-- Leasing that says what it took over, verbs that say which expiries they wrote, pages of one state that are bounded, admissions of
-- a batch in one look-up, and the end of what was minted and never parked under an obligation of another name.
--
-- A process of the release before goes on calling what it knows (D-54): `lease` answers the same columns, `tasks` and
-- `admission_receipt` stay.

CREATE FUNCTION asyncgate.lease_tasks(
    prefix text, tenants uuid[], holders text[], mosts integer[], ttls integer[], keys text[],
    lane_items integer[], lane_capabilities text[], issued_form text, reassigned_form text, expired_form text
) RETURNS TABLE (
    ordinal integer, lease_id text, number integer, issued_at timestamptz, expires_at timestamptz, expires_in_ms integer,
    latest_expiry timestamptz, renewals_left integer, evidence text[], root_task_id text, depth integer,
    task_id text, obligation_id text, principal_ai text, document text, took_over boolean
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
    lanes text[];
    known boolean[];
    asking integer[];
    turn integer := 1;
    run integer;
    wanted integer;
    items integer[] := '{}';
    chosen_tasks text[] := '{}';
    chosen_places bigint[] := '{}';
    more_tasks text[];
    more_places bigint[];
    taken text[];
    bodies text[];
    body_rows integer[];
    refused integer[];
    overdue boolean[];
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

    -- Who asks: not for a key that is known, and not for one that comes twice in one statement: the second is answered with the
    -- leases of the first.
    asking := ARRAY(SELECT i.ord::integer
                    FROM (SELECT u.*, row_number() OVER (PARTITION BY u.tenant, u.holder, u.lease_key ORDER BY u.ord) AS place
                          FROM unnest(tenants, holders, keys) WITH ORDINALITY AS u(tenant, holder, lease_key, ord)) AS i
                    WHERE NOT known[i.ord] AND (i.lease_key IS NULL OR i.place = 1) ORDER BY i.ord);
    lanes := ARRAY(SELECT string_agg(DISTINCT u.capability, ',' ORDER BY u.capability)
                   FROM unnest(lane_items, lane_capabilities) AS u(item, capability) GROUP BY u.item ORDER BY u.item);

    -- Requests one after the other that ask for the same mailboxes are served by one look into them, in their order.
    WHILE turn <= cardinality(asking) LOOP
        run := turn;
        wanted := mosts[asking[turn]];
        WHILE run < cardinality(asking) AND tenants[asking[run + 1]] = tenants[asking[turn]] AND lanes[asking[run + 1]] = lanes[asking[turn]] LOOP
            run := run + 1;
            wanted := wanted + mosts[asking[run]];
        END LOOP;
        capabilities := string_to_array(lanes[asking[turn]], ',');
        SELECT array_agg(p.task_id ORDER BY p.available_at, p.seq), array_agg(p.seq ORDER BY p.available_at, p.seq) INTO taken, more_places
        FROM (SELECT f.task_id, f.available_at, f.seq
              FROM unnest(capabilities) AS c(capability)
              CROSS JOIN LATERAL (
                  SELECT x.task_id, x.available_at, x.seq FROM task AS x
                  WHERE x.capability = c.capability AND x.tenant = tenants[asking[turn]] AND x.lease_until IS NULL AND x.waits = 0
                    AND x.available_at <= at AND x.seq <> ALL (chosen_places)
                  ORDER BY x.available_at, x.seq LIMIT wanted FOR UPDATE SKIP LOCKED) AS f
              ORDER BY f.available_at, f.seq LIMIT wanted) AS p;
        taken := coalesce(taken, '{}');
        chosen_places := chosen_places || more_places;

        IF cardinality(taken) < wanted THEN
            -- Too few: what is overdue is taken over, its expiry written in the same commit (AG-12). What was leased as often as it may
            -- be is left to the pass, which holds the names that its end needs.
            SELECT array_agg(p.task_id ORDER BY p.lease_until), array_agg(p.seq ORDER BY p.lease_until) INTO more_tasks, more_places
            FROM (SELECT f.task_id, f.lease_until, f.seq
                  FROM unnest(capabilities) AS c(capability)
                  CROSS JOIN LATERAL (
                      SELECT x.task_id, x.lease_until, x.seq FROM task AS x
                      WHERE uuid_hash(x.tenant) = uuid_hash(tenants[asking[turn]]) AND x.tenant = tenants[asking[turn]]
                        AND x.capability = c.capability AND x.lease_until <= at AND x.number < x.max_leases AND x.seq <> ALL (chosen_places)
                      ORDER BY x.lease_until LIMIT wanted - cardinality(taken) FOR UPDATE SKIP LOCKED) AS f
                  ORDER BY f.lease_until LIMIT wanted - cardinality(taken)) AS p;
            taken := taken || more_tasks;
            chosen_places := chosen_places || more_places;
        END IF;

        -- Dealt out: the first gets the oldest.
        chosen_tasks := chosen_tasks || taken;
        wanted := cardinality(taken);
        WHILE turn <= run LOOP
            items := items || array_fill(asking[turn], ARRAY[least(mosts[asking[turn]], wanted)]);
            wanted := wanted - least(mosts[asking[turn]], wanted);
            turn := turn + 1;
        END LOOP;
    END LOOP;

    IF cardinality(items) > 0 THEN
        at := clock_timestamp();
        -- Four ids for each row: the lease, `expired`, `lease_issued`, `reassigned`.
        SELECT array_agg(b.body ORDER BY r.place, b.part), array_agg(r.place::integer ORDER BY r.place, b.part),
               array_agg(t.lease_id IS NOT NULL ORDER BY r.place) FILTER (WHERE b.part = 2)
        INTO bodies, body_rows, overdue
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

        RETURN QUERY
        WITH leased AS (
            UPDATE task AS t SET
                number = t.number + 1, last_holder = holders[r.item], lease_id = ulid(prefix, r.place * 4 - 4), holder = holders[r.item],
                issued_by = ulid(prefix, r.place * 4 - 2), issued_at = at,
                lease_until = at + least(coalesce(ttls[r.item], t.ttl_seconds), t.max_ttl_seconds, t.max_lifetime_seconds) * interval '1 second',
                latest_expiry = at + t.max_lifetime_seconds * interval '1 second', renewals_left = t.max_renewals
            FROM unnest(items, chosen_tasks) WITH ORDINALITY AS r(item, task_id, place)
            WHERE t.task_id = r.task_id AND t.tenant = tenants[r.item]
            RETURNING r.item, r.place, t.*
        )
        SELECT l.item, l.lease_id, l.number, l.issued_at, l.lease_until, (extract(epoch FROM l.lease_until - clock_timestamp()) * 1000)::integer,
               l.latest_expiry, l.renewals_left, l.evidence, l.root_task_id, l.depth, l.task_id, l.obligation_id, l.principal_ai, l.document,
               overdue[l.place]
        FROM leased AS l ORDER BY l.place;

        INSERT INTO request (tenant, holder, idempotency_key, lease_ids)
        SELECT tenants[item], holders[item], keys[item], array_agg(ulid(prefix, place * 4 - 4) ORDER BY place)
        FROM unnest(items) WITH ORDINALITY AS r(item, place) WHERE keys[item] IS NOT NULL GROUP BY item
        ON CONFLICT (idempotency_key, holder, tenant) DO UPDATE SET lease_ids = excluded.lease_ids, stored_at = excluded.stored_at;
    END IF;

    -- Of keys that were known: the leases of the first answer that still live.
    IF known && '{true}' OR cardinality(asking) < cardinality(tenants) THEN
        RETURN QUERY
        SELECT i.ord::integer, t.lease_id, t.number, t.issued_at, t.lease_until,
               (extract(epoch FROM t.lease_until - clock_timestamp()) * 1000)::integer, t.latest_expiry, t.renewals_left, t.evidence,
               t.root_task_id, t.depth, t.task_id, t.obligation_id, t.principal_ai, t.document, false
        FROM unnest(tenants, holders, keys) WITH ORDINALITY AS i(tenant, holder, lease_key, ord)
        CROSS JOIN LATERAL (SELECT x.lease_ids FROM request AS x
                            WHERE x.idempotency_key = i.lease_key AND x.holder = i.holder AND x.tenant = i.tenant LIMIT 1) AS q
        CROSS JOIN LATERAL unnest(q.lease_ids) WITH ORDINALITY AS l(id, place)
        CROSS JOIN LATERAL (SELECT x.* FROM task AS x WHERE x.lease_id = l.id AND x.tenant = i.tenant AND x.lease_until > at LIMIT 1) AS t
        WHERE i.lease_key IS NOT NULL AND i.ord <> ALL (asking) ORDER BY i.ord, l.place;
    END IF;
END
$$;
COMMENT ON FUNCTION asyncgate.lease_tasks IS 'Leases the oldest tasks of mailboxes. A row for each lease, in the order of the mailbox; a request that finds none has no row. `took_over`: the lease before was over its time, and this statement wrote that down.';

CREATE OR REPLACE FUNCTION asyncgate.lease(
    prefix text, tenants uuid[], holders text[], mosts integer[], ttls integer[], keys text[],
    lane_items integer[], lane_capabilities text[], issued_form text, reassigned_form text, expired_form text
) RETURNS TABLE (
    ordinal integer, lease_id text, number integer, issued_at timestamptz, expires_at timestamptz, expires_in_ms integer,
    latest_expiry timestamptz, renewals_left integer, evidence text[], root_task_id text, depth integer,
    task_id text, obligation_id text, principal_ai text, document text
)
LANGUAGE sql SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp
AS $$
    SELECT l.ordinal, l.lease_id, l.number, l.issued_at, l.expires_at, l.expires_in_ms, l.latest_expiry, l.renewals_left, l.evidence,
           l.root_task_id, l.depth, l.task_id, l.obligation_id, l.principal_ai, l.document
    FROM asyncgate.lease_tasks($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS l
$$;
COMMENT ON FUNCTION asyncgate.lease IS 'As `lease_tasks`, without what it took over: for processes of the release before.';

CREATE OR REPLACE FUNCTION asyncgate.renew(prefix text, tenants uuid[], lease_ids text[], holders text[], ttls integer[], expired_form text)
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
    overdue_leases text[];
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
        SELECT array_agg(x.task_id), array_agg(x.tenant), array_agg(i.lease_id) INTO overdue_tasks, overdue_tenants, overdue_leases
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
    SELECT i.ord::integer, CASE i.verdict WHEN 'OVERDUE' THEN 'LEASE_LOST' ELSE i.verdict END,
           -- The first of a statement that comes too late is told that it wrote the expiry down.
           CASE WHEN i.verdict = 'OVERDUE' AND i.lease_id = ANY (overdue_leases)
                     AND i.ord = array_position(lease_ids, i.lease_id) THEN 'EXPIRED' END, t.lease_until,
           (extract(epoch FROM t.lease_until - clock_timestamp()) * 1000)::integer, t.renewals_left
    FROM unnest(verdicts, tenants, lease_ids) WITH ORDINALITY AS i(verdict, tenant, lease_id, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x
                       WHERE i.verdict = 'RENEWED' AND x.lease_id = i.lease_id AND x.tenant = i.tenant LIMIT 1) AS t ON true;
END
$$;
COMMENT ON FUNCTION asyncgate.renew IS 'Moves the end of live leases. Leaves no receipt, but that of a lease found over its time: its `detail` is EXPIRED.';

CREATE OR REPLACE FUNCTION asyncgate.revoke(
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
           CASE WHEN r.refusal IS NOT NULL THEN CASE WHEN i.verdict IN ('TASK', 'LEASE') THEN r.refusal END
                WHEN i.verdict IN ('LEASE', 'OVERDUE') AND last_lease[i.ord] THEN 'ESCALATED'
                WHEN i.verdict = 'OVERDUE' THEN 'EXPIRED' END,
           i.verdict IN ('TASK', 'LEASE') AND live[i.ord]
    FROM unnest(verdicts) WITH ORDINALITY AS i(verdict, ord)
    CROSS JOIN LATERAL (SELECT refusals[array_position(chosen, i.ord::integer)] AS refusal) AS r;
END
$$;
COMMENT ON FUNCTION asyncgate.revoke IS 'Ends tasks, or only their leases. NOT_PARKED: AsyncGate does not hold it, and `revoke_minted` may end it. `detail` of what is done: EXPIRED, a lease was over its time and this wrote it down; ESCALATED, it was the last that its task may have.';

-- Whether AsyncGate ended an obligation that it never held a task of: then its revocation was asked for before.
CREATE FUNCTION asyncgate.canceled_unparked(of_tenant uuid, minted_id text) RETURNS boolean
LANGUAGE sql STABLE SET search_path = asyncgate, pg_catalog, pg_temp
AS $$
    SELECT coalesce(bool_or(r.body::json ->> 'emitter' = 'svc:asyncgate' AND r.body::json ->> 'status' = 'canceled'), false)
    FROM memorygate.custody(ARRAY[of_tenant], ARRAY[minted_id]) AS c
    CROSS JOIN LATERAL memorygate.receipt(of_tenant, c.closed_by) AS r
    WHERE c.state <> 'open'
      AND NOT EXISTS (SELECT FROM archive AS x WHERE x.task_id = c.task_id AND x.tenant = of_tenant AND x.obligation_id = minted_id
                        AND x.accepted_by IS NOT NULL)
$$;

CREATE OR REPLACE FUNCTION asyncgate.revoke_minted(
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
    IF minted.state <> 'open' AND canceled_unparked(of_tenant, minted_id) THEN
        RETURN QUERY SELECT 'REPLAYED', NULL::text;
        RETURN;
    END IF;
    IF minted.state IS DISTINCT FROM 'open' OR minted.custodian <> 'svc:asyncgate'
       OR EXISTS (SELECT FROM task AS x WHERE x.task_id = minted.task_id AND x.tenant = of_tenant AND x.obligation_id = minted_id) THEN
        RETURN QUERY SELECT 'TASK_NOT_FOUND', NULL::text;
        RETURN;
    END IF;
    SELECT max(e.outcome) FILTER (WHERE e.outcome NOT IN ('STORED', 'GROUP_REFUSED')), max(e.stored_at) INTO refusal, ended_at
    FROM memorygate.emit_asyncgate(ARRAY[
        put(put(filled(task_form, ulid(prefix, 0), of_tenant, minted.task_id, minted_id, minted.principal_ai, minted.opened_by), 'B', revoker), 'R', reason),
        put(filled(canceled_form, ulid(prefix, 1), of_tenant, minted.task_id, minted_id, minted.principal_ai, ulid(prefix, 0)),
            'Z', rfc3339(clock_timestamp()))], ARRAY[1, 1]) AS e;
    IF refusal IS NULL THEN
        -- The task of another obligation may have its name: what becomes of that one is what is kept under it.
        INSERT INTO archive (tenant, task_id, obligation_id, principal_ai, capability, how, ended_by, ended_at)
        SELECT of_tenant, minted.task_id, minted_id, minted.principal_ai, 'default', 'revoked', ulid(prefix, 1), ended_at
        WHERE NOT EXISTS (SELECT FROM task AS x WHERE x.task_id = minted.task_id AND x.tenant = of_tenant)
        ON CONFLICT (task_id, tenant) DO NOTHING;
        PERFORM wake(ARRAY[of_tenant], ARRAY[minted_id], ARRAY[ulid(prefix, 1)]);
    END IF;
    RETURN QUERY SELECT CASE WHEN refusal IS NULL THEN 'REVOKED' ELSE 'REFUSED' END, refusal;
END
$$;
COMMENT ON FUNCTION asyncgate.revoke_minted IS 'Ends an obligation that was minted for AsyncGate and never parked; `minted_id` names the obligation, which may be called otherwise than its task.';

CREATE OR REPLACE FUNCTION asyncgate.owner_of(of_tenant uuid, wanted text) RETURNS TABLE (
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
        WHERE (c.state = 'open' AND c.custodian = 'svc:asyncgate'
               AND NOT EXISTS (SELECT FROM task AS x WHERE x.task_id = c.task_id AND x.tenant = of_tenant AND x.obligation_id = wanted))
           OR (c.state <> 'open' AND canceled_unparked(of_tenant, wanted));
    END IF;
END
$$;
COMMENT ON FUNCTION asyncgate.owner_of IS 'Who may revoke a task: of one that is held, that is over, or of an obligation that was minted and never parked.';

CREATE FUNCTION asyncgate.tasks_in_state(
    of_tenant uuid, of_capability text, of_state text, after_task text, most integer, look_at integer
) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, capability text, state text, document text,
    accepted_by text, accepted_at timestamptz, available_at timestamptz, waits_for text[],
    holder text, number integer, expires_at timestamptz, how text, ended_at timestamptz, ended_by text, looked_to text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_custom_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    WITH RECURSIVE mailbox AS (
            SELECT of_capability AS name WHERE of_capability IS NOT NULL
            UNION ALL
            (SELECT x.capability FROM task AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND of_capability IS NULL ORDER BY x.capability LIMIT 1)
            UNION ALL
            SELECT (SELECT x.capability FROM task AS x WHERE uuid_hash_extended(x.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND x.tenant = of_tenant AND x.capability > m.name ORDER BY x.capability LIMIT 1)
            FROM mailbox AS m WHERE m.name IS NOT NULL AND of_capability IS NULL
        ), share AS (
        SELECT m.name, greatest(most, look_at / (count(*) OVER ())::integer) AS number FROM mailbox AS m WHERE m.name IS NOT NULL
    ), looked AS MATERIALIZED (
        SELECT p.* FROM share AS s
        CROSS JOIN LATERAL (
            SELECT * FROM (
                SELECT x.*, task_state(x.lease_until, x.waits, x.available_at) AS current_state,
                       row_number() OVER (ORDER BY x.task_id) = s.number AS is_last
                FROM (SELECT y.* FROM task AS y
                      WHERE uuid_hash_extended(y.tenant, 1) = uuid_hash_extended(of_tenant, 1) AND y.tenant = of_tenant
                        AND y.capability = s.name AND y.task_id > coalesce(after_task, '')
                      ORDER BY y.task_id LIMIT s.number) AS x) AS z
            WHERE z.current_state = of_state OR z.is_last) AS p
    ), stop AS (
        -- Beyond it some mailbox was not looked at.
        SELECT min(l.task_id) AS task_id FROM looked AS l WHERE l.is_last
    )
    SELECT t.task_id, t.obligation_id, t.principal_ai, t.capability, t.current_state, t.document, t.accepted_by, t.accepted_at,
           CASE WHEN t.waits = 0 AND t.current_state <> 'leased' THEN t.available_at END,
           CASE WHEN t.waits > 0 THEN ARRAY(SELECT n.obligation_id FROM need AS n WHERE n.task_id = t.task_id AND n.tenant = t.tenant ORDER BY 1)
                ELSE '{}' END,
           CASE WHEN t.current_state = 'leased' THEN t.holder END, t.number, CASE WHEN t.current_state = 'leased' THEN t.lease_until END,
           NULL::text, NULL::timestamptz, NULL::text, stop.task_id
    FROM stop LEFT JOIN LATERAL (
        SELECT l.* FROM looked AS l WHERE l.current_state = of_state AND (l.task_id <= stop.task_id OR stop.task_id IS NULL)
        ORDER BY l.task_id LIMIT most) AS t ON true
    ORDER BY t.task_id;
END
$$;
COMMENT ON FUNCTION asyncgate.tasks_in_state IS 'As `tasks`, of one state, but looks at about so many tasks and no more: `looked_to` is the last one, NULL when all were. Where no task is of the state there is one row without a task.';

CREATE FUNCTION asyncgate.admission_receipts(tenants uuid[], receipt_ids text[]) RETURNS TABLE (ordinal integer, body text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = asyncgate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY
    SELECT i.ord::integer, r.body FROM unnest(tenants, receipt_ids) WITH ORDINALITY AS i(tenant, receipt_id, ord)
    CROSS JOIN LATERAL memorygate.receipt(i.tenant, i.receipt_id) AS r
    WHERE r.stored_at > clock_timestamp() - interval '10 minutes' AND r.body::json ->> 'kind' = 'admission';
END
$$;
COMMENT ON FUNCTION asyncgate.admission_receipts IS 'Of each the admission, where it is one that is young enough to admit a task (AG-09).';
