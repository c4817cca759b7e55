-- name: publish.lock
-- One writer at a time; held until the transaction ends.
SELECT pg_advisory_xact_lock(5570193308531253605);

-- name: publish.take_epoch
-- Fence every older writer.
UPDATE metagate.epoch SET epoch = epoch + 1, taken_at = now() RETURNING epoch;

-- name: publish.position
-- Whose turn it is, and what is served now.
SELECT e.epoch, (SELECT coalesce(max(r.revision), 0) FROM metagate.revision AS r) AS revision FROM metagate.epoch AS e;

-- name: publish.claim
-- The cluster this database belongs to.
SELECT metagate.claim($1);

-- name: publish.packets
-- Add packets nobody has added yet.
INSERT INTO metagate.packet (digest, body)
SELECT p.digest, p.body FROM unnest($1::text[], $2::bytea[]) AS p (digest, body)
ON CONFLICT (digest) DO NOTHING;

-- name: publish.orphaned_issuer_keys
-- Forget refreshed keys of issuers that are gone or whose keys are inline now.
DELETE FROM metagate.issuer_key AS k
WHERE k.owner IS NULL
    AND NOT EXISTS (SELECT FROM metagate.issuer AS i WHERE i.issuer = k.issuer AND i.source <> 'Inline');

-- name: publish.declared
-- Remember valid generations.
INSERT INTO metagate.declared AS d (uid, generation, kind, tenant, namespace, name, created_at, spec, manager)
SELECT r.uid, r.generation, r.kind, r.tenant, r.namespace, r.name, r.created, r.spec, r.manager
FROM jsonb_to_recordset($1) AS r (
    uid uuid, generation bigint, kind text, tenant uuid, namespace text, name text, created timestamptz, spec jsonb,
    manager text
)
ON CONFLICT (uid, generation) DO UPDATE SET spec = excluded.spec, manager = excluded.manager, withdrawn_at = NULL
WHERE d.withdrawn_at IS NOT NULL OR d.spec IS DISTINCT FROM excluded.spec;

-- name: publish.withdrawn
-- Objects that exist no more; their history stays.
UPDATE metagate.declared AS d SET withdrawn_at = now()
WHERE d.uid = ANY ($1::text[]::uuid[]) AND d.withdrawn_at IS NULL;

-- name: publish.tenants
-- Namespaces that are there.
INSERT INTO metagate.tenant AS t (tenant, namespace, created_at)
SELECT n.tenant, n.namespace, n.created_at
FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS n (tenant, namespace, created_at)
ON CONFLICT (tenant) DO UPDATE SET namespace = excluded.namespace, created_at = excluded.created_at, retired_at = NULL
WHERE (t.namespace, t.created_at, t.retired_at) IS DISTINCT FROM (excluded.namespace, excluded.created_at, NULL::timestamptz);

-- name: publish.retired_tenants
-- Namespaces that are gone.
UPDATE metagate.tenant SET retired_at = now() WHERE tenant = ANY ($1::uuid[]) AND retired_at IS NULL;

-- name: publish.sightings
-- Remember when files' resources were first seen.
INSERT INTO metagate.sighting (kind, namespace, name, uid, generation, spec_digest, first_seen)
SELECT s.kind, s.namespace, s.name, s.uid::uuid, s.generation, s.spec_digest, s.first_seen
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::text[], $7::timestamptz[])
    AS s (kind, namespace, name, uid, generation, spec_digest, first_seen)
ON CONFLICT (kind, namespace, name) DO UPDATE
SET uid = excluded.uid, generation = excluded.generation, spec_digest = excluded.spec_digest, first_seen = excluded.first_seen;

-- name: publish.forgotten
-- Forget files' resources that left.
DELETE FROM metagate.sighting AS s
USING unnest($1::text[], $2::text[], $3::text[]) AS f (kind, namespace, name)
WHERE s.kind = f.kind AND s.namespace = f.namespace AND s.name = f.name;

-- name: publish.audit
-- One row per object that changed.
INSERT INTO metagate.change (
    revision, kind, tenant, namespace, name, uid, generation, before_digest, after_digest, manager, served_generation,
    principal_key, packet_digest
)
SELECT $2, r.kind, r.tenant, r.namespace, r.name, r.uid, r.generation, r.before_digest, r.after_digest, r.manager,
    r.served_generation, r.principal_key, r.packet_digest
