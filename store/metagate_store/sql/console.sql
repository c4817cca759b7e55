-- name: console.overview
-- How the boots of a tenant go.
SELECT * FROM metagate.overview($1, $2, $3);

-- name: console.overview_everywhere
-- How the boots of every tenant go.
SELECT * FROM metagate.overview_everywhere($1, $2);

-- name: console.tenants
-- Every tenant and its namespace.
SELECT * FROM metagate.tenants_everywhere($1);

-- name: console.issuers
-- How fresh the issuers' keys are.
SELECT * FROM metagate.issuers_seen($1);

-- name: console.search
-- What has these letters in its name.
SELECT * FROM metagate.search($1, $2, $3, $4);

-- name: console.not_served
-- What is declared and not served.
SELECT * FROM metagate.not_served($1, $2, $3);

-- name: console.failures
-- What failed, by error.
SELECT * FROM metagate.failures($1, $2, $3, $4);

-- name: console.startup_everywhere
-- Whose session this is.
SELECT * FROM metagate.startup_everywhere($1);

-- name: console.errors
-- What some sessions reported as their error.
SELECT * FROM metagate.errors_of($1, $2);
