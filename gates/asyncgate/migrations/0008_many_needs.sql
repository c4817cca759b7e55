-- Parking in a time that grows with the needs of a batch and not with their square: 150 tasks that need 50 others each, which is a plan
-- of three groups one after the other, did not come to an end within the statement's time, and so were never parked.
--
-- Nothing else has changed: arguments, rows and locks are those of 0002.

CREATE OR REPLACE FUNCTION asyncgate.enqueue(
    prefix text, tenants uuid[], task_ids text[], obligation_ids text[], principals text[], capabilities text[], minters text[],
    parent_ids text[], authorities text[], escalations text[], documents text[], digests bytea[], not_befores timestamptz[],
    ttls integer[], max_ttls integer[], renewals integer[], lifetimes integer[], most_leases integer[],
    admission_ids text[], admission_depths integer[], groups integer[], accepted_forms text[], queued_forms text[],
    need_items integer[], need_ids text[]
) RETURNS TABLE (
    ordinal integer, outcome text, detail text, accepted_by text, accepted_at timestamptz, available_at timestamptz, waits_for text[]
)
LANGUAGE plpgsql SECURITY DEFINER
SET search_path = asyncgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    at timestamptz;
    verdicts text[];
    details text[];
    firsts integer[];
    roots text[];
    causes text[];
    depths integer[];
    need_states text[];
    need_custodians text[];
    need_receipts text[];
    missing_needs text[];
    crowded_needs text[];
    waits text[];
    evidences text[];
    chosen integer[];
    bodies text[];
    body_groups integer[];
    refused_groups integer[];
    emitted text[];
    times timestamptz[];
    parent integer;
