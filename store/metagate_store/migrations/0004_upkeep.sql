-- Partitions and retention (D-39), and whose database it is (D-46). Called by the writer, executed as the owner.

CREATE FUNCTION metagate.claim(in_cluster text) RETURNS text
LANGUAGE sql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
    WITH claimed AS (
        INSERT INTO metagate.installation (cluster_uid) VALUES (in_cluster) ON CONFLICT (singleton) DO NOTHING
        RETURNING cluster_uid
    )
    SELECT cluster_uid FROM claimed UNION ALL SELECT i.cluster_uid FROM metagate.installation AS i LIMIT 1
$$;
COMMENT ON FUNCTION metagate.claim IS 'The cluster this database belongs to; the first one to ask gets it.';

CREATE FUNCTION metagate.id_at(moment timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT (lpad(to_hex((extract(epoch FROM moment) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;
COMMENT ON FUNCTION metagate.id_at IS 'The smallest UUIDv7 (as far as order goes) of a moment.';

CREATE FUNCTION metagate.id_moment(id uuid) RETURNS timestamptz
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $$
    SELECT to_timestamp(('x' || lpad(left(replace(id::text, '-', ''), 12), 16, '0'))::bit(64)::bigint / 1000.0)
$$;

CREATE VIEW metagate.startup_partition AS
SELECT c.relname::text AS name, metagate.id_moment(b.bounds[1]::uuid) AS lower, metagate.id_moment(b.bounds[2]::uuid) AS upper
FROM pg_catalog.pg_inherits AS i
JOIN pg_catalog.pg_class AS c ON c.oid = i.inhrelid
CROSS JOIN LATERAL regexp_match(
    pg_catalog.pg_get_expr(c.relpartbound, c.oid), 'FROM \(''([0-9a-f-]{36})''\) TO \(''([0-9a-f-]{36})''\)') AS b (bounds)
WHERE i.inhparent = 'metagate.startup'::regclass AND b.bounds IS NOT NULL;

CREATE FUNCTION metagate.prepare_partitions(days integer) RETURNS integer
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    day timestamptz;
    partition text;
    made integer := 0;
BEGIN
    IF days NOT BETWEEN 0 AND 30 THEN
        RAISE EXCEPTION 'days must be between 0 and 30' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    FOR day IN SELECT date_trunc('day', now(), 'UTC') + make_interval(days => d) FROM generate_series(0, days) AS d LOOP
        partition := 'startup_' || to_char(day AT TIME ZONE 'UTC', 'YYYYMMDD');
        CONTINUE WHEN to_regclass('metagate.' || partition) IS NOT NULL;
        BEGIN
            EXECUTE format(
                'CREATE TABLE metagate.%I PARTITION OF metagate.startup FOR VALUES FROM (%L) TO (%L) WITH (fillfactor = 80)',
                partition, metagate.id_at(day), metagate.id_at(day + interval '1 day'));
            made := made + 1;
        EXCEPTION
            -- Somebody is reading: the default partition takes the rows, and the next call tries again.
            WHEN lock_not_available THEN RETURN made;
            -- The default partition holds rows of that day already: they stay there, and so does the rest of the day.
            WHEN check_violation THEN NULL;
        END;
    END LOOP;
    RETURN made;
END $$;
COMMENT ON FUNCTION metagate.prepare_partitions IS
    'Make the daily partitions from today on, UTC. Never waits: without a partition the default one takes the rows.';

CREATE FUNCTION metagate.purge(retention interval, mirroring boolean, batch integer)
RETURNS TABLE (startups bigint, partitions integer, keys bigint)
LANGUAGE plpgsql VOLATILE SECURITY DEFINER SET search_path = pg_catalog, pg_temp SET lock_timeout = '50ms' AS $$
DECLARE
    cutoff timestamptz := now() - retention;
    candidate record;
    stays boolean;
    removed bigint;
BEGIN
    IF retention < interval '1 minute' OR batch < 1 THEN
        RAISE EXCEPTION 'retention must be at least a minute' USING ERRCODE = 'invalid_parameter_value';
    END IF;
    startups := 0;
    partitions := 0;
    FOR candidate IN
        -- Every partition: the id is the caller's clock, the age is ours.
        SELECT p.name, p.upper FROM metagate.startup_partition AS p
        UNION ALL SELECT 'startup_default', NULL
    LOOP
        IF candidate.upper < cutoff THEN
            EXECUTE format(
                'SELECT EXISTS (SELECT FROM metagate.%I AS s WHERE s.opened_at >= $1 '
                'OR ($2 AND EXISTS (SELECT FROM metagate.outbox AS o WHERE o.startup_id = s.startup_id)))', candidate.name)
            INTO stays USING cutoff, mirroring;
            IF NOT stays THEN
                BEGIN
                    EXECUTE format('DROP TABLE metagate.%I', candidate.name);
                    partitions := partitions + 1;
                    CONTINUE;
                EXCEPTION WHEN lock_not_available THEN
                    CONTINUE;  -- somebody is reading; the next call tries again
                END;
            END IF;
        END IF;
        CONTINUE WHEN startups >= batch;
        EXECUTE format(
            'DELETE FROM metagate.%1$I WHERE (tenant, startup_id) IN (SELECT s.tenant, s.startup_id FROM metagate.%1$I AS s '
            'WHERE s.opened_at < $1 AND NOT ($2 AND EXISTS (SELECT FROM metagate.outbox AS o WHERE o.startup_id = s.startup_id)) '
            'LIMIT $3 FOR UPDATE SKIP LOCKED)', candidate.name)
        USING cutoff, mirroring, batch - startups;
        GET DIAGNOSTICS removed = ROW_COUNT;
        startups := startups + removed;
    END LOOP;
    DELETE FROM metagate.idempotency AS i
    WHERE (i.tenant, i.principal_key, i.key) IN (
        SELECT k.tenant, k.principal_key, k.key
        FROM metagate.idempotency AS k
        WHERE k.opened_at < now() - least(retention, interval '24 hours')
        LIMIT batch
        FOR UPDATE SKIP LOCKED
    );
    GET DIAGNOSTICS keys = ROW_COUNT;
    RETURN NEXT;
END $$;
COMMENT ON FUNCTION metagate.purge IS
    'Remove sessions older than the retention, whatever their state, but for those whose last state is not mirrored yet, and '
    'idempotency keys that can no longer be replayed. At most `batch` rows of each; whole partitions are dropped.';
