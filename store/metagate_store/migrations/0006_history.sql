-- What explain, history, diff and rollback read: which generation of which object was served at which revision.

ALTER TABLE metagate.change
    ADD COLUMN served_generation bigint,
    ADD COLUMN principal_key text COLLATE "C",
    ADD COLUMN packet_digest text COLLATE "C",
    ALTER COLUMN kind TYPE text COLLATE "C",
    ALTER COLUMN namespace TYPE text COLLATE "C",
    ALTER COLUMN name TYPE text COLLATE "C";
COMMENT ON COLUMN metagate.change.served_generation IS
    'Whose content is served since: older than `generation` while that one is broken (D-20). Null: nothing is.';
COMMENT ON COLUMN metagate.change.principal_key IS 'Of a binding that is the one of its principal.';
COMMENT ON COLUMN metagate.change.packet_digest IS 'The packet that this binding gives since.';
DROP INDEX metagate.change_revision;
CREATE INDEX change_order ON metagate.change (revision, seq);
CREATE INDEX change_tenant ON metagate.change (tenant, revision, seq);
CREATE INDEX change_name ON metagate.change (tenant, kind, name, revision, seq);
CREATE INDEX change_principal ON metagate.change (tenant, principal_key, revision, seq) WHERE principal_key IS NOT NULL;

CREATE TYPE metagate.boot AS (
    principal_key text, component_key text, startup_id uuid, opened_at timestamptz, binding text, revision bigint,
    compiled_at timestamptz, digest text, body bytea
);

CREATE FUNCTION metagate.booted(in_tenant uuid, in_startup uuid) RETURNS SETOF metagate.boot
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.principal_key, s.component_key, s.startup_id, s.opened_at, NULL, s.revision, s.compiled_at, s.digest, p.body
    FROM metagate.startup AS s LEFT JOIN metagate.packet AS p ON p.digest = s.digest
    WHERE s.tenant = in_tenant AND s.startup_id = in_startup
$$;
COMMENT ON FUNCTION metagate.booted IS 'What a session was told: packet and revision.';

CREATE FUNCTION metagate.standing(in_tenant uuid, in_principal text) RETURNS SETOF metagate.boot
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    SELECT b.principal_key, NULL, NULL::uuid, NULL::timestamptz, b.name, b.revision, b.compiled_at, b.digest, p.body
    FROM metagate.binding AS b LEFT JOIN metagate.packet AS p ON p.digest = b.digest
    WHERE b.tenant = in_tenant AND b.principal_key = in_principal
$$;
COMMENT ON FUNCTION metagate.standing IS 'What a principal would be told now.';

CREATE TYPE metagate.declaration AS (
    kind text, namespace text, name text, uid uuid, generation bigint, created_at timestamptz, manager text, spec jsonb,
    revision bigint, changed_at timestamptz, packet_digest text
);

-- The last thing that happened to an object until a revision. Plans must not depend on statistics (0002): it is one step
-- down the index of names.
CREATE FUNCTION metagate.declared_then(in_tenant uuid, in_kind text, in_name text, in_revision bigint)
RETURNS SETOF metagate.declaration
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT c.kind, c.namespace, c.name, c.uid, d.generation, d.created_at, d.manager, d.spec, c.revision, c.changed_at, c.packet_digest
    FROM (
        SELECT h.* FROM metagate.change AS h
        WHERE h.tenant = in_tenant AND h.kind = in_kind AND h.name = in_name AND h.revision <= in_revision
        ORDER BY h.revision DESC, h.seq DESC LIMIT 1
    ) AS c
    JOIN metagate.declared AS d ON d.uid = c.uid AND d.generation = c.served_generation
    WHERE c.after_digest IS NOT NULL
$$;