BEGIN
    PERFORM CASE WHEN shared THEN pg_advisory_xact_lock_shared(key) ELSE pg_advisory_xact_lock(key) END
    FROM (SELECT lock_key(name) AS key, bool_and(shared) AS shared
          FROM (SELECT n.name, false
                FROM unnest(tenants, task_ids, obligation_ids, admission_ids) AS i(tenant, task_id, obligation_id, admission_id)
                CROSS JOIN LATERAL (VALUES (i.tenant || 'n' || i.task_id), (i.tenant || 'n' || i.obligation_id),
                                           (i.tenant || 'a' || i.admission_id)) AS n(name)
                UNION ALL
                SELECT tenants[k.item] || 'n' || k.need_id, true FROM unnest(need_items, need_ids) AS k(item, need_id)) AS u(name, shared)
          WHERE name IS NOT NULL GROUP BY 1 ORDER BY 1) AS wanted;
    at := clock_timestamp();

    SELECT array_agg(c.state ORDER BY c.ordinal), array_agg(c.custodian ORDER BY c.ordinal), array_agg(c.closed_by ORDER BY c.ordinal)
    INTO need_states, need_custodians, need_receipts
    FROM memorygate.custody(ARRAY(SELECT tenants[item] FROM unnest(need_items) WITH ORDINALITY AS u(item, ord) ORDER BY ord), need_ids) AS c;

    -- Of each task the first need that nobody opened, and the first for which 1,024 wait: those that are held, and those before it in this
    -- statement. Who waits for an obligation is counted once for each obligation, with its first row.
    IF cardinality(need_items) > 0 THEN
        SELECT array_agg(n.missing ORDER BY i.ord), array_agg(n.crowded ORDER BY i.ord) INTO missing_needs, crowded_needs
        FROM generate_subscripts(tenants, 1) AS i(ord)
        LEFT JOIN (SELECT l.item, (array_agg(l.need_id ORDER BY l.place) FILTER (WHERE l.state IS NULL))[1] AS missing,
                          (array_agg(l.need_id ORDER BY l.place) FILTER (WHERE l.state = 'open' AND l.waiting + l.before >= 1024))[1] AS crowded
                   FROM (SELECT k.*, max(CASE WHEN k.before = 0 THEN
                                   (SELECT count(*) FROM (SELECT FROM need AS x WHERE x.obligation_id = k.need_id AND x.tenant = k.tenant
                                                          LIMIT 1024) AS waiting) END)
                               OVER (PARTITION BY k.tenant, k.need_id) AS waiting
                         FROM (SELECT u.*, tenants[u.item] AS tenant,
                                      row_number() OVER (PARTITION BY tenants[u.item], u.need_id ORDER BY u.item) - 1 AS before
                               FROM unnest(need_items, need_ids, need_states) WITH ORDINALITY AS u(item, need_id, state, place)) AS k) AS l
                   GROUP BY l.item) AS n ON n.item = i.ord;
    END IF;

    -- A task that comes twice in one statement is answered like one that comes again; `firsts` says after which.
    SELECT array_agg(CASE
               WHEN i.first <> i.ord THEN 'AGAIN'
               WHEN own.task_id IS NOT NULL OR past.task_id IS NOT NULL THEN
                   CASE WHEN coalesce(own.digest, past.digest) = i.digest OR (own.digest IS NULL AND own.document = i.document)
                        THEN 'REPLAYED' ELSE 'TASK_CONFLICT' END
               WHEN c.state IS NULL THEN 'OBLIGATION_NOT_ACCEPTED'
               WHEN c.principal_ai <> i.principal THEN 'EMITTER_MISMATCH'
               WHEN c.state <> 'open' THEN 'OBLIGATION_ALREADY_TERMINATED'
               WHEN c.custodian <> 'svc:asyncgate' THEN 'NOT_CUSTODIAN'
               WHEN c.task_id <> i.task_id THEN 'TASK_MISMATCH'
               WHEN missing_needs[i.ord] IS NOT NULL THEN 'OBLIGATION_NOT_ACCEPTED'
               WHEN crowded_needs[i.ord] IS NOT NULL THEN 'TOO_MANY_WAIT'
               WHEN used.receipt_id IS NOT NULL OR i.admission_place > 1 THEN 'ADMISSION_USED'
           END ORDER BY i.ord),
           array_agg(coalesce(missing_needs[i.ord], crowded_needs[i.ord]) ORDER BY i.ord),
           array_agg(i.first ORDER BY i.ord), array_agg(c.root_task_id ORDER BY i.ord), array_agg(c.opened_by ORDER BY i.ord),
           array_agg(coalesce(admission_depths[i.ord], parent.depth + 1, past_parent.depth + 1) ORDER BY i.ord)
    INTO verdicts, details, firsts, roots, causes, depths
    FROM (SELECT u.*, min(u.ord) OVER (PARTITION BY u.tenant, u.task_id)::integer AS first,
                 CASE WHEN u.admission_id IS NOT NULL
                      THEN row_number() OVER (PARTITION BY u.tenant, u.admission_id ORDER BY u.ord) END AS admission_place
          FROM unnest(tenants, task_ids, principals, digests, documents, parent_ids, admission_ids)
               WITH ORDINALITY AS u(tenant, task_id, principal, digest, document, parent_id, admission_id, ord)) AS i
    JOIN LATERAL (SELECT x.* FROM memorygate.custody(tenants, obligation_ids) AS x OFFSET 0) AS c ON c.ordinal = i.ord
    LEFT JOIN LATERAL (SELECT x.task_id, x.digest, x.document FROM task AS x
                       WHERE x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS own ON true
    LEFT JOIN LATERAL (SELECT x.task_id, x.digest FROM archive AS x
                       WHERE x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS past ON true
    LEFT JOIN LATERAL (SELECT x.depth FROM task AS x
                       WHERE x.task_id = i.parent_id AND x.tenant = i.tenant LIMIT 1) AS parent ON true
    LEFT JOIN LATERAL (SELECT x.depth FROM archive AS x
                       WHERE x.task_id = i.parent_id AND x.tenant = i.tenant LIMIT 1) AS past_parent ON true
    LEFT JOIN LATERAL (SELECT x.receipt_id FROM admission AS x
                       WHERE x.receipt_id = i.admission_id AND x.tenant = i.tenant LIMIT 1) AS used ON true;

    -- One that comes twice with another content is in conflict, whatever becomes of the first.
    verdicts := ARRAY(SELECT CASE WHEN verdict = 'AGAIN' AND digests[ord] <> digests[firsts[ord]] THEN 'TASK_CONFLICT' ELSE verdict END
                      FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, ord) ORDER BY ord);

    -- All or none: where one of a batch cannot be parked, none of it is.
    refused_groups := ARRAY(SELECT DISTINCT g FROM unnest(groups, verdicts) AS u(g, verdict)
                            WHERE g IS NOT NULL AND verdict NOT IN ('AGAIN', 'REPLAYED'));
    verdicts := ARRAY(SELECT CASE WHEN g = ANY (refused_groups) AND coalesce(verdict, 'AGAIN') = 'AGAIN' THEN 'GROUP_REFUSED' ELSE verdict END
                      FROM unnest(groups, verdicts) WITH ORDINALITY AS u(g, verdict, ord) ORDER BY ord);

    -- A parent that is parked by this very statement.
    IF array_remove(parent_ids, NULL) <> '{}' THEN
        FOR i IN 1..cardinality(tenants) LOOP
            IF depths[i] IS NULL AND parent_ids[i] IS NOT NULL THEN
                SELECT min(ord) INTO parent FROM unnest(tenants, task_ids) WITH ORDINALITY AS u(tenant, task_id, ord)
                WHERE task_id = parent_ids[i] AND tenant = tenants[i] AND ord < i;
                depths[i] := depths[parent] + 1;
            END IF;
            depths[i] := coalesce(depths[i], 0);
        END LOOP;
    END IF;

    -- What each waits for and what met its needs before, as JSON arrays, in the order of its needs.
    IF cardinality(need_items) > 0 THEN
        SELECT array_agg(coalesce(k.open, '[]') ORDER BY i.ord), array_agg(coalesce(k.closed, '[]') ORDER BY i.ord)
        INTO waits, evidences
        FROM generate_subscripts(tenants, 1) AS i(ord)
        LEFT JOIN (SELECT item, to_json(array_agg(need_id ORDER BY place) FILTER (WHERE need_states[place] = 'open'))::text AS open,
                          to_json(array_agg(need_receipts[place] ORDER BY place) FILTER (WHERE need_states[place] <> 'open'))::text AS closed
                   FROM unnest(need_items, need_ids) WITH ORDINALITY AS u(item, need_id, place) GROUP BY item) AS k ON k.item = i.ord;
    END IF;

    SELECT array_agg(ord::integer ORDER BY ord) INTO chosen FROM unnest(verdicts) WITH ORDINALITY AS u(verdict, ord) WHERE verdict IS NULL;
    IF chosen IS NOT NULL THEN
        SELECT array_agg(body ORDER BY c.place, b.part), array_agg(coalesce(groups[c.o], -c.o) ORDER BY c.place, b.part)
        INTO bodies, body_groups
        FROM unnest(chosen) WITH ORDINALITY AS c(o, place)
        CROSS JOIN LATERAL (VALUES
            (1, put(put(accepted_forms[c.o], 'I', ulid(prefix, c.place * 2 - 2)), 'C', causes[c.o])),
            (2, replace(replace(replace(
                    put(put(queued_forms[c.o], 'I', ulid(prefix, c.place * 2 - 1)), 'C', ulid(prefix, c.place * 2 - 2)),
                    chr(30) || 'D', coalesce(depths[c.o], 0)::text),
                    chr(30) || 'V', coalesce(evidences[c.o], '[]')), chr(30) || 'W', coalesce(waits[c.o], '[]')))) AS b(part, body);
        SELECT array_agg(e.outcome ORDER BY e.ordinal), array_agg(e.stored_at ORDER BY e.ordinal)
        INTO emitted, times FROM memorygate.emit_asyncgate(bodies, body_groups) AS e;

        INSERT INTO task (tenant, task_id, obligation_id, principal_ai, capability, minter, root_task_id, depth, authority, escalation_to,
                          document, digest, not_before, ttl_seconds, max_ttl_seconds, max_renewals, max_lifetime_seconds, max_leases,
                          accepted_by, accepted_at, available_at, seq, waits, evidence, cause)
        SELECT tenants[o], task_ids[o], obligation_ids[o], principals[o], capabilities[o], minters[o], roots[o], coalesce(depths[o], 0),
               authorities[o], ARRAY(SELECT json_array_elements_text(escalations[o]::json)), documents[o], digests[o], not_befores[o],
               ttls[o], max_ttls[o], renewals[o], lifetimes[o], most_leases[o],
               ulid(prefix, place * 2 - 2), times[place * 2 - 1], greatest(at, not_befores[o]), nextval('asyncgate.line'),
               coalesce(json_array_length(waits[o]::json), 0),
               ARRAY(SELECT json_array_elements_text(coalesce(evidences[o], '[]')::json)), ulid(prefix, place * 2 - 1)
        FROM unnest(chosen) WITH ORDINALITY AS c(o, place)
        WHERE emitted[place * 2 - 1] = 'STORED' AND emitted[place * 2] = 'STORED' ORDER BY place;

        INSERT INTO need (tenant, obligation_id, task_id, elsewhere)
        SELECT tenants[k.item], k.need_id, task_ids[k.item], need_custodians[k.need_place] <> 'svc:asyncgate'
        FROM unnest(need_items, need_ids) WITH ORDINALITY AS k(item, need_id, need_place)
        WHERE need_states[k.need_place] = 'open'
          AND emitted[array_position(chosen, k.item) * 2 - 1] = 'STORED' AND emitted[array_position(chosen, k.item) * 2] = 'STORED';

        INSERT INTO admission (tenant, receipt_id, task_id)
        SELECT tenants[o], admission_ids[o], task_ids[o] FROM unnest(chosen) WITH ORDINALITY AS c(o, place)
        WHERE admission_ids[o] IS NOT NULL AND emitted[place * 2 - 1] = 'STORED' AND emitted[place * 2] = 'STORED';

        -- What the ledger refused, under the name it gives to the reason where the wire has one.
        SELECT array_agg(CASE WHEN c.place IS NULL THEN u.verdict
                              WHEN e.outcome = 'STORED' THEN 'PARKED'
                              WHEN e.outcome IN ('OBLIGATION_NOT_ACCEPTED', 'OBLIGATION_ALREADY_TERMINATED', 'NOT_CUSTODIAN', 'TASK_MISMATCH',
                                                 'GROUP_REFUSED') THEN e.outcome
                              WHEN e.outcome = 'NOT_ITS_PRINCIPAL' THEN 'EMITTER_MISMATCH' ELSE 'REFUSED' END ORDER BY u.ord),
               array_agg(CASE WHEN c.place IS NULL THEN u.detail WHEN e.outcome <> 'STORED' THEN e.outcome END ORDER BY u.ord)
        INTO verdicts, details
        FROM unnest(verdicts, details) WITH ORDINALITY AS u(verdict, detail, ord)
        LEFT JOIN unnest(chosen) WITH ORDINALITY AS c(o, place) ON c.o = u.ord
        LEFT JOIN LATERAL (SELECT CASE WHEN emitted[c.place * 2 - 1] NOT IN ('STORED', 'GROUP_REFUSED')
                                       THEN emitted[c.place * 2 - 1] ELSE emitted[c.place * 2] END AS outcome) AS e ON true;
    END IF;

    RETURN QUERY
    SELECT i.ord::integer,
           CASE WHEN i.verdict <> 'AGAIN' THEN i.verdict WHEN verdicts[firsts[i.ord]] = 'PARKED' THEN 'REPLAYED' ELSE verdicts[firsts[i.ord]] END,
           details[firsts[i.ord]],
           coalesce(own.accepted_by, past.accepted_by), coalesce(own.accepted_at, past.accepted_at),
           CASE WHEN own.waits = 0 THEN own.available_at END,
           CASE WHEN own.waits > 0 THEN ARRAY(SELECT x.obligation_id FROM need AS x
                                              WHERE x.task_id = i.task_id AND x.tenant = i.tenant ORDER BY 1) ELSE '{}' END
    FROM unnest(verdicts, tenants, task_ids) WITH ORDINALITY AS i(verdict, tenant, task_id, ord)
    LEFT JOIN LATERAL (SELECT x.* FROM task AS x
                       WHERE i.verdict IN ('PARKED', 'REPLAYED', 'AGAIN') AND x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS own ON true
    LEFT JOIN LATERAL (SELECT x.* FROM archive AS x
                       WHERE i.verdict IN ('REPLAYED', 'AGAIN') AND x.task_id = i.task_id AND x.tenant = i.tenant LIMIT 1) AS past ON true;
END
$$;
