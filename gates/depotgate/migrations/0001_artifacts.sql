-- What DepotGate keeps beside its receipts: which artifacts there are and where their bytes lie, in the ledger's database (D-57).
--
-- The receipts in the ledger are the truth: `depotgate rebuild` computes both tables from them. No running process has rights on a
-- table: the gate's role may EXECUTE the functions and nothing else. The bytes are in the object store and nowhere here (INV-093).

CREATE TABLE depotgate.blob (
    tenant     uuid NOT NULL,
    sha256     bytea NOT NULL CHECK (length(sha256) = 32),
    key        text COLLATE "C" NOT NULL UNIQUE,
    size_bytes bigint NOT NULL CHECK (size_bytes >= 0),
    PRIMARY KEY (sha256, tenant)
);
COMMENT ON TABLE depotgate.blob IS 'Derived: bytes that kept artifacts have, once for each tenant, and their key in the store.';

CREATE TABLE depotgate.artifact (
    tenant       uuid NOT NULL,
    artifact_id  text COLLATE "C" NOT NULL,
    sha256       bytea NOT NULL CHECK (length(sha256) = 32),
    size_bytes   bigint NOT NULL CHECK (size_bytes >= 0),
    media_type   text NOT NULL,
    role         text NOT NULL CHECK (role IN ('plan', 'input', 'output', 'supporting')),
    task_id      text COLLATE "C",
    name         text,
    depositor    text COLLATE "C" NOT NULL,
    lease_number bigint,
    stored_at    timestamptz NOT NULL,
    receipt_id   text COLLATE "C" NOT NULL,
    retired_at   timestamptz,
    retired_by   text COLLATE "C",
    CHECK (num_nulls(retired_at, retired_by) IN (0, 2)),
    PRIMARY KEY (artifact_id, tenant)
);
-- Each index begins with another column or expression, so that no plan made for an empty table picks the wrong one for good.
CREATE INDEX artifact_of_blob ON depotgate.artifact (sha256, tenant) WHERE retired_at IS NULL;
CREATE INDEX artifact_of_task ON depotgate.artifact (task_id, tenant, stored_at, artifact_id) WHERE task_id IS NOT NULL;
CREATE INDEX artifact_of_tenant ON depotgate.artifact (uuid_hash_extended(tenant, 1), stored_at, artifact_id);
COMMENT ON TABLE depotgate.artifact IS 'Derived: what is known of each artifact. It outlives the bytes: a retired one is a tombstone.';

CREATE FUNCTION depotgate.state() RETURNS TABLE (schema_version integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT max(version) FROM depotgate.migration $$;

-- The ledger's locks are numbers from zero upwards, a gate's are below zero.
CREATE FUNCTION depotgate.lock_key(name text) RETURNS bigint
LANGUAGE sql IMMUTABLE PARALLEL SAFE
RETURN hashtextextended(name, 20270018) | x'8000000000000000'::bigint;

-- A JSON value in place of U+001E and a letter, in a receipt's form (receipt_forms.py). Canonical JSON holds no raw control character,
-- so no value that anybody sent can be taken for a mark.
CREATE FUNCTION depotgate.put(form text, letter text, value text) RETURNS text
LANGUAGE sql STABLE PARALLEL SAFE
RETURN replace(form, chr(30) || letter, coalesce(to_json(value)::text, 'null'));

-- AsyncGate may come later or never. Where it is absent, or has granted this gate nothing, no lease is live (DP-04).
CREATE FUNCTION depotgate.has_lease_function(name text, arguments oidvector) RETURNS boolean
LANGUAGE sql STABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT EXISTS (
        SELECT FROM pg_proc AS p JOIN pg_namespace AS n ON n.oid = p.pronamespace
        WHERE n.nspname = 'asyncgate' AND p.proname = $1 AND p.proargtypes = $2
          AND has_schema_privilege(n.oid, 'USAGE') AND has_function_privilege(p.oid, 'EXECUTE'))
$$;

CREATE FUNCTION depotgate.live_lease(of_tenant uuid, wanted text, of_holder text) RETURNS TABLE (
    task_id text, obligation_id text, principal_ai text, authority text, number bigint, issued_by text, expires_at timestamptz
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp AS $$
BEGIN
    IF has_lease_function('live_lease', '2950 25 25') THEN
        RETURN QUERY EXECUTE
            'SELECT l.task_id::text, l.obligation_id::text, l.principal_ai::text, l.authority::text, l.number::bigint, l.issued_by::text,
                    l.expires_at
             FROM asyncgate.live_lease($1, $2, $3) AS l' USING of_tenant, wanted, of_holder;
    END IF;
END
$$;
COMMENT ON FUNCTION depotgate.live_lease IS 'The lease, if it is live and this holder''s; else no row. Asked before the body.';

CREATE FUNCTION depotgate.held_leases(tenants uuid[], lease_ids text[], holders text[]) RETURNS TABLE (
    ordinal integer, task_id text, obligation_id text, principal_ai text, number bigint, issued_by text
)
LANGUAGE plpgsql SET search_path = depotgate, pg_catalog, pg_temp AS $$
BEGIN
    IF array_remove(lease_ids, NULL) <> '{}' AND has_lease_function('hold_leases', '2951 1009 1009') THEN
        RETURN QUERY EXECUTE
            'SELECT l.ordinal::integer, l.task_id::text, l.obligation_id::text, l.principal_ai::text, l.number::bigint, l.issued_by::text
             FROM asyncgate.hold_leases($1, $2, $3) AS l WHERE l.task_id IS NOT NULL' USING tenants, lease_ids, holders;
    END IF;
END
$$;
COMMENT ON FUNCTION depotgate.held_leases IS 'The leases that are live; no verb ends them until this transaction has ended (D-62).';

-- An artifact as it is answered; `key` NULL: its bytes are let go.
CREATE FUNCTION depotgate.views(tenants uuid[], artifact_ids text[]) RETURNS TABLE (
    ordinal integer, artifact_id text, sha256 text, size_bytes bigint, media_type text, role text, task_id text, name text,
    depositor text, lease_number bigint, stored_at timestamptz, receipt_id text, state text, key text
)
LANGUAGE plpgsql STABLE SECURITY DEFINER SET search_path = depotgate, pg_catalog, pg_temp
SET enable_seqscan = off SET enable_hashjoin = off SET enable_mergejoin = off SET plan_cache_mode = force_generic_plan AS $$
BEGIN
    RETURN QUERY
    SELECT i.ord::integer, a.artifact_id, encode(a.sha256, 'hex'), a.size_bytes, a.media_type, a.role, a.task_id, a.name, a.depositor,
           a.lease_number, a.stored_at, a.receipt_id, CASE WHEN a.retired_at IS NULL THEN 'kept' ELSE 'retired' END,
           CASE WHEN a.retired_at IS NULL THEN b.key END
    FROM unnest(tenants, artifact_ids) WITH ORDINALITY AS i(tenant, artifact_id, ord)
    CROSS JOIN LATERAL (SELECT x.* FROM artifact AS x WHERE x.artifact_id = i.artifact_id AND x.tenant = i.tenant LIMIT 1) AS a
    LEFT JOIN LATERAL (SELECT x.key FROM blob AS x WHERE x.sha256 = a.sha256 AND x.tenant = a.tenant LIMIT 1) AS b ON true;
END
$$;
