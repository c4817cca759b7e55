-- Receipts that lie in the default partition belong to a month too, so that each is archived once that month is over.
--
-- The emitter makes the ULID and so chooses the partition: an id of a month without one, or `migrate` not run for a year, leads to
-- the default partition. The month of such a receipt is that of its ULID, or that in which it was stored where that was earlier:
-- an id of the year 5000 must not keep a receipt out of the archives until then.

CREATE FUNCTION memorygate.ulid_time(receipt_id text) RETURNS timestamptz
LANGUAGE sql IMMUTABLE
RETURN to_timestamp((
    SELECT sum((strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(receipt_id, place, 1)) - 1) * 32::numeric ^ (10 - place))
    FROM generate_series(1, 10) AS place) / 1000);
COMMENT ON FUNCTION memorygate.ulid_time IS 'The time that a ULID carries.';

CREATE FUNCTION memorygate.archive_month(receipt_id text, stored_at timestamptz) RETURNS timestamptz
LANGUAGE sql STABLE
RETURN date_trunc('month', least(memorygate.ulid_time(receipt_id), stored_at), 'UTC');
COMMENT ON FUNCTION memorygate.archive_month IS 'The month in whose archive a receipt of the default partition goes.';
