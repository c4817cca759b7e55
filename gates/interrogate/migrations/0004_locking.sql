-- The locking form of a decision (IG-01), for what processes contend for. `record` takes the same locks, now by the same function.

-- The own locks, in one order over all processes; false: somebody holds one of them for too long, and none is taken.
--
-- A policy that is used as it is known is locked shared: its users do not wait for each other, but a newer revision waits for them, so that
-- no decision under the old one is stored after the first under the new. Who waited in vain decided on something that others are changing:
-- it is observed again, and nobody's request fails for it.
CREATE FUNCTION interrogate.lock_admissions(
    tenants uuid[], principal_keys text[], receipt_ids text[], idempotency_keys text[], profiles text[],
    root_ids text[], task_ids text[], lease_ids text[], raises boolean[], rate_items integer[], rate_keys text[]
) RETURNS boolean
LANGUAGE plpgsql SET search_path = interrogate, pg_catalog, pg_temp AS $$
BEGIN
    PERFORM CASE WHEN shared THEN pg_advisory_xact_lock_shared(key) ELSE pg_advisory_xact_lock(key) END
    FROM (SELECT lock_key(name) AS key, bool_and(shared) AS shared
          FROM unnest(tenants, principal_keys, receipt_ids, idempotency_keys, profiles, root_ids, task_ids, lease_ids, raises)
               AS i(tenant, principal_key, receipt_id, idempotency_key, profile, root_id, task_id, lease_id, raised)
          CROSS JOIN LATERAL (VALUES
              (i.tenant || 'R' || i.root_id, false),
              (i.tenant || 'T' || coalesce(i.task_id, i.receipt_id), false),
              (i.tenant || 'K' || length(i.principal_key) || '/' || i.principal_key || i.idempotency_key, false),
              (i.tenant || 'L' || i.lease_id, false),
              (i.tenant || 'P' || i.profile, NOT i.raised)) AS names(name, shared)
          WHERE name IS NOT NULL
          GROUP BY 1
          UNION ALL
          SELECT DISTINCT lock_key(tenants[item] || 'G' || rate_key), false FROM unnest(rate_items, rate_keys) AS k(item, rate_key)
          ORDER BY key) AS wanted;
    RETURN true;
EXCEPTION WHEN lock_not_available OR query_canceled THEN
    RETURN false;
END
$$;

-- The locking form of `observe`, for what processes contend for: whoever holds the locks decides on what nobody else can change before its
-- `record` in the same transaction. `revisions`: of the policies by which it will be decided. No row: the locks are taken by others.
CREATE FUNCTION interrogate.observe_locked(
    tenants uuid[], principal_keys text[], receipt_ids text[], digests bytea[], idempotency_keys text[], profiles text[],
    root_ids text[], task_ids text[], parent_ids text[], capability_ids text[], cause_ids text[], lease_ids text[],
    rate_items integer[], rate_keys text[], revisions bigint[]
) RETURNS TABLE (
    ordinal integer, at bigint, version bigint, descendants bigint, repeats bigint,
    parent_root text, parent_depth integer, parent_budget bigint, parent_recent text, parent_receipt text,
    parent_custodian text, parent_open boolean, cause_task text, task_root text, task_admitted boolean, rate_tats bigint[],
    lease_task text, lease_principal text, lease_number bigint, lease_authority text, lease_spawned integer,
    policy_revision bigint, replay_id text, replay_at timestamptz, replay_body text, conflict boolean
)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    -- At least those which `record` will find to raise a policy, for revisions only grow: a lock that is held shared is never asked for
    -- exclusively, which two transactions could do that wait for each other.
    raises CONSTANT boolean[] := ARRAY(
        SELECT i.revision > coalesce(used.revision, 0)
        FROM unnest(tenants, profiles, revisions) WITH ORDINALITY AS i(tenant, profile, revision, ord)
        LEFT JOIN LATERAL (SELECT x.revision FROM profile AS x
                           WHERE x.profile = i.profile AND x.tenant = i.tenant LIMIT 1) AS used ON true
        ORDER BY i.ord);
