-- `asyncgate rebuild`: what `task` and `need` are by the receipts (rebuilding.py). Run as a whole, in one transaction.

LOCK TABLE asyncgate.task, asyncgate.need IN ACCESS EXCLUSIVE MODE;
DELETE FROM asyncgate.need;
DELETE FROM asyncgate.task;

-- AsyncGate's receipts of the open obligations of which it is the custodian.
CREATE TEMPORARY TABLE history ON COMMIT DROP AS
SELECT o.tenant, o.obligation_id, o.task_id, o.principal_ai, t.root_task_id, r.receipt_id, r.phase, r.stored_at, r.body::json AS fields
FROM memorygate.obligation AS o
JOIN memorygate.task AS t ON t.task_id = o.task_id AND t.tenant = o.tenant
JOIN memorygate.receipt AS r ON r.task_id = o.task_id AND r.tenant = o.tenant AND r.obligation_id = o.obligation_id
WHERE o.state = 'open' AND o.kind = 'obligation' AND o.custodian = 'svc:asyncgate' AND r.body::json ->> 'emitter' = 'svc:asyncgate';
CREATE INDEX ON history (obligation_id, tenant, phase, stored_at);
ANALYZE history;

INSERT INTO asyncgate.task (tenant, task_id, obligation_id, principal_ai, capability, minter, root_task_id, depth, authority,
                            escalation_to, document, digest, not_before, ttl_seconds, max_ttl_seconds, max_renewals,
                            max_lifetime_seconds, max_leases, accepted_by, accepted_at, available_at, seq, waits, evidence, cause,
                            number, last_holder, lease_id, holder, issued_by, issued_at, lease_until, latest_expiry, renewals_left)
SELECT a.tenant, a.task_id, a.obligation_id, a.principal_ai, a.task ->> 'capability', a.parked ->> 'minter', a.root_task_id,
       (a.parked ->> 'depth')::integer, a.authority, a.escalation_to, a.document, NULL, a.not_before,
       (a.terms ->> 'ttl_seconds')::integer, (a.terms ->> 'max_ttl_seconds')::integer, (a.terms ->> 'max_renewals')::integer,
       (a.terms ->> 'max_lifetime_seconds')::integer, (a.terms ->> 'max_leases')::integer, a.receipt_id, a.stored_at,
       greatest(back.stored_at, closed.at, a.not_before), nextval('asyncgate.line'), coalesce(needs.open, 0),
       coalesce(needs.closed, '{}'), back.receipt_id, coalesce(last.number, 0), last.holder,
       live.lease_id, live.holder, live.receipt_id, live.stored_at, live.until,
       live.stored_at + (a.terms ->> 'max_lifetime_seconds')::integer * interval '1 second',
       CASE WHEN live.lease_id IS NOT NULL THEN (a.terms ->> 'max_renewals')::integer END
FROM (SELECT h.*, h.fields -> 'body' AS task, (h.fields -> 'body')::text AS document, q.parked, q.parked -> 'terms' AS terms,
             CASE WHEN json_typeof(h.fields -> 'body' -> 'authority') <> 'null' THEN (h.fields -> 'body' -> 'authority')::text END AS authority,
             (h.fields -> 'body' ->> 'not_before')::timestamptz AS not_before,
             ARRAY(SELECT json_array_elements_text(h.fields -> 'body' -> 'escalation_to')) AS escalation_to
      FROM history AS h
      CROSS JOIN LATERAL (SELECT x.fields -> 'body' AS parked FROM history AS x
                          WHERE x.tenant = h.tenant AND x.obligation_id = h.obligation_id AND x.phase = 'queued'
                          ORDER BY x.stored_at LIMIT 1) AS q
      WHERE h.phase = 'accepted') AS a
CROSS JOIN LATERAL (SELECT x.receipt_id, x.stored_at FROM history AS x
                    WHERE x.tenant = a.tenant AND x.obligation_id = a.obligation_id AND x.phase IN ('queued', 'expired', 'revoked')
                    ORDER BY x.stored_at DESC LIMIT 1) AS back
LEFT JOIN LATERAL (SELECT x.fields ->> 'recipient_ai' AS holder, (x.fields ->> 'attempt')::integer AS number FROM history AS x
                   WHERE x.tenant = a.tenant AND x.obligation_id = a.obligation_id AND x.phase = 'lease_issued'
                   ORDER BY x.stored_at DESC LIMIT 1) AS last ON true
LEFT JOIN LATERAL (SELECT x.receipt_id, x.stored_at, x.fields ->> 'recipient_ai' AS holder, x.fields -> 'body' ->> 'lease_id' AS lease_id,
                          (x.fields -> 'body' ->> 'expires_at')::timestamptz AS until
                   FROM history AS x
                   WHERE x.tenant = a.tenant AND x.obligation_id = a.obligation_id AND x.phase = 'lease_issued'
                     AND x.stored_at > back.stored_at
                   ORDER BY x.stored_at DESC LIMIT 1) AS live ON true
LEFT JOIN LATERAL (SELECT count(*) FILTER (WHERE o.state = 'open')::integer AS open,
                          array_agg(o.closed_by ORDER BY o.closed_at, o.closed_by) FILTER (WHERE o.state <> 'open') AS closed
                   FROM json_array_elements_text(a.task -> 'needs') AS n(obligation_id)
                   JOIN memorygate.obligation AS o ON o.obligation_id = n.obligation_id AND o.kind = 'obligation' AND o.tenant = a.tenant
                  ) AS needs ON true
LEFT JOIN LATERAL (SELECT max(o.closed_at) AS at
                   FROM json_array_elements_text(a.task -> 'needs') AS n(obligation_id)
                   JOIN memorygate.obligation AS o ON o.obligation_id = n.obligation_id AND o.kind = 'obligation' AND o.tenant = a.tenant
                  ) AS closed ON true
ORDER BY greatest(back.stored_at, closed.at, a.not_before), a.stored_at, a.receipt_id;

INSERT INTO asyncgate.need (tenant, obligation_id, task_id, elsewhere)
SELECT h.tenant, n.obligation_id, h.task_id, o.custodian <> 'svc:asyncgate'
FROM history AS h
CROSS JOIN LATERAL json_array_elements_text(h.fields -> 'body' -> 'needs') AS n(obligation_id)
JOIN memorygate.obligation AS o ON o.obligation_id = n.obligation_id AND o.kind = 'obligation' AND o.tenant = h.tenant
WHERE h.phase = 'accepted' AND o.state = 'open';
