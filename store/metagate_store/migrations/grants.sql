-- Who may do what. Applied after every migration, so it always says everything; nothing is granted anywhere else.

REVOKE ALL ON SCHEMA metagate FROM PUBLIC;
REVOKE ALL ON ALL TABLES IN SCHEMA metagate FROM PUBLIC, metagate_publisher, metagate_api, metagate_identity;
REVOKE ALL ON ALL SEQUENCES IN SCHEMA metagate FROM PUBLIC, metagate_publisher, metagate_api, metagate_identity;
REVOKE ALL ON ALL ROUTINES IN SCHEMA metagate FROM PUBLIC, metagate_publisher, metagate_api, metagate_identity;
REVOKE ALL ON TYPE
    metagate.startup_view, metagate.item, metagate.boot, metagate.declaration, metagate.happening, metagate.overview, metagate.found
FROM PUBLIC;
GRANT USAGE ON SCHEMA metagate TO metagate_publisher, metagate_api, metagate_identity;
GRANT USAGE ON TYPE
    metagate.startup_view, metagate.item, metagate.boot, metagate.declaration, metagate.happening, metagate.overview, metagate.found
TO metagate_api;

-- The API asks questions; it touches no table.
GRANT EXECUTE ON FUNCTION
    metagate.bootstrap, metagate.report, metagate.resolve, metagate.credentials, metagate.credential_mark, metagate.packet_now,
    metagate.startup, metagate.startups, metagate.startups_everywhere, metagate.items, metagate.items_everywhere, metagate.item,
    metagate.policy_profile, metagate.topology, metagate.state, metagate.booted, metagate.standing, metagate.layers,
    metagate.history, metagate.history_everywhere, metagate.declared_at, metagate.summary,
    metagate.overview, metagate.overview_everywhere, metagate.tenants_everywhere, metagate.issuers_seen, metagate.named,
    metagate.named_everywhere, metagate.startup_everywhere, metagate.topology_page, metagate.not_served, metagate.failures,
    metagate.search, metagate.errors_of, metagate.principals_page, metagate.startups_failed_with, metagate.others_failed_with,
    metagate.changed_specs, metagate.interview, metagate.announce, metagate.withdraw, metagate.announced
TO metagate_api;

-- Another gate may look up who speaks (D-48), and a boundary what it admits by (D-60).
GRANT EXECUTE ON FUNCTION
    metagate.resolve, metagate.credentials, metagate.credential_mark, metagate.everybody, metagate.policies, metagate.problematas,
    metagate.plan_templates, metagate.state
TO metagate_identity;

-- The writer replaces what is served, adds to what is remembered, and cannot rewrite history or invent a session.
GRANT SELECT, INSERT, UPDATE, DELETE ON
    metagate.principal, metagate.subject, metagate.api_key, metagate.binding, metagate.profile, metagate.manifest,
    metagate.policy_profile, metagate.problemata, metagate.plan_template, metagate.issuer, metagate.issuer_key, metagate.reference,
    metagate.resource, metagate.sighting
TO metagate_publisher;
GRANT SELECT, INSERT, UPDATE ON metagate.tenant, metagate.declared TO metagate_publisher;
GRANT SELECT, INSERT ON metagate.packet, metagate.revision, metagate.change TO metagate_publisher;
GRANT SELECT, UPDATE ON metagate.epoch TO metagate_publisher;
GRANT SELECT, INSERT, UPDATE, DELETE ON metagate.outbox, metagate.outbox_refused TO metagate_publisher;
GRANT SELECT ON
    metagate.installation, metagate.migration, metagate.startup, metagate.startup_partition, metagate.key_digest
TO metagate_publisher;
GRANT EXECUTE ON FUNCTION
    metagate.claim, metagate.id_moment, metagate.prepare_partitions, metagate.purge, metagate.purge_packets, metagate.state
TO metagate_publisher;