BEGIN
    -- A process that stops between the two statements loses its transaction while others can still answer in time.
    PERFORM set_config('idle_in_transaction_session_timeout', '300ms', true);
    IF lock_admissions(tenants, principal_keys, receipt_ids, idempotency_keys, profiles, root_ids, task_ids, lease_ids, raises,
                       rate_items, rate_keys) THEN
        -- A statement of its own: its snapshot is younger than the locks.
        RETURN QUERY SELECT * FROM observe(tenants, principal_keys, receipt_ids, digests, idempotency_keys, profiles, root_ids, task_ids,
                                           parent_ids, capability_ids, cause_ids, lease_ids, rate_items, rate_keys);
    END IF;
END
$$;
COMMENT ON FUNCTION interrogate.observe_locked IS 'What `observe` answers, and nobody else changes it before this transaction ends. No row: the locks are taken.';

-- As in 0002, but for its locks.
CREATE OR REPLACE FUNCTION interrogate.record(
    tenants uuid[], principal_keys text[], receipt_ids text[], digests bytea[], idempotency_keys text[], profiles text[],
    root_ids text[], task_ids text[], lease_ids text[],
    versions bigint[], task_roots text[], tasks_admitted boolean[], spawn_counts integer[], revisions bigint[],
    observed_revisions bigint[],
    policy_hashes text[], rulesets text[], bodies text[],
    admits boolean[], begins boolean[], admitted_roots text[], parent_ids text[], depths integer[], budgets bigint[],
    capability_ids text[], recents text[], spawns boolean[],
    rate_items integer[], rate_keys text[], rate_marks bigint[], rate_tats bigint[],
    forward_items integer[], forward_targets text[], forward_escalations text[]
) RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, body text, detail text)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = interrogate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    -- Which of them may be the first under a newer policy. A name under which there is no policy is kept only where there was one.
    raises CONSTANT boolean[] := ARRAY(
        SELECT revision > observed_revision AND (policy_hash IS NOT NULL OR observed_revision > 0)
        FROM unnest(revisions, observed_revisions, policy_hashes) WITH ORDINALITY AS u(revision, observed_revision, policy_hash, ord)
        ORDER BY ord);
    used_revisions bigint[];
    outcomes text[];
    details text[] := array_fill(NULL::text, ARRAY[cardinality(tenants)]);
    first_ids text[];
    root_versions bigint[];
    lease_counts integer[];
    tats bigint[];
    live integer[] := '{}';
    ledger_roots text[];
    chosen integer[];
    moved boolean;
    times timestamptz[];
    emitted_outcomes text[];
    emitted_roots text[];
