-- Packets that nothing refers to leave; `status` means what is shown; the topology of a large tenant takes less time.

CREATE INDEX binding_digest ON metagate.binding (digest);

CREATE TABLE metagate.unbound (
    digest text COLLATE "C" PRIMARY KEY REFERENCES metagate.packet ON DELETE CASCADE,
    since timestamptz NOT NULL
);
COMMENT ON TABLE metagate.unbound IS
    'When a binding last let go of a packet: every session that was given the packet is older. Sessions themselves have no index '
    'that would say so.';
INSERT INTO metagate.unbound (digest, since)
SELECT p.digest, now() FROM metagate.packet AS p
WHERE NOT EXISTS (SELECT FROM metagate.binding AS b WHERE b.digest = p.digest);

CREATE FUNCTION metagate.mark_unbound() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO metagate.unbound (digest, since)
    SELECT DISTINCT g.digest, now() FROM gone AS g WHERE g.digest IS NOT NULL
    ON CONFLICT (digest) DO UPDATE SET since = excluded.since;
    RETURN NULL;
END $$;
CREATE TRIGGER unbound_by_update AFTER UPDATE ON metagate.binding REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION metagate.mark_unbound();
CREATE TRIGGER unbound_by_delete AFTER DELETE ON metagate.binding REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION metagate.mark_unbound();

-- The writer's lock keeps a publication that is just about to bind a packet again away; a bootstrap needs no lock, because
-- what it is given is bound, and what it replays (D-41) was given within 24 hours, and a packet stays for longer. Sessions
-- that are older than the retention and stay all the same, unmirrored ones, are looked for in the partitions of their time.
CREATE FUNCTION metagate.purge_packets(retention interval, batch integer) RETURNS bigint
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    edge timestamptz := now() - greatest(retention, interval '25 hours');
    -- Ids are made by the clock of whoever opens a session.
    youngest uuid := metagate.id_at(edge + interval '1 hour');
    removed bigint;
BEGIN
    IF retention < interval '1 minute' OR batch < 1 THEN
        RAISE EXCEPTION 'retention must be at least a minute' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    IF NOT EXISTS (
        SELECT FROM metagate.packet AS p LEFT JOIN metagate.unbound AS u ON u.digest = p.digest
        WHERE coalesce(u.since, p.created_at) < edge
            AND NOT EXISTS (SELECT FROM metagate.binding AS b WHERE b.digest = p.digest)
    ) OR NOT pg_try_advisory_xact_lock(5570193308531253605) THEN
        RETURN 0;
    END IF;
    WITH kept AS MATERIALIZED (
        SELECT DISTINCT s.digest FROM metagate.startup AS s WHERE s.startup_id < youngest
    ),
    due AS MATERIALIZED (
        SELECT p.digest
        FROM metagate.packet AS p LEFT JOIN metagate.unbound AS u ON u.digest = p.digest
        WHERE coalesce(u.since, p.created_at) < edge
            AND NOT EXISTS (SELECT FROM metagate.binding AS b WHERE b.digest = p.digest)
            AND NOT EXISTS (SELECT FROM kept AS k WHERE k.digest = p.digest)
        LIMIT batch
    )
    DELETE FROM metagate.packet AS p USING due AS d WHERE p.digest = d.digest;
    GET DIAGNOSTICS removed = ROW_COUNT;
    RETURN removed;
END $$;
COMMENT ON FUNCTION metagate.purge_packets IS
    'Remove packets that no binding has had for longer than the retention (and 25 hours at least), and no session that is kept was '
    'given. At most `batch`; none while a publication is written.';