FROM jsonb_to_recordset($1) AS r (
    kind text, tenant uuid, namespace text, name text, uid uuid, generation bigint, before_digest text, after_digest text,
    manager text, served_generation bigint, principal_key text, packet_digest text
);

-- name: publish.revision
-- What is served from now on.
INSERT INTO metagate.revision (revision, epoch, counts) VALUES ($1, $2, $3);

-- name: publish.mirror
-- Tell the ledger (D-50).
INSERT INTO metagate.outbox (event, revision, body) VALUES ('PUBLISHED', $1, $2);

-- name: load.rows
-- Every published row by table and key.
SELECT 'principal' AS in_table, ARRAY[t.tenant::text, t.principal_key::text] AS key, t.owner::text, t.content FROM metagate.principal AS t
UNION ALL SELECT 'subject' AS in_table, ARRAY[t.issuer::text, t.subject::text] AS key, t.owner::text, t.content FROM metagate.subject AS t
UNION ALL SELECT 'api_key' AS in_table, ARRAY[t.sha256::text] AS key, t.owner::text, t.content FROM metagate.api_key AS t
UNION ALL SELECT 'binding' AS in_table, ARRAY[t.tenant::text, t.principal_key::text] AS key, t.owner::text, t.content FROM metagate.binding AS t
UNION ALL SELECT 'profile' AS in_table, ARRAY[t.tenant::text, t.name::text] AS key, t.owner::text, t.content FROM metagate.profile AS t
UNION ALL SELECT 'manifest' AS in_table, ARRAY[t.tenant::text, t.name::text] AS key, t.owner::text, t.content FROM metagate.manifest AS t
UNION ALL SELECT 'policy_profile' AS in_table, ARRAY[t.tenant::text, t.name::text] AS key, t.owner::text, t.content FROM metagate.policy_profile AS t
UNION ALL SELECT 'problemata' AS in_table, ARRAY[t.tenant::text, t.name::text] AS key, t.owner::text, t.content FROM metagate.problemata AS t
UNION ALL SELECT 'plan_template' AS in_table, ARRAY[t.tenant::text, t.name::text] AS key, t.owner::text, t.content FROM metagate.plan_template AS t
UNION ALL SELECT 'issuer' AS in_table, ARRAY[t.issuer::text] AS key, t.owner::text, t.content FROM metagate.issuer AS t
UNION ALL SELECT 'issuer_key' AS in_table, ARRAY[t.issuer::text, t.kid::text] AS key, t.owner::text, t.content FROM metagate.issuer_key AS t WHERE t.owner IS NOT NULL
UNION ALL SELECT 'reference' AS in_table, ARRAY[t.owner::text, t.path::text] AS key, t.owner::text, t.content FROM metagate.reference AS t
UNION ALL SELECT 'resource' AS in_table, ARRAY[t.owner::text] AS key, t.owner::text, t.content FROM metagate.resource AS t;

-- name: load.declared
-- The newest valid generation of each object that still exists.
SELECT DISTINCT ON (d.uid)
    d.uid::text, d.generation, d.kind, d.tenant, d.namespace, d.name, d.created_at, d.spec, d.manager
FROM metagate.declared AS d
WHERE d.withdrawn_at IS NULL
ORDER BY d.uid, d.generation DESC;

-- name: load.packets
-- Digests that are stored.
SELECT p.digest FROM metagate.packet AS p;

-- name: load.sightings
-- Identity of files' resources.
SELECT s.kind, s.namespace, s.name, s.uid::text, s.generation, s.spec_digest, s.first_seen FROM metagate.sighting AS s;

-- name: load.tenants
-- Namespaces that are there.
SELECT t.tenant, t.namespace, t.created_at FROM metagate.tenant AS t WHERE t.retired_at IS NULL;

-- name: load.key_owners
-- Which tenant declared each API key's digest first (D-70).
SELECT d.sha256, d.tenant::text FROM metagate.key_digest AS d;

