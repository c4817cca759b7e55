-- Both call functions that PostgreSQL counts as stable (`convert_to`, `extract`). Declared immutable they promised more than
-- their bodies, and the planner inlines no such function: every receipt paid for two or three statements within the statement.

ALTER FUNCTION memorygate.link(bytea, bytea, text, bigint, timestamptz) STABLE;
ALTER FUNCTION memorygate.chain_seed(uuid, text) STABLE;
