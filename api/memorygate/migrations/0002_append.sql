-- One batch of receipts, one transaction: each row is judged by custody as it stands when its turn comes, and stored or refused
-- by itself. A refusal is a row of the answer, never an error, so that one emitter cannot spoil another's batch.

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
    causes text[], dedupe_keys text[], dedupe_digests bytea[], dues timestamptz[],
    bodies text[], digests bytea[], signatures text[]
) RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = memorygate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off
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
BEGIN
    -- Locks come in one global order (names, then roots, each sorted), so that batches never wait for each other in a circle.
    -- Tasks and obligations share one space of names, because an obligation is mostly named like its task.
    PERFORM pg_advisory_xact_lock(key) FROM (
        SELECT DISTINCT lock_key(name) AS key
        FROM unnest(tenants, receipt_ids, task_ids, obligation_ids, emitters, dedupe_keys) AS b(tenant, receipt_id, task_id, obligation_id, emitter, dedupe_key)
        CROSS JOIN LATERAL (VALUES
            (tenant || 'r' || receipt_id), (tenant || 'n' || task_id), (tenant || 'n' || obligation_id),
            (tenant || 'd' || emitter || '/' || dedupe_key)) AS names(name)
        WHERE name IS NOT NULL ORDER BY key) AS wanted;

    -- A task's root is settled when the task is first seen: its parent's root if the ledger knows the parent, else itself.
    SELECT array_agg(b.tenant || b.task_id ORDER BY b.ord),
           array_agg(b.tenant || b.parent_id ORDER BY b.ord),
           array_agg(coalesce(own.root_task_id, parent.root_task_id, CASE WHEN b.parent_id IS NULL THEN b.task_id END) ORDER BY b.ord)
    INTO task_keys, parent_keys, roots
    FROM (SELECT u.tenant, u.task_id, u.ord,
                 first_value(u.parent_id) OVER (PARTITION BY u.tenant, u.task_id ORDER BY u.ord) AS parent_id
          FROM unnest(tenants, task_ids, parent_ids) WITH ORDINALITY AS u(tenant, task_id, parent_id, ord)) AS b
    LEFT JOIN task AS own ON own.tenant = b.tenant AND own.task_id = b.task_id
    LEFT JOIN task AS parent ON own.task_id IS NULL AND parent.tenant = b.tenant AND parent.task_id = b.parent_id;

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

    -- Rows that share a root follow each other in rounds. Whatever else they share across roots: then one by one.
    SELECT CASE WHEN count(DISTINCT tenant || receipt_id) < count(*)
                  OR count(DISTINCT tenant || emitter || '/' || dedupe_key) < count(dedupe_key)
                  OR count(DISTINCT tenant || kind || obligation_id) < count(DISTINCT tenant || kind || obligation_id || '/' || root)
                THEN array_agg(ord ORDER BY ord) ELSE array_agg(round ORDER BY ord) END
    INTO rounds
    FROM (SELECT *, row_number() OVER (PARTITION BY tenant, root ORDER BY ord)::integer AS round
          FROM unnest(tenants, receipt_ids, kinds, obligation_ids, emitters, dedupe_keys, roots)
               WITH ORDINALITY AS u(tenant, receipt_id, kind, obligation_id, emitter, dedupe_key, root, ord)) AS b;
    SELECT max(round) INTO last_round FROM unnest(rounds) AS u(round);

    -- The ledger's clock never goes back, whatever the machine's does: everything committed so far is in `tally`.
    SELECT greatest(clock_timestamp(), max(last_stored_at) + interval '1 microsecond') INTO base
    FROM tally WHERE tenant = ANY (tenants);

    FOR this_round IN 1..last_round LOOP
        WITH b AS MATERIALIZED (
            SELECT u.* FROM unnest(rounds, tenants, receipt_ids, kinds, phases, rights, emitters, task_ids, roots, obligation_ids,
                                   owners, recipients, statuses, causes, dedupe_keys, dedupe_digests, dues, bodies, digests, signatures)
                WITH ORDINALITY AS u(round, tenant, receipt_id, kind, phase, "right", emitter, task_id, root, obligation_id,
                                     owner, recipient, status, cause, dedupe_key, dedupe_digest, due, body, digest, signature, ord)
            WHERE u.round = this_round
        ), judged AS MATERIALIZED (
            SELECT b.*,
                coalesce(seen.stored_at, twin.stored_at, base + b.ord * interval '1 microsecond') AS at,
                coalesce(seen.position, twin.position, coalesce(root_task.length, 0) + 1) AS place,
                coalesce(root_task.head, chain_seed(b.tenant, b.root)) AS previous,
                coalesce(twin.receipt_id, b.receipt_id) AS told_id,
                held.state IS NULL AS opens,
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
                               WHERE r.tenant = b.tenant AND r.receipt_id = b.receipt_id) AS seen ON true
            LEFT JOIN dedupe AS known ON known.tenant = b.tenant AND known.emitter = b.emitter AND known.dedupe_key = b.dedupe_key
            LEFT JOIN LATERAL (SELECT r.receipt_id, r.stored_at, r.position FROM receipt AS r
                               WHERE seen.digest IS NULL AND r.tenant = known.tenant AND r.receipt_id = known.receipt_id) AS twin ON true
            LEFT JOIN obligation AS held ON b.kind IN ('obligation', 'startup')
                 AND held.tenant = b.tenant AND held.kind = b.kind AND held.obligation_id = b.obligation_id
            LEFT JOIN task AS root_task ON root_task.tenant = b.tenant AND root_task.task_id = b.root
        ), stored AS MATERIALIZED (
            SELECT *, link(previous, digest, receipt_id, place, at) AS chain FROM judged WHERE outcome = 'STORED'
        ), receipts AS (
            INSERT INTO receipt (tenant, receipt_id, stored_at, kind, phase, task_id, root_task_id, position, obligation_id, caused_by,
                                 body, digest, previous, chain, signature)
            SELECT tenant, receipt_id, at, kind, phase, task_id, root, place, obligation_id, cause, body, digest, previous, chain, signature
            FROM stored
        ), roots_moved AS (
            INSERT INTO task (tenant, task_id, root_task_id, length, head)
            SELECT tenant, root, root, place, chain FROM stored
            ON CONFLICT (task_id, tenant) DO UPDATE SET length = excluded.length, head = excluded.head
        ), tasks AS (
            INSERT INTO task (tenant, task_id, root_task_id)
            SELECT tenant, task_id, root FROM stored WHERE task_id <> root
            ON CONFLICT (task_id, tenant) DO NOTHING
        ), opened AS (
            INSERT INTO obligation (tenant, kind, obligation_id, task_id, principal_ai, custodian, state, opened_by, opened_at,
                                    moved_by, custody_at, due_at)
            SELECT tenant, kind, obligation_id, task_id, owner, recipient, 'open', receipt_id, at, receipt_id, at, due
            FROM stored WHERE kind IN ('obligation', 'startup') AND opens
        ), moved AS (
            UPDATE obligation AS o SET custodian = s.recipient, moved_by = s.receipt_id, custody_at = s.at
            FROM stored AS s
            WHERE s.phase = 'escalate' AND o.tenant = s.tenant AND o.kind = s.kind AND o.obligation_id = s.obligation_id
        ), closed AS (
            UPDATE obligation AS o SET state = s.status, closed_by = s.receipt_id, closed_at = s.at
            FROM stored AS s
            WHERE s.phase = 'complete' AND o.tenant = s.tenant AND o.kind = s.kind AND o.obligation_id = s.obligation_id
        ), remembered AS (
            INSERT INTO dedupe (tenant, emitter, dedupe_key, receipt_id, digest)
            SELECT tenant, emitter, dedupe_key, receipt_id, dedupe_digest FROM stored WHERE dedupe_key IS NOT NULL
        )
        SELECT array_agg(ord), array_agg(CASE WHEN outcome = 'STORED' AND opens THEN 'OPENED' ELSE outcome END),
               array_agg(told_id), array_agg(at), array_agg(place)
        INTO t_ordinal, t_outcome, t_receipt, t_stored, t_position FROM judged;
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