-- name: load.contested_keys
-- Principals that declare another tenant's key, as they are declared now.
SELECT n.namespace, n.name, string_agg(e.key ->> 'id', ', ' ORDER BY e.key ->> 'id') AS keys
FROM (
    SELECT DISTINCT ON (d.uid) d.tenant, d.namespace, d.name, d.spec
    FROM metagate.declared AS d
    WHERE d.kind = 'Principal' AND d.withdrawn_at IS NULL
    ORDER BY d.uid, d.generation DESC
) AS n
CROSS JOIN LATERAL jsonb_array_elements(
    CASE jsonb_typeof(n.spec -> 'apiKeys') WHEN 'array' THEN n.spec -> 'apiKeys' ELSE '[]' END) AS e (key)
JOIN metagate.key_digest AS g ON g.sha256 = e.key ->> 'sha256' AND g.tenant <> n.tenant
GROUP BY n.namespace, n.name
ORDER BY n.namespace, n.name
LIMIT 100;

-- name: load.tenant
-- The present incarnation of a namespace.
SELECT t.tenant FROM metagate.tenant AS t
WHERE t.namespace = $1 AND t.retired_at IS NULL ORDER BY t.created_at DESC LIMIT 1;

-- name: issuers.all
-- Whose tokens are believed.
SELECT i.issuer, i.name, i.audiences, i.algorithms, i.max_token_lifetime_seconds, i.source, i.url
FROM metagate.issuer AS i ORDER BY i.issuer;

-- name: issuers.keys
-- The keys of an issuer, retired ones included.
SELECT k.issuer, k.kid, k.jwk, k.alg, k.first_seen, k.last_seen, k.misses, k.retired_at
FROM metagate.issuer_key AS k WHERE k.issuer = $1 ORDER BY k.kid;

-- name: issuers.keep
-- Keys as their issuer shows them now; inline keys are the compiler's.
INSERT INTO metagate.issuer_key AS k (issuer, kid, jwk, alg, first_seen, last_seen, misses, retired_at)
SELECT n.issuer, n.kid, n.jwk::jsonb, n.alg, coalesce(n.first_seen, now()), coalesce(n.last_seen, now()), n.misses, n.retired_at
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::timestamptz[], $7::integer[], $8::timestamptz[])
    AS n (issuer, kid, jwk, alg, first_seen, last_seen, misses, retired_at)
ON CONFLICT (issuer, kid) DO UPDATE
SET jwk = excluded.jwk, alg = excluded.alg, last_seen = excluded.last_seen, misses = excluded.misses,
    retired_at = excluded.retired_at
WHERE k.owner IS NULL;

-- name: issuers.touch
-- Keys that were seen again unchanged: no reader has to hear of it.
UPDATE metagate.issuer_key AS k SET last_seen = n.last_seen, misses = n.misses
FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::integer[]) AS n (issuer, kid, last_seen, misses)
WHERE k.issuer = n.issuer AND k.kid = n.kid AND k.owner IS NULL;

-- name: issuers.forget
-- Keys that are gone for good.
DELETE FROM metagate.issuer_key AS k
USING unnest($1::text[], $2::text[]) AS g (issuer, kid)
WHERE k.issuer = g.issuer AND k.kid = g.kid AND k.owner IS NULL;

-- name: publish.restored_revision
-- The backup's snapshot under a revision beyond any that was served since; as old as it was.
INSERT INTO metagate.revision (revision, published_at, epoch, counts)
SELECT r.revision + $1::bigint, r.published_at, e.epoch, '{}'
FROM metagate.revision AS r CROSS JOIN metagate.epoch AS e
ORDER BY r.revision DESC LIMIT 1
RETURNING revision;

-- name: publish.restored_bindings
-- What every packet says its revision is (I3).
UPDATE metagate.binding SET revision = $1::bigint;

-- name: publish.restored_policies
-- So that the next writer publishes each anew: a gate that used a newer revision than the backup's takes none before (INV-107).
UPDATE metagate.policy_profile SET content = '';

-- name: publish.restored_problematas
-- As the policies: a gateway that used a newer one than the backup's takes none until the next writer has published it.
UPDATE metagate.problemata SET content = '';

-- name: publish.restored_plan_templates
-- As the policies: the next writer publishes each anew.
UPDATE metagate.plan_template SET content = '';
