-- The primary key of bindings, made anew so that it is younger than the index of names.
--
-- `tenant = … AND principal_key = …` can be answered by either: by the primary key with one row, by the index of names with every binding
-- of the tenant. While the table is small both cost the same, and the planner then takes the younger index. A connection keeps that plan
-- until the next ANALYZE: boots and the topology of a tenant that grew meanwhile read all of its bindings for each principal.
-- The index is built while readers go on; only the exchange locks them out, for a moment.

CREATE UNIQUE INDEX binding_key ON metagate.binding (tenant, principal_key);
ALTER TABLE metagate.binding DROP CONSTRAINT binding_pkey, ADD CONSTRAINT binding_pkey PRIMARY KEY USING INDEX binding_key;