-- As in 0003, but for `in_status`: a session that is shown as overdue is not among the OPEN ones (INV-022).
-- There is one index on sessions, and it does not help a filter. So a filtered page looks at no more than `span` sessions;
-- when that was not enough to fill it, a last row with the status 'LOOKED' says how far it came, and the next page goes on.
CREATE OR REPLACE FUNCTION metagate.startups(
    in_tenant uuid, in_status text, in_component text, in_principal text, after_startup uuid, page integer, span integer
) RETURNS SETOF metagate.startup_view
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    WITH edge AS MATERIALIZED (
        SELECT s.startup_id
        FROM metagate.startup AS s
        WHERE coalesce(in_status, in_component, in_principal) IS NOT NULL
            AND s.tenant = in_tenant AND s.startup_id < coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
        ORDER BY s.tenant DESC, s.startup_id DESC
        OFFSET span - 1 LIMIT 1
    ),
    found AS MATERIALIZED (
        SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, s.status = 'OPEN' AND s.deadline_at < now(),
            s.late, s.opened_at, s.deadline_at, s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report,
            s.pod_uid, s.pod_name, s.pod_node
        FROM metagate.startup AS s
        WHERE s.tenant = in_tenant
            AND s.startup_id < coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff')
            AND s.startup_id >= coalesce((SELECT e.startup_id FROM edge AS e), '00000000-0000-0000-0000-000000000000')
            AND (in_status IS NULL
                OR in_status = CASE WHEN s.status = 'OPEN' AND s.deadline_at < now() THEN 'overdue' ELSE s.status END)
            AND (in_component IS NULL OR s.component_key = in_component)
            AND (in_principal IS NULL OR s.principal_key = in_principal)
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT page
    )
    SELECT f.* FROM found AS f
    UNION ALL
    SELECT in_tenant, e.startup_id, '', '', 'LOOKED', false, NULL, now(), now(), NULL, '00000000-0000-0000-0000-000000000000', '', 0, NULL,
        NULL, NULL, NULL
    FROM edge AS e
    WHERE (SELECT count(*) FROM found) < page
