-- Notes, and the receipt of each in the same transaction.

CREATE TABLE samplegate.note (
    tenant uuid NOT NULL,
    note_id text NOT NULL,
    author text NOT NULL,
    text text NOT NULL,
    receipt_id text NOT NULL,
    PRIMARY KEY (tenant, note_id)
);

CREATE FUNCTION samplegate.state() RETURNS TABLE (schema_version integer)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT max(version) FROM samplegate.migration $$;

CREATE FUNCTION samplegate.store(tenant uuid, note_id text, author text, text text, receipt_id text, body text) RETURNS text
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    verdict text;
BEGIN
    -- The gate's own row is locked first, the ledger's rows after it: the one order of locks (D-58).
    INSERT INTO samplegate.note VALUES (tenant, note_id, author, text, receipt_id) ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
        RETURN 'NOTE_EXISTS';
    END IF;
    SELECT outcome INTO verdict FROM memorygate.emit_depotgate(ARRAY[body], NULL);
    IF verdict <> 'STORED' THEN
        -- Without its receipt the note does not exist either (D-57).
        DELETE FROM samplegate.note AS n WHERE n.tenant = store.tenant AND n.note_id = store.note_id;
    END IF;
    RETURN verdict;
END
$$;

CREATE FUNCTION samplegate.note(of_tenant uuid, wanted text)
RETURNS TABLE (note_id text, author text, text text, receipt_id text)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT n.note_id, n.author, n.text, n.receipt_id FROM samplegate.note AS n WHERE n.tenant = of_tenant AND n.note_id = wanted $$;

CREATE FUNCTION samplegate.interview(of_tenant uuid) RETURNS TABLE (as_of timestamptz, notes bigint)
LANGUAGE sql STABLE SECURITY DEFINER SET search_path = pg_catalog, pg_temp
AS $$ SELECT now(), count(*) FROM samplegate.note AS n WHERE n.tenant = of_tenant $$;
