-- name: read.bootstrap
-- Resolve, permit, open and answer. Arrays travel as text: of uuid[] and boolean[] the driver would ask the server first.
SELECT * FROM metagate.bootstrap(
    $1::text[]::uuid[], $2, $3, $4, $5, $6, $7, $8::text[]::uuid[], $9::text[]::uuid[], $10, $11, $12, $13, $14,
    $15::text[]::boolean[]
);

-- name: read.report
-- Ready or failed. Arrays travel as text, see above.
SELECT * FROM metagate.report(
    $1::text[]::uuid[], $2, $3, $4, $5, $6, $7::text[]::uuid[], $8, $9, $10, $11::text[]::boolean[]
);

-- name: read.resolve
-- Whom credentials speak for.
SELECT * FROM metagate.resolve($1, $2, $3, $4);

-- name: read.credentials
-- Credentials that changed since a mark, and the newest mark.
SELECT m.mark AS newest, c.* FROM metagate.credential_mark() AS m (mark) LEFT JOIN metagate.credentials($1) AS c ON true;

-- name: read.packet
-- The packet as of now.
SELECT * FROM metagate.packet_now($1, $2, $3, $4, $5, $6, $7, $8, $9);

-- name: read.startup
-- One session.
SELECT * FROM metagate.startup($1, $2);

-- name: read.startups
-- Sessions of a tenant.
SELECT * FROM metagate.startups($1, $2, $3, $4, $5, $6, $7);

-- name: read.startups_everywhere
-- Sessions of every tenant.
SELECT * FROM metagate.startups_everywhere($1, $2, $3, $4, $5, $6, $7);

-- name: read.summary
-- Sessions of a tenant by state.
SELECT * FROM metagate.summary($1, $2, $3);

-- name: read.interview
-- How much is served and how many sessions stand where.
SELECT * FROM metagate.interview($1, $2);

-- name: read.items
-- Served objects of a tenant.
SELECT * FROM metagate.items($1, $2, $3, $4);

-- name: read.items_everywhere
-- Served objects of every tenant.
SELECT * FROM metagate.items_everywhere($1, $2, $3, $4);

-- name: read.item
-- One served object.
SELECT * FROM metagate.item($1, $2, $3);

-- name: read.policy_profile
-- One ruleset.
SELECT * FROM metagate.policy_profile($1, $2);

-- name: read.problematas
-- What agents may ask of a tenant, and which gateways are there.
SELECT * FROM metagate.announced($1, $2, $3, $4);

-- name: read.announce
-- A gateway is there.
SELECT * FROM metagate.announce($1, $2, $3, $4, $5, $6, $7, $8);

-- name: read.withdraw
-- A gateway stops.
SELECT * FROM metagate.withdraw($1, $2, $3, $4);

-- name: read.topology
-- Who is there and what they use, by pages of principals.
SELECT * FROM metagate.topology_page($1, $2, $3);

-- name: read.state
-- How fresh the database is, and which server says so.
SELECT *, pg_postmaster_start_time() AS server_started_at FROM metagate.state();

-- name: read.booted
-- What a session was told.
SELECT * FROM metagate.booted($1, $2);

-- name: read.standing
-- What a principal would be told now.
SELECT * FROM metagate.standing($1, $2);

-- name: read.layers
-- What made a packet.
SELECT * FROM metagate.layers($1, $2, $3);

-- name: read.history
-- What changed in a tenant.
SELECT * FROM metagate.history($1, $2, $3, $4, $5, $6);

-- name: read.history_everywhere
-- What changed in any tenant.
SELECT * FROM metagate.history_everywhere($1, $2, $3);

-- name: read.declared_at
-- The declared objects of a tenant at a revision.
SELECT * FROM metagate.declared_at($1, $2, $3, $4, $5);
