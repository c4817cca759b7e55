-- The tables. Key columns compare by bytes, so that orders and pages are the same on every server.

CREATE TABLE metagate.installation (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    cluster_uid text NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE metagate.installation IS 'The one cluster this database belongs to (D-46).';

CREATE TABLE metagate.epoch (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    epoch bigint NOT NULL,
    taken_at timestamptz NOT NULL DEFAULT now()
);
INSERT INTO metagate.epoch (epoch) VALUES (0);
COMMENT ON TABLE metagate.epoch IS 'Whose turn it is to write; a writer with an older epoch is fenced.';

CREATE TABLE metagate.tenant (
    tenant uuid PRIMARY KEY,
    namespace text COLLATE "C" NOT NULL,
    created_at timestamptz NOT NULL,
    retired_at timestamptz
);
CREATE INDEX tenant_namespace ON metagate.tenant (namespace) WHERE retired_at IS NULL;
COMMENT ON TABLE metagate.tenant IS 'Namespace incarnations (D-46).';

CREATE TABLE metagate.revision (
    revision bigint PRIMARY KEY,
    published_at timestamptz NOT NULL DEFAULT now(),
    epoch bigint NOT NULL,
    counts jsonb NOT NULL
);
COMMENT ON TABLE metagate.revision IS 'Append-only: every publish that changed what is served.';

CREATE TABLE metagate.change (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    revision bigint NOT NULL,
    kind text NOT NULL,
    tenant uuid,
    namespace text NOT NULL,
    name text NOT NULL,
    uid uuid NOT NULL,
    generation bigint NOT NULL,
    before_digest text,
    after_digest text,
    manager text,
    changed_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX change_revision ON metagate.change (revision);
CREATE INDEX change_uid ON metagate.change (uid, seq);
COMMENT ON TABLE metagate.change IS 'Append-only: one row per object that a publish changed, by digests, no content (EXT-04).';

CREATE TABLE metagate.declared (
    uid uuid NOT NULL,
    generation bigint NOT NULL,
    kind text NOT NULL,
    tenant uuid,
    namespace text NOT NULL,
    name text NOT NULL,
    created_at timestamptz NOT NULL,
    spec jsonb NOT NULL,
    manager text,
    declared_at timestamptz NOT NULL DEFAULT now(),
    withdrawn_at timestamptz,
    PRIMARY KEY (uid, generation)
);
COMMENT ON TABLE metagate.declared IS 'Valid generations of declared objects: the last good one, and history (D-33).';

CREATE TABLE metagate.sighting (
    kind text NOT NULL,
    namespace text NOT NULL,
    name text NOT NULL,
    uid uuid NOT NULL,
    generation bigint NOT NULL,
    spec_digest text NOT NULL,
    first_seen timestamptz NOT NULL,
    PRIMARY KEY (kind, namespace, name)
);
COMMENT ON TABLE metagate.sighting IS 'Identity of resources that come from files (D-53).';

CREATE TABLE metagate.packet (
    digest text COLLATE "C" PRIMARY KEY,
    body bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE metagate.packet IS 'Immutable, content-addressed shared packets (D-22).';

CREATE TABLE metagate.principal (
    tenant uuid NOT NULL,
    principal_key text COLLATE "C" NOT NULL,
    type text NOT NULL,
    scope text NOT NULL,
    rights text[] NOT NULL,
    suspended boolean NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant, principal_key)
);

CREATE TABLE metagate.subject (
    issuer text COLLATE "C" NOT NULL,
    subject text COLLATE "C" NOT NULL,
    tenant uuid NOT NULL,
    principal_key text COLLATE "C" NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (issuer, subject)
);
CREATE INDEX subject_principal ON metagate.subject (tenant, principal_key);
COMMENT ON TABLE metagate.subject IS 'Whose subject it is; one principal in the whole cluster (D-13).';

CREATE TABLE metagate.api_key (
    sha256 text COLLATE "C" PRIMARY KEY,
    key_id text COLLATE "C" NOT NULL,
    tenant uuid NOT NULL,
    principal_key text COLLATE "C" NOT NULL,
    expires_at timestamptz,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);
CREATE INDEX api_key_principal ON metagate.api_key (tenant, principal_key);
COMMENT ON TABLE metagate.api_key IS 'Digests of API keys; never a key (D-30).';

CREATE TABLE metagate.binding (
    tenant uuid NOT NULL,
    principal_key text COLLATE "C" NOT NULL,
    name text COLLATE "C" NOT NULL,
    digest text COLLATE "C" REFERENCES metagate.packet,
    components text[] NOT NULL,
    sla_seconds integer CHECK (sla_seconds > 0),
    profile text,
    manifest text,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    compiled_at timestamptz NOT NULL,
    PRIMARY KEY (tenant, principal_key)
);
CREATE INDEX binding_name ON metagate.binding (tenant, name);
COMMENT ON TABLE metagate.binding IS 'The one active binding of each principal (INV-009); digest is null while a reference is missing.';

CREATE TABLE metagate.profile (
    tenant uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    body jsonb NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE metagate.manifest (
    tenant uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    body jsonb NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE metagate.policy_profile (
    tenant uuid NOT NULL,
    name text COLLATE "C" NOT NULL,
    body jsonb NOT NULL,
    policy_hash text NOT NULL,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (tenant, name)
);

CREATE TABLE metagate.issuer (
    issuer text COLLATE "C" PRIMARY KEY,
    name text NOT NULL,
    audiences text[] NOT NULL,
    algorithms text[] NOT NULL,
    max_token_lifetime_seconds integer NOT NULL,
    source text NOT NULL CHECK (source IN ('Cluster', 'URL', 'Inline')),
    url text,
    generation bigint NOT NULL,
    owner uuid NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL
);

CREATE TABLE metagate.issuer_key (
    issuer text COLLATE "C" NOT NULL,
    kid text COLLATE "C" NOT NULL,
    jwk jsonb NOT NULL,
    alg text,
    first_seen timestamptz NOT NULL DEFAULT now(),
    last_seen timestamptz NOT NULL DEFAULT now(),
    misses integer NOT NULL DEFAULT 0,
    retired_at timestamptz,
    owner uuid,
    content text,
    revision bigint,
    PRIMARY KEY (issuer, kid),
    CHECK (NOT jwk ?| ARRAY['d', 'p', 'q', 'dp', 'dq', 'qi', 'k', 'oth'])
);
COMMENT ON TABLE metagate.issuer_key IS 'Public keys. Without an owner: kept by the refresher of Cluster and URL issuers.';

CREATE TABLE metagate.reference (
    owner uuid NOT NULL,
    path text COLLATE "C" NOT NULL,
    kind text NOT NULL,
    tenant uuid,
    name text COLLATE "C" NOT NULL,
    content text NOT NULL,
    revision bigint NOT NULL,
    PRIMARY KEY (owner, path)
);
CREATE INDEX reference_target ON metagate.reference (kind, tenant, name);
COMMENT ON TABLE metagate.reference IS 'Who uses what.';

CREATE TABLE metagate.resource (
    owner uuid PRIMARY KEY,
    kind text NOT NULL,
    tenant uuid,
    namespace text NOT NULL,
    name text NOT NULL,
    generation bigint NOT NULL,
    served_generation bigint,
    created_at timestamptz,
    conditions jsonb NOT NULL,
    uses integer NOT NULL DEFAULT 0,
    content text NOT NULL,
    revision bigint NOT NULL
);
COMMENT ON TABLE metagate.resource IS 'The last verdict on each declared object; a change here alone mints no revision.';

CREATE TABLE metagate.startup (
    tenant uuid NOT NULL,
    startup_id uuid NOT NULL,
    packet_id uuid NOT NULL,
    opened_at timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    acknowledged_at timestamptz,
    compiled_at timestamptz NOT NULL,
    revision bigint NOT NULL,
    late boolean,
    status text NOT NULL DEFAULT 'OPEN' CHECK (status IN ('OPEN', 'READY', 'FAILED')),
    principal_key text COLLATE "C" NOT NULL,
    component_key text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    pod_uid text,
    pod_name text,
    pod_node text,
    report jsonb,
    PRIMARY KEY (tenant, startup_id),
    CHECK ((status = 'OPEN') = (acknowledged_at IS NULL))
) PARTITION BY RANGE (startup_id);
CREATE TABLE metagate.startup_default PARTITION OF metagate.startup DEFAULT WITH (fillfactor = 80);
COMMENT ON TABLE metagate.startup IS
    'Startup sessions, the witness record (D-04). One index only: a second one costs the hot path dearly. Partitions per D-39.';

CREATE TABLE metagate.idempotency (
    tenant uuid NOT NULL,
    principal_key text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    startup_id uuid NOT NULL,
    packet_id uuid NOT NULL,
    opened_at timestamptz NOT NULL,
    deadline_at timestamptz NOT NULL,
    compiled_at timestamptz NOT NULL,
    revision bigint NOT NULL,
    component_key text COLLATE "C" NOT NULL,
    digest text COLLATE "C" NOT NULL,
    pod_uid text,
    PRIMARY KEY (tenant, principal_key, key)
);
COMMENT ON TABLE metagate.idempotency IS
    'The answer as it was, by idempotency key (D-41). It carries the answer itself: whoever loses the race for a key sees this row, '
    'but not yet the startup that was committed with it.';

CREATE TABLE metagate.outbox (
    seq bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    tenant uuid,
    event text NOT NULL CHECK (event IN ('OPEN', 'READY', 'FAILED', 'PUBLISHED')),
    startup_id uuid,
    revision bigint,
    body jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    attempts integer NOT NULL DEFAULT 0,
    not_before timestamptz NOT NULL DEFAULT now(),
    last_error text
);
CREATE INDEX outbox_startup ON metagate.outbox (startup_id);
COMMENT ON TABLE metagate.outbox IS 'Receipts on their way to the ledger; written only while mirroring is on (D-39).';

CREATE SEQUENCE metagate.credential_mark;
CREATE TABLE metagate.credential_change (
    kind text NOT NULL CHECK (kind IN ('api_key', 'issuer', 'issuer_key')),
    a text COLLATE "C" NOT NULL,
    b text COLLATE "C" NOT NULL DEFAULT '',
    mark bigint NOT NULL,
    PRIMARY KEY (kind, a, b)
);
CREATE UNIQUE INDEX credential_change_mark ON metagate.credential_change (mark);
COMMENT ON TABLE metagate.credential_change IS 'When each credential last changed; one whose row is gone was taken back.';

CREATE FUNCTION metagate.mark_credential() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    row_now jsonb := to_jsonb(CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END);
    key_a text := row_now ->> TG_ARGV[0];
    key_b text := coalesce(row_now ->> TG_ARGV[1], '');
BEGIN
    INSERT INTO metagate.credential_change (kind, a, b, mark)
    VALUES (TG_TABLE_NAME, key_a, key_b, nextval('metagate.credential_mark'))
    ON CONFLICT (kind, a, b) DO UPDATE SET mark = excluded.mark;
    RETURN NULL;
END $$;
CREATE TRIGGER mark AFTER INSERT OR UPDATE OR DELETE ON metagate.api_key
    FOR EACH ROW EXECUTE FUNCTION metagate.mark_credential('sha256', '');
CREATE TRIGGER mark AFTER INSERT OR UPDATE OR DELETE ON metagate.issuer
    FOR EACH ROW EXECUTE FUNCTION metagate.mark_credential('issuer', '');
CREATE TRIGGER mark AFTER INSERT OR DELETE OR UPDATE OF jwk, alg, retired_at ON metagate.issuer_key
    FOR EACH ROW EXECUTE FUNCTION metagate.mark_credential('issuer', 'kid');

CREATE FUNCTION metagate.refuse() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    RAISE EXCEPTION '% is append-only', TG_TABLE_NAME USING ERRCODE = 'insufficient_privilege';
END $$;
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON metagate.revision
    FOR EACH STATEMENT EXECUTE FUNCTION metagate.refuse();
CREATE TRIGGER append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON metagate.change
    FOR EACH STATEMENT EXECUTE FUNCTION metagate.refuse();
CREATE TRIGGER immutable BEFORE UPDATE ON metagate.packet
    FOR EACH STATEMENT EXECUTE FUNCTION metagate.refuse();
