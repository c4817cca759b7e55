-- One batch of receipts, one transaction: each row is judged by custody as it stands when its turn comes, and stored or refused
-- by itself. A refusal is a row of the answer, never an error, so that one emitter cannot spoil another's batch.
-- What a row does not have is '' in the arrays (no name is blank): a driver looks at each NULL twice, and there are many.

CREATE FUNCTION memorygate.lock_key(name text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended(name, 20270000) & x'3fffffffffffffff'::bigint;

CREATE FUNCTION memorygate.link(previous bytea, digest bytea, receipt_id text, "position" bigint, stored_at timestamptz) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(previous || digest || convert_to(
    receipt_id || '/' || "position"::text || '/' || (extract(epoch FROM stored_at) * 1000000)::bigint::text, 'UTF8'));

CREATE FUNCTION memorygate.chain_seed(tenant uuid, root_task_id text) RETURNS bytea
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN sha256(convert_to(tenant::text || '/' || root_task_id, 'UTF8'));

CREATE FUNCTION memorygate.append(
    tenants uuid[], receipt_ids text[], kinds text[], phases text[], rights text[], emitters text[],
    task_ids text[], parent_ids text[], obligation_ids text[], owners text[], recipients text[], statuses text[],
    causes text[], dedupe_keys text[], dedupe_digests bytea[], dues text[],
    bodies text[], digests bytea[], signatures text[]
) RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = memorygate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    task_keys text[];
    parent_keys text[];
    roots text[];
    rounds integer[];
    last_round integer;
    base timestamptz;
    told_ordinal integer[] := '{}';
    told_outcome text[] := '{}';
    told_receipt text[] := '{}';
    told_stored timestamptz[] := '{}';
    told_position bigint[] := '{}';
    t_ordinal integer[]; t_outcome text[]; t_receipt text[]; t_stored timestamptz[]; t_position bigint[];
    earlier integer;
    lowest text;
    highest text;
    told integer := 0;
BEGIN
    -- Locks come in one global order (names, then roots, each sorted), so that batches never wait for each other in a circle.
    -- Tasks and obligations share one space of names, because an obligation is mostly named like its task.
    PERFORM pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT lock_key(name) AS key
        FROM unnest(tenants, receipt_ids, task_ids, obligation_ids, emitters, dedupe_keys) AS b(tenant, receipt_id, task_id, obligation_id, emitter, dedupe_key)
        CROSS JOIN LATERAL (VALUES
            (tenant || 'r' || receipt_id), (tenant || 'n' || task_id), (tenant || 'n' || obligation_id),
            (tenant || 'd' || emitter || '/' || nullif(dedupe_key, ''))) AS names(name)
        WHERE name IS NOT NULL ORDER BY key) AS wanted;

    -- Every look-up below is a subquery with a LIMIT: planned by itself it can only be one descent of an index. As a join it was
    -- planned while the tables were empty, and went on reading all of them when they no longer were.

    -- A task's root is settled when the task is first seen: its parent's root if the ledger knows the parent, else itself.
    SELECT array_agg(b.tenant || b.task_id ORDER BY b.ord),
           array_agg(b.tenant || b.parent_id ORDER BY b.ord),
           array_agg(coalesce(own.root_task_id, parent.root_task_id, CASE WHEN b.parent_id IS NULL THEN b.task_id END) ORDER BY b.ord)
    INTO task_keys, parent_keys, roots
    FROM (SELECT u.tenant, u.task_id, u.ord,
                 first_value(nullif(u.parent_id, '')) OVER (PARTITION BY u.tenant, u.task_id ORDER BY u.ord) AS parent_id
          FROM unnest(tenants, task_ids, parent_ids) WITH ORDINALITY AS u(tenant, task_id, parent_id, ord)) AS b
    LEFT JOIN LATERAL (SELECT t.root_task_id FROM task AS t
                       WHERE t.tenant = b.tenant AND t.task_id = b.task_id LIMIT 1) AS own ON true
    LEFT JOIN LATERAL (SELECT t.root_task_id FROM task AS t
                       WHERE own.root_task_id IS NULL AND t.tenant = b.tenant AND t.task_id = b.parent_id LIMIT 1) AS parent ON true;

    IF array_position(roots, NULL) IS NOT NULL THEN
        FOR i IN 1..cardinality(roots) LOOP
            IF roots[i] IS NULL THEN
                earlier := array_position(task_keys, task_keys[i]);
                IF earlier = i THEN
                    earlier := array_position(task_keys, parent_keys[i]);
                END IF;
                roots[i] := CASE WHEN earlier < i THEN roots[earlier] ELSE task_ids[i] END;
            END IF;
        END LOOP;
    END IF;

    PERFORM pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT lock_key(tenant || 'R' || root) | x'4000000000000000'::bigint AS key
        FROM unnest(tenants, roots) AS b(tenant, root) ORDER BY key) AS wanted;

    -- Receipts of one obligation follow each other in rounds, each judged by what the one before it left. An id or a key that
    -- comes twice is rare: then one by one.
    SELECT CASE WHEN count(DISTINCT tenant || receipt_id) < count(*)
                  OR count(DISTINCT tenant || emitter || '/' || nullif(dedupe_key, '')) < count(nullif(dedupe_key, ''))
                THEN array_agg(ord ORDER BY ord) ELSE array_agg(round ORDER BY ord) END
    INTO rounds
    FROM (SELECT *, CASE WHEN kind IN ('obligation', 'startup')
                         THEN row_number() OVER (PARTITION BY tenant, kind, obligation_id ORDER BY ord) ELSE 1 END::integer AS round
          FROM unnest(tenants, receipt_ids, kinds, obligation_ids, emitters, dedupe_keys)
               WITH ORDINALITY AS u(tenant, receipt_id, kind, obligation_id, emitter, dedupe_key, ord)) AS b;
    SELECT max(round) INTO last_round FROM unnest(rounds) AS u(round);

    -- The ledger's clock never goes back, whatever the machine's does: everything committed so far is in `tally`.
    SELECT greatest(clock_timestamp(), max(last_stored_at) + interval '1 microsecond') INTO base
    FROM tally WHERE tenant = ANY (tenants);

    -- Which partitions may hold these ids is known before the statement starts: it opens those and no others.
    SELECT min(id COLLATE "C"), max(id COLLATE "C") INTO lowest, highest FROM unnest(receipt_ids) AS u(id);

    FOR this_round IN 1..last_round LOOP
        WITH RECURSIVE b AS MATERIALIZED (
            SELECT u.round, u.tenant, u.receipt_id, u.kind, u.phase, u."right", u.emitter, u.task_id, u.root, u.obligation_id,
                   u.owner, u.recipient, u.status, nullif(u.cause, '') AS cause, nullif(u.dedupe_key, '') AS dedupe_key,
                   u.dedupe_digest, nullif(u.due, '')::timestamptz AS due, u.body, u.digest, nullif(u.signature, '') AS signature, u.ord
            FROM unnest(rounds, tenants, receipt_ids, kinds, phases, rights, emitters, task_ids, roots, obligation_ids,
                                   owners, recipients, statuses, causes, dedupe_keys, dedupe_digests, dues, bodies, digests, signatures)
                WITH ORDINALITY AS u(round, tenant, receipt_id, kind, phase, "right", emitter, task_id, root, obligation_id,
                                     owner, recipient, status, cause, dedupe_key, dedupe_digest, due, body, digest, signature, ord)
            WHERE u.round = this_round
        ), judged AS MATERIALIZED (
            SELECT b.*,
                coalesce(seen.stored_at, known.stored_at) AS first_at,
                coalesce(seen.position, known.position) AS first_place, coalesce(root_task.length, 0) AS length,
                coalesce(root_task.head, chain_seed(b.tenant, b.root)) AS head,
                CASE WHEN seen.digest IS NULL THEN known.receipt_id END AS twin_id,
                held.state IS NULL AS opens, held.custodian, held.opened_by, held.opened_at, held.moved_by, held.custody_at,
                CASE
                    WHEN seen.digest = b.digest THEN 'REPLAYED'
                    WHEN seen.digest IS NOT NULL THEN 'RECEIPT_CONFLICT'
                    WHEN known.digest = b.dedupe_digest THEN 'REPLAYED'
                    WHEN known.digest IS NOT NULL THEN 'DEDUPE_CONFLICT'
                    WHEN b.kind NOT IN ('obligation', 'startup') THEN 'STORED'
                    WHEN held.state IS NULL AND b.phase <> 'accepted' THEN 'OBLIGATION_NOT_ACCEPTED'
                    WHEN held.state IS NULL AND b."right" = 'custodian' THEN 'MAY_NOT_OPEN'
                    WHEN held.state IS NULL AND b."right" = 'open' AND b.owner <> b.emitter THEN 'NOT_FOR_OTHERS'
                    WHEN held.state IS NULL THEN 'STORED'
                    WHEN b."right" <> 'emit' AND held.custodian <> b.emitter THEN 'NOT_CUSTODIAN'
                    WHEN held.principal_ai <> b.owner THEN 'NOT_ITS_PRINCIPAL'
                    WHEN held.state <> 'open' THEN 'OBLIGATION_ALREADY_TERMINATED'
                    WHEN held.task_id <> b.task_id THEN 'TASK_MISMATCH'
                    ELSE 'STORED'
                END AS outcome
            FROM b
            LEFT JOIN LATERAL (SELECT r.digest, r.stored_at, r.position FROM receipt AS r
                               WHERE r.tenant = b.tenant AND r.receipt_id = b.receipt_id
                                 AND r.receipt_id BETWEEN lowest AND highest LIMIT 1) AS seen ON true
            LEFT JOIN LATERAL (SELECT d.* FROM dedupe AS d
                               WHERE d.tenant = b.tenant AND d.emitter = b.emitter AND d.dedupe_key = b.dedupe_key LIMIT 1) AS known ON true
            LEFT JOIN LATERAL (SELECT o.* FROM obligation AS o
                               WHERE b.kind IN ('obligation', 'startup')
                                 AND o.tenant = b.tenant AND o.kind = b.kind AND o.obligation_id = b.obligation_id LIMIT 1) AS held ON true
            LEFT JOIN LATERAL (SELECT t.length, t.head FROM task AS t
                               WHERE t.tenant = b.tenant AND t.task_id = b.root LIMIT 1) AS root_task ON true
        ), ranked AS MATERIALIZED (
            SELECT *, base + (told + row_number() OVER (ORDER BY ord)) * interval '1 microsecond' AS at,
                   row_number() OVER (PARTITION BY tenant, root ORDER BY ord) AS rank
            FROM judged WHERE outcome = 'STORED'
        ), later AS MATERIALIZED (
            SELECT * FROM ranked WHERE rank > 1
        ), stored AS (
            -- Each receipt of a root hangs on the one before it; mostly every root comes once, and `later` is empty.
            SELECT r.*, r.length + 1 AS place, r.head AS previous, link(r.head, r.digest, r.receipt_id, r.length + 1, r.at) AS chain
            FROM ranked AS r WHERE r.rank = 1
            UNION ALL
            SELECT l.*, s.place + 1, s.chain, link(s.chain, l.digest, l.receipt_id, s.place + 1, l.at)
            FROM stored AS s JOIN later AS l ON l.rank = s.rank + 1 AND l.tenant = s.tenant AND l.root = s.root
        ), receipts AS (
            INSERT INTO receipt (tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id, caused_by,
                                 body, digest, previous, chain, signature)
            SELECT tenant, receipt_id, at, kind, phase, task_id, root, place, obligation_id, cause, body, digest, previous, chain, signature
            FROM stored
        ), roots_moved AS (
            INSERT INTO task (tenant, task_id, root_task_id, length, head)
            SELECT DISTINCT ON (tenant, root) tenant, root, root, place, chain FROM stored ORDER BY tenant, root, place DESC
            ON CONFLICT (task_id, tenant) DO UPDATE SET length = excluded.length, head = excluded.head
        ), tasks AS (
            INSERT INTO task (tenant, task_id, root_task_id)
            SELECT DISTINCT tenant, task_id, root FROM stored WHERE task_id <> root
            ON CONFLICT (task_id, tenant) DO NOTHING
        ), obligations AS (
            INSERT INTO obligation (tenant, kind, obligation_id, task_id, principal_ai, custodian, state, opened_by, opened_at,
                                    moved_by, custody_at, due_at, closed_by, closed_at)
            SELECT tenant, kind, obligation_id, task_id, owner,
                   CASE WHEN opens OR phase = 'escalate' THEN recipient ELSE custodian END,
                   CASE WHEN phase = 'complete' THEN status ELSE 'open' END,
                   coalesce(opened_by, receipt_id), coalesce(opened_at, at),
                   CASE WHEN opens OR phase = 'escalate' THEN receipt_id ELSE moved_by END,
                   CASE WHEN opens OR phase = 'escalate' THEN at ELSE custody_at END,
                   due, CASE WHEN phase = 'complete' THEN receipt_id END, CASE WHEN phase = 'complete' THEN at END
            FROM stored WHERE kind IN ('obligation', 'startup') AND (opens OR phase <> 'accepted')
            ON CONFLICT (obligation_id, kind, tenant) DO UPDATE SET
                custodian = excluded.custodian, state = excluded.state, moved_by = excluded.moved_by,
                custody_at = excluded.custody_at, closed_by = excluded.closed_by, closed_at = excluded.closed_at
        ), remembered AS (
            INSERT INTO dedupe (tenant, emitter, dedupe_key, receipt_id, digest, stored_at, position)
            SELECT tenant, emitter, dedupe_key, receipt_id, dedupe_digest, at, place FROM stored WHERE dedupe_key IS NOT NULL
        )
        SELECT array_agg(j.ord), array_agg(CASE WHEN j.outcome = 'STORED' AND j.opens THEN 'OPENED' ELSE j.outcome END),
               array_agg(coalesce(j.twin_id, j.receipt_id)), array_agg(coalesce(j.first_at, s.at, base)), array_agg(coalesce(j.first_place, s.place, 0))
        INTO t_ordinal, t_outcome, t_receipt, t_stored, t_position
        FROM judged AS j LEFT JOIN stored AS s ON s.ord = j.ord;
        told := told + cardinality(t_ordinal);
        told_ordinal := told_ordinal || t_ordinal; told_outcome := told_outcome || t_outcome;
        told_receipt := told_receipt || t_receipt; told_stored := told_stored || t_stored;
        told_position := told_position || t_position;
    END LOOP;

    INSERT INTO tally AS t (tenant, slot, receipts, obligations, succeeded, failed, canceled, startups, startups_ready, startups_failed, last_stored_at)
    SELECT tenants[o], pg_backend_pid() % 16, count(*),
           count(*) FILTER (WHERE kinds[o] = 'obligation' AND what = 'OPENED'),
           count(*) FILTER (WHERE kinds[o] = 'obligation' AND phases[o] = 'complete' AND statuses[o] = 'success'),
           count(*) FILTER (WHERE kinds[o] = 'obligation' AND phases[o] = 'complete' AND statuses[o] = 'failure'),
           count(*) FILTER (WHERE kinds[o] = 'obligation' AND phases[o] = 'complete' AND statuses[o] = 'canceled'),
           count(*) FILTER (WHERE kinds[o] = 'startup' AND what = 'OPENED'),
           count(*) FILTER (WHERE kinds[o] = 'startup' AND phases[o] = 'complete' AND statuses[o] = 'success'),
           count(*) FILTER (WHERE kinds[o] = 'startup' AND phases[o] = 'complete' AND statuses[o] <> 'success'),
           max(at)
    FROM unnest(told_ordinal, told_outcome, told_stored) AS u(o, what, at)
    WHERE what IN ('STORED', 'OPENED')
    GROUP BY tenants[o] ORDER BY tenants[o]
    ON CONFLICT (tenant, slot) DO UPDATE SET
        receipts = t.receipts + excluded.receipts, obligations = t.obligations + excluded.obligations,
        succeeded = t.succeeded + excluded.succeeded, failed = t.failed + excluded.failed, canceled = t.canceled + excluded.canceled,
        startups = t.startups + excluded.startups, startups_ready = t.startups_ready + excluded.startups_ready,
        startups_failed = t.startups_failed + excluded.startups_failed,
        last_stored_at = greatest(t.last_stored_at, excluded.last_stored_at);

    RETURN QUERY
    SELECT o, CASE what WHEN 'OPENED' THEN 'STORED' ELSE what END, id, at, roots[o], place
    FROM unnest(told_ordinal, told_outcome, told_receipt, told_stored, told_position) AS u(o, what, id, at, place);
END
$$;
COMMENT ON FUNCTION memorygate.append IS 'Judges and stores a batch; one row of answer for each, in any order.';
