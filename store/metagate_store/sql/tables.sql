-- name: upsert.principal
-- Principals.
INSERT INTO metagate.principal AS t (
    tenant, principal_key, type, scope, rights, suspended, generation, owner, content, revision
)
SELECT r.tenant, r.principal_key, r.type, r.scope, r.rights, r.suspended, r.generation, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, principal_key text, type text, scope text, rights text[], suspended boolean, generation bigint,
    owner uuid, content text
)
ON CONFLICT (tenant, principal_key) DO UPDATE SET
    type = excluded.type, scope = excluded.scope, rights = excluded.rights, suspended = excluded.suspended,
    generation = excluded.generation, owner = excluded.owner, content = excluded.content, revision =
    excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.principal
-- Principals that are gone.
DELETE FROM metagate.principal AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, principal_key)
WHERE t.tenant = d.tenant::uuid AND t.principal_key = d.principal_key;

-- name: upsert.subject
-- Subjects of tokens.
INSERT INTO metagate.subject AS t (
    issuer, subject, tenant, principal_key, owner, content, revision
)
SELECT r.issuer, r.subject, r.tenant, r.principal_key, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    issuer text, subject text, tenant uuid, principal_key text, owner uuid, content text
)
ON CONFLICT (issuer, subject) DO UPDATE SET
    tenant = excluded.tenant, principal_key = excluded.principal_key, owner = excluded.owner, content =
    excluded.content, revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.subject
-- Subjects of tokens that are gone.
DELETE FROM metagate.subject AS t
USING unnest($1::text[], $2::text[]) AS d (issuer, subject)
WHERE t.issuer = d.issuer AND t.subject = d.subject;

-- name: upsert.api_key
-- Digests of API keys.
INSERT INTO metagate.api_key AS t (
    sha256, key_id, tenant, principal_key, expires_at, owner, content, revision
)
SELECT r.sha256, r.key_id, r.tenant, r.principal_key, r.expires_at, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    sha256 text, key_id text, tenant uuid, principal_key text, expires_at timestamptz, owner uuid, content text
)
ON CONFLICT (sha256) DO UPDATE SET
    key_id = excluded.key_id, tenant = excluded.tenant, principal_key = excluded.principal_key, expires_at =
    excluded.expires_at, owner = excluded.owner, content = excluded.content, revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.api_key
-- Digests of API keys that are gone.
DELETE FROM metagate.api_key AS t
USING unnest($1::text[]) AS d (sha256)
WHERE t.sha256 = d.sha256;

-- name: upsert.binding
-- Bindings, with the moment they last changed.
INSERT INTO metagate.binding AS t (
    tenant, principal_key, name, digest, components, sla_seconds, profile, manifest, generation, owner, content,
    revision, compiled_at
)
SELECT r.tenant, r.principal_key, r.name, r.digest, r.components, r.sla_seconds, r.profile, r.manifest,
       r.generation, r.owner, r.content, $2, now()
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, principal_key text, name text, digest text, components text[], sla_seconds integer, profile
    text, manifest text, generation bigint, owner uuid, content text
)
ON CONFLICT (tenant, principal_key) DO UPDATE SET
    name = excluded.name, digest = excluded.digest, components = excluded.components, sla_seconds =
    excluded.sla_seconds, profile = excluded.profile, manifest = excluded.manifest, generation =
    excluded.generation, owner = excluded.owner, content = excluded.content, revision = excluded.revision,
    compiled_at = excluded.compiled_at
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.binding
-- Bindings, with the moment they last changed that are gone.
DELETE FROM metagate.binding AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, principal_key)
WHERE t.tenant = d.tenant::uuid AND t.principal_key = d.principal_key;

-- name: upsert.profile
-- Profiles.
INSERT INTO metagate.profile AS t (
    tenant, name, body, generation, owner, content, revision
)
SELECT r.tenant, r.name, r.body, r.generation, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, name text, body jsonb, generation bigint, owner uuid, content text
)
ON CONFLICT (tenant, name) DO UPDATE SET
    body = excluded.body, generation = excluded.generation, owner = excluded.owner, content = excluded.content,
    revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.profile
-- Profiles that are gone.
DELETE FROM metagate.profile AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, name)
WHERE t.tenant = d.tenant::uuid AND t.name = d.name;

-- name: upsert.manifest
-- Manifests.
INSERT INTO metagate.manifest AS t (
    tenant, name, body, generation, owner, content, revision
)
SELECT r.tenant, r.name, r.body, r.generation, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, name text, body jsonb, generation bigint, owner uuid, content text
)
ON CONFLICT (tenant, name) DO UPDATE SET
    body = excluded.body, generation = excluded.generation, owner = excluded.owner, content = excluded.content,
    revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.manifest
-- Manifests that are gone.
DELETE FROM metagate.manifest AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, name)
WHERE t.tenant = d.tenant::uuid AND t.name = d.name;

-- name: upsert.policy_profile
-- Policy profiles.
INSERT INTO metagate.policy_profile AS t (
    tenant, name, body, policy_hash, generation, owner, content, revision
)
SELECT r.tenant, r.name, r.body, r.policy_hash, r.generation, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, name text, body jsonb, policy_hash text, generation bigint, owner uuid, content text
)
ON CONFLICT (tenant, name) DO UPDATE SET
    body = excluded.body, policy_hash = excluded.policy_hash, generation = excluded.generation, owner =
    excluded.owner, content = excluded.content, revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.policy_profile
-- Policy profiles that are gone.
DELETE FROM metagate.policy_profile AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, name)
WHERE t.tenant = d.tenant::uuid AND t.name = d.name;

