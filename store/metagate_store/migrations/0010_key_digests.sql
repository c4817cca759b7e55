-- A key's digest belongs to the first tenant that ever declared it (D-70).

CREATE TABLE metagate.key_digest (
    sha256 text COLLATE "C" PRIMARY KEY,
    tenant uuid NOT NULL,
    since timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE metagate.key_digest IS
    'Which tenant declared the digest of an API key first; for as long as the database lives, whatever becomes of the Principal (D-70). '
    'Else whoever reads a digest somewhere and declares it too would be who its callers are as soon as its Principal is deleted.';

-- History says who was first: of each object every valid generation is remembered, of those that left too.
INSERT INTO metagate.key_digest (sha256, tenant, since)
SELECT DISTINCT ON (c.sha256) c.sha256, c.tenant, c.since
FROM (
    SELECT e.key ->> 'sha256' AS sha256, d.tenant, d.declared_at AS since, d.created_at, d.namespace, d.name
    FROM metagate.declared AS d
    CROSS JOIN LATERAL jsonb_array_elements(
        CASE jsonb_typeof(d.spec -> 'apiKeys') WHEN 'array' THEN d.spec -> 'apiKeys' ELSE '[]' END) AS e (key)
    WHERE d.kind = 'Principal' AND d.tenant IS NOT NULL
) AS c
WHERE c.sha256 IS NOT NULL
ORDER BY c.sha256, c.since, c.created_at, c.namespace, c.name;
INSERT INTO metagate.key_digest (sha256, tenant)
SELECT k.sha256, k.tenant FROM metagate.api_key AS k
ON CONFLICT (sha256) DO NOTHING;

-- A namespace that was deleted and made again before there was this rule keeps the keys that it has.
UPDATE metagate.key_digest AS g SET tenant = k.tenant
FROM metagate.api_key AS k, metagate.tenant AS now_there, metagate.tenant AS before
WHERE k.sha256 = g.sha256 AND k.tenant <> g.tenant
    AND now_there.tenant = k.tenant AND before.tenant = g.tenant AND now_there.namespace = before.namespace;

-- What stands against the rule today opens nothing from here on. `metagate migrate` names those Principals.
DELETE FROM metagate.api_key AS k USING metagate.key_digest AS g WHERE g.sha256 = k.sha256 AND g.tenant <> k.tenant;

-- The compiler keeps to the rule. This is for a writer of an earlier release, which does not know it.
CREATE FUNCTION metagate.own_key_digest() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
BEGIN
    INSERT INTO metagate.key_digest (sha256, tenant) VALUES (NEW.sha256, NEW.tenant) ON CONFLICT (sha256) DO NOTHING;
    IF NEW.tenant = (SELECT d.tenant FROM metagate.key_digest AS d WHERE d.sha256 = NEW.sha256) THEN
        RETURN NEW;
    END IF;
    RETURN NULL;
END $$;
CREATE TRIGGER own BEFORE INSERT OR UPDATE ON metagate.api_key
    FOR EACH ROW EXECUTE FUNCTION metagate.own_key_digest();