BEGIN
    IF NOT lock_admissions(tenants, principal_keys, receipt_ids, idempotency_keys, profiles, root_ids, task_ids, lease_ids, raises,
                           rate_items, rate_keys) THEN
        RETURN QUERY SELECT o, 'MOVED', receipt_ids[o], NULL::timestamptz, NULL::text, 'the locks are taken'
                     FROM generate_subscripts(tenants, 1) AS o;
        RETURN;
    END IF;

    IF array_remove(spawn_counts, NULL) <> '{}' THEN
        live := locked_leases(tenants, lease_ids, principal_keys,
                              ARRAY(SELECT ord::integer FROM unnest(spawn_counts) WITH ORDINALITY AS u(spawn_count, ord)
                                    WHERE spawn_count IS NOT NULL));
    END IF;
    SELECT array_agg(r.root_task_id ORDER BY r.ordinal) INTO ledger_roots FROM memorygate.roots(tenants, task_ids) AS r;
    SELECT array_agg(coalesce(r.tat, 0) ORDER BY k.ord) INTO tats
    FROM unnest(rate_items, rate_keys) WITH ORDINALITY AS k(item, rate_key, ord)
    LEFT JOIN LATERAL (SELECT x.tat FROM rate AS x
                       WHERE x.rate_key = k.rate_key AND x.tenant = tenants[k.item] LIMIT 1) AS r ON true;

    -- The marks that do not depend on the other requests of this batch.
    SELECT array_agg(CASE WHEN m.conflict THEN 'KEY_CONFLICT' WHEN m.first_id IS NOT NULL THEN 'REPLAYED'
                          WHEN m.behind THEN 'POLICY_BEHIND' WHEN m.changed OR m.again THEN 'MOVED' END ORDER BY m.ord),
           array_agg(m.first_id ORDER BY m.ord), array_agg(m.root_version ORDER BY m.ord), array_agg(m.lease_count ORDER BY m.ord),
           array_agg(m.used_revision ORDER BY m.ord)
    INTO outcomes, first_ids, root_versions, lease_counts, used_revisions
    FROM (
        SELECT i.ord, coalesce(root.version, 0) AS root_version, coalesce(lease.spawned, 0) AS lease_count,
               used.revision AS used_revision,
               request.digest <> i.digest AS conflict,
               decision_of(request.receipt_id, request.digest, i.receipt_id, i.digest, i.idempotency_key, i.principal_key,
                           own.receipt_id, own.digest, own.principal_key) AS first_id,
               greatest(used.revision, max(i.revision) OVER (PARTITION BY i.tenant, i.profile ORDER BY i.ord)) > i.revision AS behind,
               (own.task_id IS NOT NULL) <> i.task_admitted OR ledger_roots[i.ord] IS DISTINCT FROM i.task_root
                   OR (i.spawn_count IS NOT NULL AND i.ord <> ALL (live)) AS changed,
               -- The same task or the same key twice in a batch: the second is observed again after the first is stored.
               row_number() OVER (PARTITION BY i.tenant, coalesce(i.task_id, i.receipt_id) ORDER BY i.ord) > 1
                   OR (i.idempotency_key IS NOT NULL
                       AND row_number() OVER (PARTITION BY i.tenant, i.principal_key, i.idempotency_key ORDER BY i.ord) > 1) AS again
        FROM unnest(tenants, principal_keys, receipt_ids, digests, idempotency_keys, profiles, root_ids, task_ids, lease_ids,
                    task_roots, tasks_admitted, spawn_counts, revisions)
            WITH ORDINALITY AS i(tenant, principal_key, receipt_id, digest, idempotency_key, profile, root_id, task_id, lease_id,
                                 task_root, task_admitted, spawn_count, revision, ord)
        LEFT JOIN LATERAL (SELECT x.* FROM request AS x
                           WHERE x.idempotency_key = i.idempotency_key AND x.principal_key = i.principal_key AND x.tenant = i.tenant
                             AND x.stored_at > clock_timestamp() - interval '24 hours' LIMIT 1) AS request ON true
        LEFT JOIN LATERAL (SELECT x.* FROM admitted AS x
                           WHERE x.task_id = coalesce(i.task_id, i.receipt_id) AND x.tenant = i.tenant LIMIT 1) AS own ON true
        LEFT JOIN LATERAL (SELECT x.revision FROM profile AS x
                           WHERE x.profile = i.profile AND x.tenant = i.tenant LIMIT 1) AS used ON true
        LEFT JOIN LATERAL (SELECT x.version FROM root AS x
                           WHERE x.root_task_id = i.root_id AND x.tenant = i.tenant LIMIT 1) AS root ON true
        LEFT JOIN LATERAL (SELECT x.spawned FROM lease AS x
                           WHERE x.lease_id = i.lease_id AND x.tenant = i.tenant LIMIT 1) AS lease ON true) AS m;

    LOOP
        -- The marks that the batch itself moves: each request was decided on what those before it in the batch would leave. Where one
        -- falls out, those which were decided after it on the same root, lease or rate do not fit any more, and fall out in the next turn.
        LOOP
            SELECT array_agg(coalesce(i.outcome, CASE WHEN NOT (i.fits AND coalesce(rates.fit, true)) THEN 'MOVED' END) ORDER BY i.ord),
                   bool_or(i.outcome IS NULL AND NOT (i.fits AND coalesce(rates.fit, true)))
            INTO outcomes, moved
            FROM (SELECT u.ord, u.outcome,
                         -- Not the number alone: where one fell out and another process admitted one, the number is right and the tree
                         -- is another. So whatever was decided after one that fell out goes with it.
                         (u.root_id IS NULL
                          OR u.version = u.root_version + count(*) FILTER (WHERE u.admitted) OVER before_on_root
                             AND count(*) FILTER (WHERE u.admitted AND u.outcome IS NOT NULL) OVER before_on_root = 0)
                         AND (u.spawn_count IS NULL OR u.spawn_count = u.lease_count
                             + count(*) FILTER (WHERE u.outcome IS NULL AND u.spawned) OVER (
                                 PARTITION BY u.tenant, u.lease_id ORDER BY u.ord ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING))
                         AS fits
                  FROM unnest(outcomes, tenants, root_ids, versions, root_versions, admits, lease_ids, spawn_counts, lease_counts, spawns)
                      WITH ORDINALITY AS u(outcome, tenant, root_id, version, root_version, admitted, lease_id, spawn_count, lease_count,
                                           spawned, ord)
                  WINDOW before_on_root AS (PARTITION BY u.tenant, u.root_id ORDER BY u.ord
                                            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)) AS i
            LEFT JOIN (SELECT item, bool_and(mark = greatest(tat, latest)) AS fit
                       FROM (SELECT k.item, k.mark, k.tat,
                                    max(k.new_tat) FILTER (WHERE outcomes[k.item] IS NULL) OVER (
                                        PARTITION BY tenants[k.item], k.rate_key ORDER BY k.item
                                        ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS latest
                             FROM unnest(rate_items, rate_keys, rate_marks, rate_tats, tats) AS k(item, rate_key, mark, new_tat, tat)) AS spent
                       GROUP BY item) AS rates ON rates.item = i.ord;
            EXIT WHEN NOT moved;
        END LOOP;

        SELECT array_agg(ord::integer ORDER BY ord) INTO chosen FROM unnest(outcomes) WITH ORDINALITY AS u(outcome, ord) WHERE outcome IS NULL;
        EXIT WHEN chosen IS NULL;
        BEGIN
            SELECT array_agg(e.outcome ORDER BY e.ordinal), array_agg(e.stored_at ORDER BY e.ordinal),
                   array_agg(e.root_task_id ORDER BY e.ordinal)
            INTO emitted_outcomes, times, emitted_roots
            FROM memorygate.emit_interrogate(ARRAY(SELECT bodies[o] FROM unnest(chosen) AS o), NULL) AS e;
            -- Between the look at the ledger's roots and its own locks somebody may have posted the task under another root.
            IF EXISTS (SELECT FROM unnest(chosen, emitted_outcomes, emitted_roots) AS u(o, what, root)
                       WHERE what <> 'STORED' OR (begins[o] AND root <> admitted_roots[o])) THEN
                RAISE EXCEPTION 'a receipt is not stored as it was decided' USING ERRCODE = 'IG001';
            END IF;
            EXIT;
        EXCEPTION WHEN SQLSTATE 'IG001' THEN
            -- What this turn emitted is undone. The same id in the ledger is this very request, whose first answer was lost.
            SELECT array_agg(CASE WHEN what IN ('REPLAYED', 'RECEIPT_CONFLICT') THEN 'REPLAYED'
                                  WHEN what <> 'STORED' THEN 'REFUSED'
                                  WHEN what IS NOT NULL AND begins[ord] AND root <> admitted_roots[ord] THEN 'MOVED'
                                  ELSE outcome END ORDER BY ord),
                   array_agg(CASE WHEN what <> 'STORED' THEN what ELSE detail END ORDER BY ord),
                   array_agg(CASE WHEN what IN ('REPLAYED', 'RECEIPT_CONFLICT') THEN receipt_ids[ord] ELSE first_id END ORDER BY ord)
            INTO outcomes, details, first_ids
            FROM unnest(outcomes, details, first_ids) WITH ORDINALITY AS u(outcome, detail, first_id, ord)
            LEFT JOIN unnest(chosen, emitted_outcomes, emitted_roots) AS e(o, what, root) ON e.o = u.ord;
        END;
    END LOOP;

    IF chosen IS NOT NULL THEN
        WITH i AS MATERIALIZED (
            SELECT o, at, tenants[o] AS tenant, principal_keys[o] AS principal_key, receipt_ids[o] AS receipt_id, digests[o] AS digest,
                   coalesce(task_ids[o], receipt_ids[o]) AS task_id, admitted_roots[o] AS root_id, capability_ids[o] AS capability_id
            FROM unnest(chosen, times) AS u(o, at)
        ), roots AS (
            INSERT INTO root AS r (tenant, root_task_id, version, descendants)
            SELECT tenant, root_id, count(*), count(*) FILTER (WHERE begins[o] AND depths[o] > 0) FROM i WHERE admits[o] GROUP BY 1, 2
            ON CONFLICT (root_task_id, tenant) DO UPDATE SET
                version = r.version + excluded.version, descendants = r.descendants + excluded.descendants
        ), capabilities AS (
            INSERT INTO capability AS c (tenant, root_task_id, capability_id, admissions)
            SELECT tenant, root_id, capability_id, count(*) FROM i WHERE admits[o] AND capability_id IS NOT NULL GROUP BY 1, 2, 3
            ON CONFLICT (root_task_id, capability_id, tenant) DO UPDATE SET admissions = c.admissions + excluded.admissions
        ), tasks AS (
            INSERT INTO admitted (tenant, task_id, root_task_id, parent_task_id, depth, budget, recent, receipt_id, principal_key, digest)
            SELECT tenant, task_id, root_id, parent_ids[o], depths[o], budgets[o], recents[o], receipt_id, principal_key, digest
            FROM i WHERE begins[o]
        ), leases AS (
            INSERT INTO lease AS l (tenant, lease_id, spawned)
            SELECT tenant, lease_ids[o], count(*) FROM i WHERE spawns[o] GROUP BY 1, 2
            ON CONFLICT (lease_id, tenant) DO UPDATE SET spawned = l.spawned + excluded.spawned
        ), rates AS (
            INSERT INTO rate AS r (tenant, rate_key, tat)
            SELECT tenants[k.item], k.rate_key, max(k.tat) FROM unnest(rate_items, rate_keys, rate_tats) AS k(item, rate_key, tat)
            WHERE k.tat IS NOT NULL AND outcomes[k.item] IS NULL GROUP BY 1, 2
            ON CONFLICT (rate_key, tenant) DO UPDATE SET tat = excluded.tat
        ), requests AS (
            INSERT INTO request AS r (tenant, principal_key, idempotency_key, digest, receipt_id, stored_at)
            SELECT tenant, principal_key, idempotency_keys[o], digest, receipt_id, at FROM i WHERE idempotency_keys[o] IS NOT NULL
            ON CONFLICT (idempotency_key, principal_key, tenant) DO UPDATE SET
                digest = excluded.digest, receipt_id = excluded.receipt_id, stored_at = excluded.stored_at
        ), forwards AS (
            INSERT INTO forward (tenant, receipt_id, target, escalate_to)
            SELECT tenants[f.item], receipt_ids[f.item], f.target, f.escalate_to
            FROM unnest(forward_items, forward_targets, forward_escalations) AS f(item, target, escalate_to)
            WHERE outcomes[f.item] IS NULL
        ), used AS (
            -- Only who raises it touches the row: an upsert that changes nothing would lock it, and every user of the policy wait.
            INSERT INTO profile AS p (tenant, profile, revision)
            SELECT tenant, profiles[o], max(revisions[o]) FROM i
            WHERE raises[o] AND (used_revisions[o] >= revisions[o]) IS NOT TRUE GROUP BY 1, 2
            ON CONFLICT (profile, tenant) DO UPDATE SET revision = excluded.revision
        )
        -- Last, and sorted: two transactions with the same new policy wait here for each other, holding everything else already.
        INSERT INTO ruleset (policy_hash, body)
        SELECT DISTINCT ON (policy_hashes[o]) policy_hashes[o], rulesets[o] FROM i
        WHERE policy_hashes[o] IS NOT NULL AND rulesets[o] IS NOT NULL ORDER BY policy_hashes[o]
        ON CONFLICT (policy_hash) DO NOTHING;
    END IF;

    RETURN QUERY
    SELECT u.ord::integer, coalesce(u.outcome, 'STORED'), coalesce(u.first_id, receipt_ids[u.ord]), coalesce(times[array_position(chosen, u.ord::integer)], first.stored_at),
           first.body, u.detail
    FROM unnest(outcomes, first_ids, details) WITH ORDINALITY AS u(outcome, first_id, detail, ord)
    LEFT JOIN LATERAL (SELECT r.stored_at, r.body FROM memorygate.receipt(tenants[u.ord], u.first_id) AS r
                       WHERE u.outcome = 'REPLAYED') AS first ON true;
END
$$;
COMMENT ON FUNCTION interrogate.record IS 'Stores each decision with its receipt and its counters, or says why nothing of it is stored. One row for each.';