-- name: upsert.problemata
-- Problematas.
INSERT INTO metagate.problemata AS t (
    tenant, name, body, content_hash, generation, owner, content, revision
)
SELECT r.tenant, r.name, r.body, r.content_hash, r.generation, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, name text, body jsonb, content_hash text, generation bigint, owner uuid, content text
)
ON CONFLICT (tenant, name) DO UPDATE SET
    body = excluded.body, content_hash = excluded.content_hash, generation = excluded.generation, owner =
    excluded.owner, content = excluded.content, revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.problemata
-- Problematas that are gone.
DELETE FROM metagate.problemata AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, name)
WHERE t.tenant = d.tenant::uuid AND t.name = d.name;

-- name: upsert.plan_template
-- Plan templates.
INSERT INTO metagate.plan_template AS t (
    tenant, name, body, content_hash, generation, owner, content, revision
)
SELECT r.tenant, r.name, r.body, r.content_hash, r.generation, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    tenant uuid, name text, body jsonb, content_hash text, generation bigint, owner uuid, content text
)
ON CONFLICT (tenant, name) DO UPDATE SET
    body = excluded.body, content_hash = excluded.content_hash, generation = excluded.generation, owner =
    excluded.owner, content = excluded.content, revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.plan_template
-- Plan templates that are gone.
DELETE FROM metagate.plan_template AS t
USING unnest($1::text[], $2::text[]) AS d (tenant, name)
WHERE t.tenant = d.tenant::uuid AND t.name = d.name;

-- name: upsert.issuer
-- Token issuers.
INSERT INTO metagate.issuer AS t (
    issuer, name, audiences, algorithms, max_token_lifetime_seconds, source, url, generation, owner, content,
    revision
)
SELECT r.issuer, r.name, r.audiences, r.algorithms, r.max_token_lifetime_seconds, r.source, r.url, r.generation,
       r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    issuer text, name text, audiences text[], algorithms text[], max_token_lifetime_seconds integer, source
    text, url text, generation bigint, owner uuid, content text
)
ON CONFLICT (issuer) DO UPDATE SET
    name = excluded.name, audiences = excluded.audiences, algorithms = excluded.algorithms,
    max_token_lifetime_seconds = excluded.max_token_lifetime_seconds, source = excluded.source, url =
    excluded.url, generation = excluded.generation, owner = excluded.owner, content = excluded.content, revision
    = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.issuer
-- Token issuers that are gone.
DELETE FROM metagate.issuer AS t
USING unnest($1::text[]) AS d (issuer)
WHERE t.issuer = d.issuer;

-- name: upsert.issuer_key
-- Inline keys of issuers.
INSERT INTO metagate.issuer_key AS t (
    issuer, kid, jwk, alg, owner, content, revision
)
SELECT r.issuer, r.kid, r.jwk, r.alg, r.owner, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    issuer text, kid text, jwk jsonb, alg text, owner uuid, content text
)
ON CONFLICT (issuer, kid) DO UPDATE SET
    jwk = excluded.jwk, alg = excluded.alg, owner = excluded.owner, content = excluded.content, revision =
    excluded.revision, retired_at = NULL, misses = 0, last_seen = now()
WHERE t.content IS DISTINCT FROM excluded.content OR t.owner IS DISTINCT FROM excluded.owner;

-- name: delete.issuer_key
-- Inline keys of issuers that are gone.
DELETE FROM metagate.issuer_key AS t
USING unnest($1::text[], $2::text[]) AS d (issuer, kid)
WHERE t.issuer = d.issuer AND t.kid = d.kid AND t.owner IS NOT NULL;

-- name: upsert.reference
-- References.
INSERT INTO metagate.reference AS t (
    owner, path, kind, tenant, name, content, revision
)
SELECT r.owner, r.path, r.kind, r.tenant, r.name, r.content, $2
FROM jsonb_to_recordset($1) AS r (
    owner uuid, path text, kind text, tenant uuid, name text, content text
)
ON CONFLICT (owner, path) DO UPDATE SET
    kind = excluded.kind, tenant = excluded.tenant, name = excluded.name, content = excluded.content, revision =
    excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content;

-- name: delete.reference
-- References that are gone.
DELETE FROM metagate.reference AS t
USING unnest($1::text[], $2::text[]) AS d (owner, path)
WHERE t.owner = d.owner::uuid AND t.path = d.path;

-- name: upsert.resource
-- Verdicts.
INSERT INTO metagate.resource AS t (
    owner, kind, tenant, namespace, name, generation, served_generation, created_at, conditions, uses, content,
    revision
)
SELECT r.owner, r.kind, r.tenant, r.namespace, r.name, r.generation, r.served_generation, r.created_at,
       r.conditions, coalesce(r.uses, 0), r.content, $2
FROM jsonb_to_recordset($1) AS r (
    owner uuid, kind text, tenant uuid, namespace text, name text, generation bigint, served_generation bigint,
    created_at timestamptz, conditions jsonb, uses integer, content text
)
ON CONFLICT (owner) DO UPDATE SET
    kind = excluded.kind, tenant = excluded.tenant, namespace = excluded.namespace, name = excluded.name,
    generation = excluded.generation, served_generation = excluded.served_generation, created_at =
    excluded.created_at, conditions = excluded.conditions, uses = excluded.uses, content = excluded.content,
    revision = excluded.revision
WHERE t.content IS DISTINCT FROM excluded.content;

-- name: delete.resource
-- Verdicts that are gone.
DELETE FROM metagate.resource AS t
USING unnest($1::text[]) AS d (owner)
WHERE t.owner = d.owner::uuid;