CREATE FUNCTION metagate.layers(in_tenant uuid, in_principal text, in_revision bigint)
RETURNS SETOF metagate.declaration
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH bound AS MATERIALIZED (
        SELECT c.kind, c.namespace, c.name, c.uid, d.generation, d.created_at, d.manager, d.spec, c.revision, c.changed_at,
            c.packet_digest
        FROM (
            SELECT h.* FROM metagate.change AS h
            WHERE h.tenant = in_tenant AND h.principal_key = in_principal AND h.revision <= in_revision
            ORDER BY h.revision DESC, h.seq DESC LIMIT 1
        ) AS c
        JOIN metagate.declared AS d ON d.uid = c.uid AND d.generation = c.served_generation
    )
    SELECT b.* FROM bound AS b
    UNION ALL
    SELECT l.* FROM bound AS b
    CROSS JOIN LATERAL metagate.declared_then(in_tenant, 'Profile', b.spec #>> '{profileRef,name}', in_revision) AS l
    UNION ALL
    SELECT l.* FROM bound AS b
    CROSS JOIN LATERAL metagate.declared_then(in_tenant, 'Manifest', b.spec #>> '{manifestRef,name}', in_revision) AS l
$$;
COMMENT ON FUNCTION metagate.layers IS
    'The declared objects that made the packet of a principal at a revision: Binding, Profile, Manifest.';

CREATE TYPE metagate.happening AS (
    seq bigint, revision bigint, changed_at timestamptz, kind text, tenant uuid, namespace text, name text, uid uuid,
    generation bigint, served_generation bigint, manager text, before_digest text, after_digest text, principal_key text,
    packet_digest text
);

CREATE FUNCTION metagate.history(
    in_tenant uuid, in_kind text, in_name text, before_revision bigint, before_seq bigint, page integer
) RETURNS SETOF metagate.happening
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH span AS (SELECT coalesce(before_revision, 9223372036854775807) AS revision, coalesce(before_seq, 9223372036854775807) AS seq),
    found AS (
        (SELECT c.* FROM span AS s, metagate.change AS c
        WHERE in_kind IS NULL AND c.tenant = in_tenant AND (c.revision, c.seq) < (s.revision, s.seq)
        ORDER BY c.revision DESC, c.seq DESC LIMIT page)
        UNION ALL
        (SELECT c.* FROM span AS s, metagate.change AS c
        WHERE in_kind IS NOT NULL AND c.tenant = in_tenant AND c.kind = in_kind AND c.name = in_name
            AND (c.revision, c.seq) < (s.revision, s.seq)
        ORDER BY c.revision DESC, c.seq DESC LIMIT page)
        UNION ALL
        (SELECT c.* FROM span AS s, metagate.change AS c
        WHERE in_kind = 'Principal' AND c.tenant = in_tenant AND c.principal_key = in_name
            AND (c.revision, c.seq) < (s.revision, s.seq)
        ORDER BY c.revision DESC, c.seq DESC LIMIT page)
    )
    SELECT f.seq, f.revision, f.changed_at, f.kind, f.tenant, f.namespace, f.name, f.uid, f.generation, f.served_generation, f.manager,
        f.before_digest, f.after_digest, f.principal_key, f.packet_digest
    FROM found AS f
    ORDER BY f.revision DESC, f.seq DESC LIMIT page
$$;
COMMENT ON FUNCTION metagate.history IS
    'What changed, newest first: everything of a tenant, or one object; of a Principal also what bound it.';

CREATE FUNCTION metagate.history_everywhere(before_revision bigint, before_seq bigint, page integer)
RETURNS SETOF metagate.happening
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    SELECT c.seq, c.revision, c.changed_at, c.kind, c.tenant, c.namespace, c.name, c.uid, c.generation, c.served_generation, c.manager,
        c.before_digest, c.after_digest, c.principal_key, c.packet_digest
    FROM metagate.change AS c
    WHERE (c.revision, c.seq) < (coalesce(before_revision, 9223372036854775807), coalesce(before_seq, 9223372036854775807))
    ORDER BY c.revision DESC, c.seq DESC LIMIT page
$$;
COMMENT ON FUNCTION metagate.history_everywhere IS 'What changed in any tenant, newest first (D-51).';

CREATE FUNCTION metagate.declared_at(in_tenant uuid, in_revision bigint, after_kind text, after_name text, page integer)
RETURNS SETOF metagate.declaration
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
SET enable_seqscan = off SET enable_bitmapscan = off AS $$
    WITH RECURSIVE named (kind, name, n) AS (
        (SELECT c.kind, c.name, 1 FROM metagate.change AS c
        WHERE c.tenant = in_tenant AND (c.kind, c.name) > (coalesce(after_kind, ''), coalesce(after_name, ''))
        ORDER BY c.kind, c.name LIMIT 1)
        UNION ALL
        SELECT x.kind, x.name, p.n + 1 FROM named AS p
        CROSS JOIN LATERAL (
            SELECT c.kind, c.name FROM metagate.change AS c
            WHERE c.tenant = in_tenant AND (c.kind, c.name) > (p.kind, p.name)
            ORDER BY c.kind, c.name LIMIT 1
        ) AS x
        WHERE p.n < page
    )
    SELECT n.kind, coalesce(l.namespace, ''), n.name, l.uid, l.generation, l.created_at, l.manager, l.spec, l.revision, l.changed_at,
        l.packet_digest
    FROM named AS n
    LEFT JOIN LATERAL (
        SELECT c.namespace, c.uid, d.generation, d.created_at, d.manager, d.spec, c.revision, c.changed_at, c.packet_digest
        FROM (
            SELECT h.* FROM metagate.change AS h
            WHERE h.tenant = in_tenant AND h.kind = n.kind AND h.name = n.name AND h.revision <= in_revision
            ORDER BY h.revision DESC, h.seq DESC LIMIT 1
        ) AS c
        CROSS JOIN LATERAL (
            SELECT g.* FROM metagate.declared AS g
            WHERE g.uid = c.uid AND g.generation <= coalesce(c.served_generation, c.generation)
            ORDER BY g.uid DESC, g.generation DESC LIMIT 1
        ) AS d
        WHERE c.after_digest IS NOT NULL
    ) AS l ON true
    ORDER BY n.kind, n.name
$$;
COMMENT ON FUNCTION metagate.declared_at IS
    'The valid declared objects of a tenant as they were at a revision, by kind and name. A name with no object then has no uid: '
    'a page always says how far it came.';
