-- `depotgate rebuild`: what `artifact` and `blob` are by the receipts (rebuilding.py). Run as a whole, in one transaction.

LOCK TABLE depotgate.artifact, depotgate.blob IN ACCESS EXCLUSIVE MODE;
DELETE FROM depotgate.artifact;
DELETE FROM depotgate.blob;

CREATE TEMPORARY TABLE history ON COMMIT DROP AS
SELECT r.tenant, r.receipt_id, r.phase, r.stored_at, r.body::json AS fields, split_part(r.body::json ->> 'artifact_pointer', ':', 2) AS artifact_id
FROM memorygate.receipt AS r WHERE r.kind = 'artifact';

INSERT INTO depotgate.artifact (tenant, artifact_id, sha256, size_bytes, media_type, role, task_id, name, depositor, lease_number, stored_at,
                                receipt_id, retired_at, retired_by)
SELECT s.tenant, s.artifact_id, decode(split_part(s.fields ->> 'artifact_pointer', ':', 3), 'hex'), (s.fields ->> 'artifact_size_bytes')::bigint,
       s.fields ->> 'artifact_mime', s.fields -> 'body' ->> 'role', s.fields -> 'body' ->> 'task_id', s.fields -> 'body' ->> 'name',
       s.fields -> 'body' ->> 'depositor', (s.fields -> 'body' ->> 'lease_number')::bigint, s.stored_at, s.receipt_id,
       gone.stored_at, gone.receipt_id
FROM history AS s
LEFT JOIN history AS gone ON gone.phase = 'retired' AND gone.artifact_id = s.artifact_id AND gone.tenant = s.tenant
WHERE s.phase = 'stored';

-- All artifacts with the same bytes that were kept at once have one blob; of those before, whose bytes went, none is kept any more.
INSERT INTO depotgate.blob (tenant, sha256, key, size_bytes)
SELECT DISTINCT a.tenant, a.sha256, h.fields -> 'body' ->> 'blob', a.size_bytes
FROM depotgate.artifact AS a JOIN history AS h ON h.receipt_id = a.receipt_id AND h.tenant = a.tenant
WHERE a.retired_at IS NULL;
