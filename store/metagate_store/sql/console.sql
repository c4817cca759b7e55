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

-- name: console.principals
-- Principals with their health.
SELECT * FROM metagate.principals_page($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11);

-- name: console.startups_failed_with
-- Sessions that failed with one error.
SELECT * FROM metagate.startups_failed_with($1, $2, $3, $4, $5, $6);

-- name: console.others_failed_with
-- How many others failed with the error of a session.
SELECT * FROM metagate.others_failed_with($1, $2, $3);

-- name: console.changed_specs
-- What was declared before and after some changes.
SELECT * FROM metagate.changed_specs($1, $2, $3, $4);