$$;
CREATE OR REPLACE FUNCTION metagate.startups_everywhere(
    in_status text, in_component text, in_principal text, after_tenant uuid, after_startup uuid, page integer, span integer
) RETURNS SETOF metagate.startup_view
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off AS $$
    WITH edge AS MATERIALIZED (
        SELECT s.tenant, s.startup_id
        FROM metagate.startup AS s
        WHERE coalesce(in_status, in_component, in_principal) IS NOT NULL
            AND (s.tenant, s.startup_id) < (
                coalesce(after_tenant, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
                coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
        ORDER BY s.tenant DESC, s.startup_id DESC
        OFFSET span - 1 LIMIT 1
    ),
    found AS MATERIALIZED (
        SELECT s.tenant, s.startup_id, s.principal_key, s.component_key, s.status, s.status = 'OPEN' AND s.deadline_at < now(),
            s.late, s.opened_at, s.deadline_at, s.acknowledged_at, s.packet_id, s.digest, s.revision, s.report,
            s.pod_uid, s.pod_name, s.pod_node
        FROM metagate.startup AS s
        WHERE (s.tenant, s.startup_id) < (
                coalesce(after_tenant, 'ffffffff-ffff-ffff-ffff-ffffffffffff'),
                coalesce(after_startup, 'ffffffff-ffff-ffff-ffff-ffffffffffff'))
            AND (s.tenant, s.startup_id) >= (
                coalesce((SELECT e.tenant FROM edge AS e), '00000000-0000-0000-0000-000000000000'),
                coalesce((SELECT e.startup_id FROM edge AS e), '00000000-0000-0000-0000-000000000000'))
            AND (in_status IS NULL
                OR in_status = CASE WHEN s.status = 'OPEN' AND s.deadline_at < now() THEN 'overdue' ELSE s.status END)
            AND (in_component IS NULL OR s.component_key = in_component)
            AND (in_principal IS NULL OR s.principal_key = in_principal)
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT page
    )
    SELECT f.* FROM found AS f
    UNION ALL
    SELECT e.tenant, e.startup_id, '', '', 'LOOKED', false, NULL, now(), now(), NULL, '00000000-0000-0000-0000-000000000000', '', 0, NULL,
        NULL, NULL, NULL
    FROM edge AS e
    WHERE (SELECT count(*) FROM found) < page
$$;

-- As in 0003, in half the time (10,000 principals: 0.4 s to 0.2 s): text is put together instead of jsonb, and what a packet
-- offers is told once a packet. Without nested loops: nothing is known of the rows of a WITH.
DROP FUNCTION metagate.topology(uuid);
CREATE FUNCTION metagate.topology(in_tenant uuid)
RETURNS TABLE (revision bigint, principals json, services json)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off SET enable_nestloop = off SET jit = off SET work_mem = '16MB' AS $$
    WITH recent AS MATERIALIZED (
        SELECT s.principal_key, s.component_key
        FROM metagate.startup AS s
        WHERE s.tenant = in_tenant
        ORDER BY s.tenant DESC, s.startup_id DESC
        LIMIT 10000
    ),
    seen_by AS MATERIALIZED (
        SELECT d.principal_key, json_agg(d.component_key) AS components
        FROM (SELECT DISTINCT r.principal_key, r.component_key FROM recent AS r ORDER BY 1, 2) AS d
        GROUP BY d.principal_key
    ),
    bound AS MATERIALIZED (
        SELECT b.principal_key, b.components, b.profile, b.manifest, b.digest
        FROM metagate.binding AS b WHERE b.tenant = in_tenant
    ),
    packets AS MATERIALIZED (
        SELECT d.digest, (
            SELECT convert_from(k.body, 'UTF8')::jsonb -> 'services' FROM metagate.packet AS k WHERE k.digest = d.digest
        ) AS services
        FROM (SELECT DISTINCT b.digest FROM bound AS b) AS d
    ),
    -- A service of a packet is used by everybody who is bound to it, so names are listed once a packet.
    offered AS MATERIALIZED (
        SELECT k.digest, s.name, s.service ->> 'type' AS type, s.service ->> 'endpoint' AS endpoint
        FROM packets AS k
        CROSS JOIN LATERAL jsonb_each(
            CASE jsonb_typeof(k.services) WHEN 'object' THEN k.services ELSE '{}' END) AS s (name, service)
    ),
    named AS MATERIALIZED (
        SELECT o.digest, json_agg(o.name ORDER BY o.name) AS services FROM offered AS o GROUP BY o.digest
    )
    SELECT
        (SELECT coalesce(max(r.revision), 0) FROM metagate.revision AS r),
        (
            SELECT coalesce(json_agg(json_build_object(
                'principal_key', p.principal_key, 'type', p.type, 'suspended', p.suspended,
                'components', coalesce(b.components, '{}'), 'profile', b.profile, 'manifest', b.manifest,
                'seen', coalesce(s.components, '[]'), 'services', coalesce(n.services, '[]')
            ) ORDER BY p.principal_key), '[]')
            FROM metagate.principal AS p
            LEFT JOIN bound AS b ON b.principal_key = p.principal_key
            LEFT JOIN named AS n ON n.digest = b.digest
            LEFT JOIN seen_by AS s ON s.principal_key = p.principal_key
            WHERE p.tenant = in_tenant
        ),
        (
            SELECT coalesce(json_agg(json_build_object(
                'name', g.name, 'type', g.type, 'endpoint', g.endpoint, 'used_by', g.used_by
            ) ORDER BY g.name, g.type, g.endpoint), '[]')
            FROM (
                SELECT o.name, o.type, o.endpoint, json_agg(b.principal_key ORDER BY b.principal_key) AS used_by
                FROM offered AS o JOIN bound AS b ON b.digest = o.digest
                GROUP BY 1, 2, 3
            ) AS g
        )
$$;
COMMENT ON FUNCTION metagate.topology IS
    'Principals, their permitted components and those among the last 10,000 startups, services and who uses them (D-49).';
