-- What is compared are whole tables, often right after much was appended. Nothing is known of such rows, and the planner then
-- tried each obligation against each of its ends: minutes for a hundred thousand receipts. Plans must not depend on statistics.

ALTER FUNCTION memorygate.drifted(integer) SET enable_nestloop = off;
ALTER FUNCTION memorygate.rebuild() SET enable_nestloop = off;
