-- A connection keeps the plan of a function from when the tenant was small: nested loops over its own intermediate results, which take
-- a second when the tenant has 10,000 bindings, until the next ANALYZE. This function is asked rarely; it is planned for each call.
ALTER FUNCTION metagate.topology_page(uuid, text, integer) SET plan_cache_mode = force_custom_plan;
