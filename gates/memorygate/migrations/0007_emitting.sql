-- How other gates write receipts: one emitting function per gate, in the transaction that changes the gate's own rows (D-57).
--
-- A gate's owner role may EXECUTE its emitting function and the look-ups at the end of this file, and nothing else. The function
-- takes canonical bodies, reads every column from them and computes the digest, so no column can contradict its body (D-59).
-- What is refused is a row of the answer, never an error: one receipt must not undo another gate's transaction (D-58).

-- A function of its own name: `append` stays one function, which the grants of the release before name without its arguments.
CREATE FUNCTION memorygate.append_grouped(
    tenants uuid[], receipt_ids text[], kinds text[], phases text[], rights text[], emitters text[],
    task_ids text[], parent_ids text[], obligation_ids text[], owners text[], recipients text[], statuses text[],
    causes text[], dedupe_keys text[], dedupe_digests bytea[], dues text[],
    bodies text[], digests bytea[], signatures text[], groups integer[], refusals text[]
) RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SET search_path = memorygate, pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    verdicts text[] := refusals;
    sent integer[];
    answered integer[];
    outcomes text[];
    ids text[];
    times timestamptz[];
    roots text[];
    positions bigint[];
    broken integer[];
BEGIN
    LOOP
        -- A group in which a row is refused falls as a whole. `verdicts` grows with each turn, so the loop ends.
        SELECT array_agg(g) INTO broken FROM unnest(groups, verdicts) AS u(g, verdict) WHERE g IS NOT NULL AND verdict IS NOT NULL;
        SELECT array_agg(coalesce(verdict, CASE WHEN g = ANY (broken) THEN 'GROUP_REFUSED' END) ORDER BY ord),
               array_agg(ord ORDER BY ord) FILTER (WHERE verdict IS NULL AND (g = ANY (broken)) IS NOT TRUE)
        INTO verdicts, sent
        FROM unnest(groups, verdicts) WITH ORDINALITY AS u(g, verdict, ord);

        BEGIN
            IF sent IS NULL THEN
                answered := '{}'; outcomes := '{}'; ids := '{}'; times := '{}'; roots := '{}'; positions := '{}';
            ELSIF cardinality(sent) = cardinality(bodies) THEN
                SELECT array_agg(a.ordinal), array_agg(a.outcome), array_agg(a.receipt_id), array_agg(a.stored_at),
                       array_agg(a.root_task_id), array_agg(a.position)
                INTO answered, outcomes, ids, times, roots, positions
                FROM memorygate.append(tenants, receipt_ids, kinds, phases, rights, emitters, task_ids, parent_ids, obligation_ids,
                                       owners, recipients, statuses, causes, dedupe_keys, dedupe_digests, dues, bodies, digests,
                                       signatures) AS a;
            ELSE
                SELECT array_agg(sent[a.ordinal]), array_agg(a.outcome), array_agg(a.receipt_id), array_agg(a.stored_at),
                       array_agg(a.root_task_id), array_agg(a.position)
                INTO answered, outcomes, ids, times, roots, positions
                FROM memorygate.append(
                    ARRAY(SELECT tenants[o] FROM unnest(sent) AS o), ARRAY(SELECT receipt_ids[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT kinds[o] FROM unnest(sent) AS o), ARRAY(SELECT phases[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT rights[o] FROM unnest(sent) AS o), ARRAY(SELECT emitters[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT task_ids[o] FROM unnest(sent) AS o), ARRAY(SELECT parent_ids[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT obligation_ids[o] FROM unnest(sent) AS o), ARRAY(SELECT owners[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT recipients[o] FROM unnest(sent) AS o), ARRAY(SELECT statuses[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT causes[o] FROM unnest(sent) AS o), ARRAY(SELECT dedupe_keys[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT dedupe_digests[o] FROM unnest(sent) AS o), ARRAY(SELECT dues[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT bodies[o] FROM unnest(sent) AS o), ARRAY(SELECT digests[o] FROM unnest(sent) AS o),
                    ARRAY(SELECT signatures[o] FROM unnest(sent) AS o)) AS a;
            END IF;

            SELECT array_agg(DISTINCT groups[o]) INTO broken
            FROM unnest(answered, outcomes) AS u(o, what) WHERE groups[o] IS NOT NULL AND what NOT IN ('STORED', 'REPLAYED');
            -- Rows of such a group that were stored already have to go again; rows of no group or of a whole one are judged anew.
            IF EXISTS (SELECT FROM unnest(answered, outcomes) AS u(o, what)
                       WHERE groups[o] = ANY (broken) AND what IN ('STORED', 'REPLAYED')) THEN
                RAISE EXCEPTION 'a group is refused' USING ERRCODE = 'MG001';
            END IF;

            RETURN QUERY
            SELECT o, what, id, at, root, place FROM unnest(answered, outcomes, ids, times, roots, positions) AS u(o, what, id, at, root, place)
            UNION ALL
            SELECT ord::integer, verdict, receipt_ids[ord], NULL, NULL, NULL
            FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, ord) WHERE verdict IS NOT NULL;
            RETURN;
        EXCEPTION WHEN SQLSTATE 'MG001' THEN
            -- Everything that this turn stored is undone, its locks are given back; the next turn takes them in the same order.
            SELECT array_agg(coalesce(verdict, (SELECT what FROM unnest(answered, outcomes) AS a(o, what)
                                                WHERE o = ord AND what NOT IN ('STORED', 'REPLAYED')
                                                  AND groups[o] = ANY (broken))) ORDER BY ord)
            INTO verdicts FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, ord);
        END;
    END LOOP;
END
$$;
COMMENT ON FUNCTION memorygate.append_grouped IS 'As append; rows of one group are stored together or not at all. `refusals`: what was refused before, by row.';

-- The columns of a receipt, read from its body, and why it cannot be stored (NULL: it can). Raises an error for what is no JSON.
CREATE FUNCTION memorygate.columns_of(body text)
RETURNS TABLE (
    tenant uuid, receipt_id text, kind text, phase text, emitter text, task_id text, parent_id text, obligation_id text, owner text,
    recipient text, status text, cause text, dedupe_key text, refusal text
)
LANGUAGE sql STABLE AS $$
    SELECT f.tenant_id::uuid, f.receipt_id, f.kind, f.phase, f.emitter, f.task_id, coalesce(f.parent_task_id, ''), f.obligation_id,
           f.principal_ai, f.recipient_ai, f.status, coalesce(f.caused_by_receipt_id, ''), coalesce(f.dedupe_key, ''),
           CASE WHEN
                num_nulls(f.tenant_id, f.receipt_id, f.kind, f.phase, f.emitter, f.task_id, f.obligation_id, f.principal_ai,
                          f.recipient_ai, f.status) > 0
                OR f.tenant_id <> (f.tenant_id::uuid)::text
                OR f.receipt_id !~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$' OR f.caused_by_receipt_id !~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
                OR greatest(length(f.task_id), length(f.parent_task_id), length(f.obligation_id), length(f.dedupe_key)) > 200
                OR greatest(length(f.principal_ai), length(f.recipient_ai), length(f.emitter)) > 253
                OR '' IN (f.task_id, f.parent_task_id, f.obligation_id, f.principal_ai, f.recipient_ai, f.dedupe_key)
                OR (f.phase = 'complete') <> (f.status IN ('success', 'failure', 'canceled'))
                -- Members twice, in another order or with white space between them would hash to something no reader computes again; a
                -- number or object under one of these names comes out of the record as text, and the column would differ from the body.
                OR body IS DISTINCT FROM (
                    SELECT '{' || string_agg(to_json(m.key)::text || ':' || m.value::text, ',' ORDER BY m.key COLLATE "C") || '}'
                    FROM json_each(body::json) AS m
                    HAVING count(*) = count(DISTINCT m.key) AND bool_and(left(m.value::text, 1) = '"' OR m.key <> ALL (
                        '{tenant_id,receipt_id,kind,phase,emitter,task_id,parent_task_id,obligation_id,principal_ai,recipient_ai,status,caused_by_receipt_id,dedupe_key}')))
           THEN 'INVALID_RECEIPT' END
    FROM (SELECT body::jsonb AS document) AS d
    CROSS JOIN LATERAL jsonb_to_record(d.document) AS f(
        tenant_id text, receipt_id text, kind text, phase text, emitter text, task_id text, parent_task_id text, obligation_id text,
        principal_ai text, recipient_ai text, status text, caused_by_receipt_id text, dedupe_key text)
$$;

CREATE FUNCTION memorygate.is_receipt(body text) RETURNS boolean
LANGUAGE plpgsql STABLE AS $$
BEGIN
    -- All columns are asked for: what nobody asks for is not computed, and then its error not found.
    PERFORM c.* FROM memorygate.columns_of(body) AS c;
    RETURN true;
EXCEPTION WHEN others THEN
    RETURN false;
END
$$;
COMMENT ON FUNCTION memorygate.is_receipt IS 'Whether columns_of can read it: JSON, an object, a tenant that is a uuid, no character PostgreSQL cannot hold.';

CREATE FUNCTION memorygate.emit(gate text, allowed text[], bodies text[], groups integer[])
RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SET search_path = memorygate, pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    gates CONSTANT text[] := '{svc:interrogate,svc:asyncgate,svc:depotgate}';
    readable text[] := bodies;
    tenants uuid[]; ids text[]; kinds text[]; phases text[]; rights text[]; emitters text[]; tasks text[]; parents text[];
    obligations text[]; owners text[]; recipients text[]; statuses text[]; causes text[]; keys text[]; key_digests bytea[];
    digests bytea[]; nothing text[]; refusals text[];
BEGIN
    -- A second call would ask for names and roots while it holds the tally, against the one order of locks (D-58).
    IF current_setting('memorygate.emitted_in', true) = pg_current_xact_id()::text THEN
        RAISE EXCEPTION 'a transaction calls an emitting function once' USING ERRCODE = 'object_not_in_prerequisite_state';
    END IF;
    PERFORM set_config('memorygate.emitted_in', pg_current_xact_id()::text, true);
    IF cardinality(bodies) = 0 THEN
        RETURN;
    END IF;

    LOOP
        BEGIN
            SELECT array_agg(c.tenant ORDER BY ord), array_agg(c.receipt_id ORDER BY ord), array_agg(c.kind ORDER BY ord),
                   array_agg(c.phase ORDER BY ord), array_agg(CASE c.kind WHEN 'obligation' THEN 'custodian' ELSE 'emit' END ORDER BY ord),
                   array_agg(c.emitter ORDER BY ord), array_agg(c.task_id ORDER BY ord), array_agg(c.parent_id ORDER BY ord),
                   array_agg(c.obligation_id ORDER BY ord), array_agg(c.owner ORDER BY ord), array_agg(c.recipient ORDER BY ord),
                   array_agg(c.status ORDER BY ord), array_agg(c.cause ORDER BY ord), array_agg(c.dedupe_key ORDER BY ord),
                   array_agg(CASE WHEN c.dedupe_key <> '' THEN dedupe_digest(u.body) ELSE ''::bytea END ORDER BY ord),
                   array_agg(sha256(convert_to(u.body, 'UTF8')) ORDER BY ord), array_agg(''::text ORDER BY ord),
                   array_agg(CASE
                       WHEN c.refusal IS NOT NULL THEN c.refusal
                       WHEN c.emitter <> gate THEN 'EMITTER_MISMATCH'
                       WHEN (c.kind || '/' || c.phase <> ALL (allowed)) THEN 'MAY_NOT_EMIT'
                       -- The ledger knows gates by name; principals are known to the gate, which judges them (D-71).
                       WHEN c.kind = 'obligation' AND c.recipient LIKE 'svc:%' AND c.recipient <> ALL (gates) THEN 'RECIPIENT_UNKNOWN'
                   END ORDER BY ord)
            INTO tenants, ids, kinds, phases, rights, emitters, tasks, parents, obligations, owners, recipients, statuses, causes, keys,
                 key_digests, digests, nothing, refusals
            FROM unnest(readable) WITH ORDINALITY AS u(body, ord) CROSS JOIN LATERAL columns_of(u.body) AS c;
            EXIT;
        EXCEPTION WHEN data_exception OR invalid_parameter_value OR untranslatable_character OR statement_too_complex THEN
            IF readable IS DISTINCT FROM bodies THEN
                RAISE;
            END IF;
            -- One of them is no JSON that PostgreSQL can read. It is refused like the others that are no receipts.
            readable := ARRAY(SELECT CASE WHEN is_receipt(body) THEN body
                                          ELSE '{"tenant_id":"00000000-0000-0000-0000-000000000000"}' END
                              FROM unnest(readable) WITH ORDINALITY AS u(body, ord) ORDER BY ord);
        END;
    END LOOP;

    RETURN QUERY
    SELECT * FROM memorygate.append_grouped(tenants, ids, kinds, phases, rights, emitters, tasks, parents, obligations, owners, recipients, statuses,
                                    causes, keys, key_digests, nothing, bodies, digests, nothing,
                                    coalesce(groups, array_fill(NULL::integer, ARRAY[cardinality(bodies)])), refusals);
END
$$;
COMMENT ON FUNCTION memorygate.emit IS 'What the emitting functions share. No role may call it: it believes its first two arguments.';

CREATE FUNCTION memorygate.emit_interrogate(bodies text[], groups integer[])
RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM memorygate.emit(
        'svc:interrogate', '{admission/accepted,admission/rejected,admission/complete,admission/escalate}', bodies, groups);
END
$$;
COMMENT ON FUNCTION memorygate.emit_interrogate IS 'Admissions: accepted or rejected for each decision; complete, escalate for what became of a call.';

CREATE FUNCTION memorygate.emit_asyncgate(bodies text[], groups integer[])
RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM memorygate.emit(
        'svc:asyncgate',
        '{obligation/accepted,obligation/complete,obligation/escalate,lifecycle/queued,lifecycle/lease_issued,lifecycle/reassigned,lifecycle/expired,lifecycle/revoked}',
        bodies, groups);
END
$$;
COMMENT ON FUNCTION memorygate.emit_asyncgate IS 'Obligations only as their custodian, and what happens to a task and its lease.';

CREATE FUNCTION memorygate.emit_depotgate(bodies text[], groups integer[])
RETURNS TABLE (ordinal integer, outcome text, receipt_id text, stored_at timestamptz, root_task_id text, "position" bigint)
LANGUAGE plpgsql SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp AS $$
BEGIN
    RETURN QUERY SELECT * FROM memorygate.emit('svc:depotgate', '{artifact/stored,artifact/retired}', bodies, groups);
END
$$;
COMMENT ON FUNCTION memorygate.emit_depotgate IS 'Artifacts that were stored or retired.';

-- What a gate asks before it decides. One row for each item, in any order; what the ledger does not know has NULLs beside its ordinal.

CREATE FUNCTION memorygate.custody(tenants uuid[], obligation_ids text[])
RETURNS TABLE (
    ordinal integer, state text, custodian text, principal_ai text, task_id text, root_task_id text, opened_by text, closed_by text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT u.ord::integer, o.state, o.custodian, o.principal_ai, o.task_id, t.root_task_id, o.opened_by, o.closed_by
    FROM unnest($1, $2) WITH ORDINALITY AS u(tenant, obligation_id, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM obligation AS x
                       WHERE x.obligation_id = u.obligation_id AND x.kind = 'obligation' AND x.tenant = u.tenant LIMIT 1) AS o ON true
    LEFT JOIN LATERAL (SELECT x.root_task_id FROM task AS x
                       WHERE x.task_id = o.task_id AND x.tenant = u.tenant LIMIT 1) AS t ON true;
END
$$;
COMMENT ON FUNCTION memorygate.custody IS 'Whether obligations are open, who has custody of them, and which receipts opened and closed them.';

CREATE FUNCTION memorygate.roots(tenants uuid[], task_ids text[]) RETURNS TABLE (ordinal integer, root_task_id text)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT u.ord::integer, t.root_task_id
    FROM unnest($1, $2) WITH ORDINALITY AS u(tenant, task_id, ord)
    LEFT JOIN LATERAL (SELECT x.root_task_id FROM task AS x
                       WHERE x.task_id = u.task_id AND x.tenant = u.tenant LIMIT 1) AS t ON true;
END
$$;
COMMENT ON FUNCTION memorygate.roots IS 'Which root task each task hangs under; NULL: the ledger has not seen the task.';

CREATE FUNCTION memorygate.stored_digests(tenants uuid[], receipt_ids text[]) RETURNS TABLE (ordinal integer, digest bytea)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = memorygate, pg_catalog, pg_temp
SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off AS $$
BEGIN
    RETURN QUERY
    SELECT u.ord::integer, r.digest
    FROM unnest($1, $2) WITH ORDINALITY AS u(tenant, receipt_id, ord)
    CROSS JOIN LATERAL (SELECT x.digest FROM receipt AS x WHERE x.tenant = u.tenant AND x.receipt_id = u.receipt_id LIMIT 1) AS r;
END
$$;
COMMENT ON FUNCTION memorygate.stored_digests IS 'Which of these receipts are stored, and with which digest: what is a replay is not judged anew.';
