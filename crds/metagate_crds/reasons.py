"""All condition types and reasons of a status. `docs/reasons.md` explains them; a test compares the two."""

from typing import Final

# Conditions
READY: Final = "Ready"
ACCEPTED: Final = "Accepted"
RESOLVED_REFS: Final = "ResolvedRefs"
COMPILED: Final = "Compiled"
CONFLICTED: Final = "Conflicted"
STALLED: Final = "Stalled"
KEYS_FRESH: Final = "KeysFresh"
WARNING: Final = "Warning"

CONDITIONS: Final[dict[str, str]] = {
    READY: "The summary: what is declared is what is served.",
    ACCEPTED: "The spec is valid.",
    RESOLVED_REFS: "Everything that the spec refers to exists and may be used from here.",
    COMPILED: "The present generation is what the database holds.",
    CONFLICTED: "Another object already holds what this one claims. Present only when True.",
    STALLED: "Nothing will change until the spec does. Present only when True.",
    KEYS_FRESH: "The public keys of a TokenIssuer are known and were fetched recently.",
    WARNING: "What is declared is served, and something in it is probably a mistake. Present only when True.",
}

# Reasons of a healthy object
SERVED: Final = "Served"
INACTIVE: Final = "Inactive"
SUSPENDED: Final = "Suspended"
VALID: Final = "Valid"
REFERENCES_RESOLVED: Final = "ReferencesResolved"
IN_SNAPSHOT: Final = "InSnapshot"

# Reasons of a refused spec
INVALID_FIELD: Final = "InvalidField"
UNKNOWN_FIELD: Final = "UnknownField"
MISSING_FIELD: Final = "MissingField"
FORBIDDEN_KEY: Final = "ForbiddenKey"
SECRET_VALUE: Final = "SecretValue"  # noqa: S105 - the name of a reason
INLINE_SECRET: Final = "InlineSecret"  # noqa: S105 - the name of a reason
INVALID_KEY: Final = "InvalidKey"
INVALID_VALUE: Final = "InvalidValue"
INVALID_PATTERN: Final = "InvalidPattern"
INVALID_POLLING: Final = "InvalidPolling"
INVALID_JWK: Final = "InvalidKeySet"
NOT_OVERRIDABLE: Final = "NotOverridable"
RULE_REFUSED: Final = "RuleRefused"
SCHEMA_REFUSED: Final = "SchemaRefused"
NAME_REFUSED: Final = "NameRefused"
DUPLICATE: Final = "Duplicate"
TOO_DEEP: Final = "TooDeep"
TOO_LARGE: Final = "TooLarge"
PACKET_TOO_LARGE: Final = "PacketTooLarge"
SYSTEM_NAMESPACE_ONLY: Final = "SystemNamespaceOnly"
RESERVED_ISSUER: Final = "ReservedIssuer"

# Reasons of a plan that cannot be, in a template, a draft or with these parameters
UNKNOWN_STEP: Final = "UnknownStep"
DEPENDENCY_CYCLE: Final = "DependencyCycle"
NO_ESCALATION: Final = "NoEscalation"
INVALID_RESULT: Final = "InvalidResult"
APPROVER_MISSING: Final = "ApproverMissing"
INVALID_SCHEMA: Final = "InvalidSchema"
UNKNOWN_PARAMETER: Final = "UnknownParameter"
PARAMETERS_REFUSED: Final = "ParametersRefused"
INVALID_POINTER: Final = "InvalidPointer"
INVALID_SINK: Final = "InvalidSink"
AUTHORITY_EXCEEDED: Final = "AuthorityExceeded"
TEMPLATE_NOT_FOUND: Final = "TemplateNotFound"
TEMPLATE_CYCLE: Final = "TemplateCycle"
NESTED_TOO_DEEP: Final = "NestedTooDeep"
TOO_MANY_ITEMS: Final = "TooManyItems"
TOO_MANY_NEEDS: Final = "TooManyNeeds"
TOO_MANY_STEPS: Final = "TooManySteps"
PLAN_TOO_LARGE: Final = "PlanTooLarge"

# Reasons of an unresolved reference
PRINCIPAL_NOT_FOUND: Final = "PrincipalNotFound"
PROFILE_NOT_FOUND: Final = "ProfileNotFound"
MANIFEST_NOT_FOUND: Final = "ManifestNotFound"
POLICY_PROFILE_NOT_FOUND: Final = "PolicyProfileNotFound"
SURFACE_NOT_FOUND: Final = "SurfaceNotFound"
SURFACE_NOT_GATEWAY: Final = "SurfaceNotGateway"
TARGET_NOT_FOUND: Final = "TargetNotFound"
CAPABILITY_NOT_ADMITTED: Final = "CapabilityNotAdmitted"
REFERENCE_NOT_VALID: Final = "ReferenceNotValid"
ISSUER_NOT_FOUND: Final = "IssuerNotFound"
ISSUER_NOT_ADMITTING: Final = "IssuerNotAdmitting"
SUBJECT_NOT_ADMITTED: Final = "SubjectNotAdmitted"
CLUSTER_SUBJECT: Final = "ClusterSubjectNotAllowed"
NO_CLUSTER_ISSUER: Final = "NoClusterIssuer"
NOT_RESOLVED: Final = "NotResolved"

# Reasons of not being compiled as declared
LAST_GOOD_SERVED: Final = "LastGoodServed"
NOTHING_SERVED: Final = "NothingServed"
MERGE_REFUSED: Final = "MergeRefused"
NAMESPACE_UNKNOWN: Final = "NamespaceUnknown"
DATABASE_UNAVAILABLE: Final = "DatabaseUnavailable"

# Reasons of a conflict
BINDING_CONFLICT: Final = "BindingConflict"
SUBJECT_CONFLICT: Final = "SubjectConflict"
KEY_CONFLICT: Final = "KeyConflict"
ISSUER_CONFLICT: Final = "IssuerConflict"
CAPABILITY_CONFLICT: Final = "CapabilityConflict"

# Reasons of a warning
COMPONENT_NOT_POSSIBLE: Final = "ComponentNotPossible"
SECRET_REF_NOT_DECLARED: Final = "SecretRefNotDeclared"  # noqa: S105 - the name of a reason
TREE_NOT_BOUNDED: Final = "TreeNotBounded"
TOOL_NAME_LONG: Final = "ToolNameLong"

# Reasons about an issuer's keys
KEYS_INLINE: Final = "KeysInline"
KEYS_AWAITED: Final = "KeysAwaited"
KEYS_FETCHED: Final = "KeysFetched"
KEYS_STALE: Final = "KeysStale"

REASONS: Final[dict[str, str]] = {
    SERVED: "The present generation is served.",
    INACTIVE: "The Binding is valid and declared inactive; nothing of it is served.",
    SUSPENDED: "The Principal is valid and declared suspended; it is refused everywhere.",
    VALID: "The spec is valid.",
    REFERENCES_RESOLVED: "Every reference resolves, or there is none.",
    IN_SNAPSHOT: "The present generation is in the snapshot.",
    INVALID_FIELD: "A field has the wrong type or is out of bounds.",
    UNKNOWN_FIELD: "A field that the kind does not have.",
    MISSING_FIELD: "A required field is absent.",
    FORBIDDEN_KEY: "A key that means work or deployment, at any depth (D-17).",
    SECRET_VALUE: "Something that looks like a secret; declare a reference in Profile.spec.secretRefs instead (D-15).",
    INLINE_SECRET: "A secret reference that would carry a value (D-15).",
    INVALID_KEY: "A key that is empty, too long, not a string, or holds control or invisible characters.",
    INVALID_VALUE: "A value that JSON, I-JSON or the database cannot carry: NUL, NaN, an integer beyond 2^53, a date.",
    INVALID_PATTERN: "A component glob or subject pattern that is not well formed or would admit too much.",
    INVALID_POLLING: "A polling entry is a pointer only: endpoint, interval, description (D-18).",
    INVALID_JWK: "An inline key set holds a private or symmetric key, or no key that tokens can be verified with.",
    NOT_OVERRIDABLE: "Overrides cover packet sections only; identity is not overridden (D-19).",
    RULE_REFUSED: "A CEL rule that cannot be evaluated, or not within bounds of time.",
    SCHEMA_REFUSED: "A JSON Schema that is not one of 2020-12, or needs something from outside of itself.",
    NAME_REFUSED: "The object's own name cannot be used: a Problemata's is a DNS label, a Principal's no placeholder.",
    DUPLICATE: "The same thing is listed twice.",
    TOO_DEEP: "Nested deeper than 32 levels.",
    TOO_LARGE: "More content than an object may have.",
    PACKET_TOO_LARGE: "The compiled packet would exceed 256 KiB (D-38).",
    SYSTEM_NAMESPACE_ONLY: "`scope: Cluster` and `rights` belong to the system namespace (D-51).",
    RESERVED_ISSUER: "The issuer's name is the one reserved for tokens signed with the shared secret (D-37).",
    UNKNOWN_STEP: "A step is named that the template or draft does not have.",
    DEPENDENCY_CYCLE: "A step waits for itself, by the steps that it needs.",
    NO_ESCALATION: "A step has no escalation rules, and there are none for all steps; `[]` permits no escalation.",
    INVALID_RESULT: "`result` names no step with a job, or one with forEach.",
    APPROVER_MISSING: "`dispatch: Held` needs an approver, and a plan that includes a held template the same one.",
    INVALID_SCHEMA: "A schema of parameters or outputs uses a keyword that is not known here, or is none.",
    UNKNOWN_PARAMETER: "A `${…}` or forEach names no parameter that is declared, or is only part of a text.",
    PARAMETERS_REFUSED: "The parameters do not meet the template's schema.",
    INVALID_POINTER: "The address of an input is too long, holds control characters, or is the data itself.",
    INVALID_SINK: "An output may go to `gate/output` or `gate/supporting` only.",
    AUTHORITY_EXCEEDED: "A step of a sub-plan asks for more authority than the step that it stands in for.",
    TEMPLATE_NOT_FOUND: "No PlanTemplate of this name is served in this namespace.",
    TEMPLATE_CYCLE: "Templates include each other in a circle.",
    NESTED_TOO_DEEP: "Plans within plans: more than 4 levels below the first.",
    TOO_MANY_ITEMS: "A forEach over more than 64 items.",
    TOO_MANY_NEEDS: "A step needs more than 64 others.",
    TOO_MANY_STEPS: "More than 200 steps, those of sub-plans and forEach counted.",
    PLAN_TOO_LARGE: "The plan would exceed 512 KiB.",
    PRINCIPAL_NOT_FOUND: "The Principal does not exist in this namespace.",
    PROFILE_NOT_FOUND: "The Profile does not exist in this namespace.",
    MANIFEST_NOT_FOUND: "The Manifest does not exist in this namespace.",
    POLICY_PROFILE_NOT_FOUND: "The PolicyProfile does not exist in this namespace.",
    SURFACE_NOT_FOUND: "The PolicyProfile has no surface of this name.",
    SURFACE_NOT_GATEWAY: "The surface is not of kind McpGateway, or has no target.",
    TARGET_NOT_FOUND: "The surface has no target of this name that is an MCP server.",
    CAPABILITY_NOT_ADMITTED: "The surface, or `invariants` of the PolicyProfile, does not admit this capability.",
    REFERENCE_NOT_VALID: "The referenced object exists and has never been valid; or it is a PlanTemplate that is not"
    " served.",
    ISSUER_NOT_FOUND: "No TokenIssuer has this issuer.",
    ISSUER_NOT_ADMITTING: "The TokenIssuer does not admit this namespace (D-44).",
    SUBJECT_NOT_ADMITTED: "The TokenIssuer's subject pattern does not admit this subject here (D-44).",
    CLUSTER_SUBJECT: "A subject of the cluster's issuer is named with serviceAccount, never spelled out (D-44).",
    NO_CLUSTER_ISSUER: "A service account is named, and no TokenIssuer with source Cluster and a known issuer exists.",
    NOT_RESOLVED: "The spec is not valid and was never served, so its references were not looked at.",
    LAST_GOOD_SERVED: "The present generation is refused; the last good one stays served (D-20).",
    NOTHING_SERVED: "Nothing of this object is served.",
    MERGE_REFUSED: "Profile, Manifest and overrides are valid each, and their merged result is not (D-19).",
    NAMESPACE_UNKNOWN: "The object's namespace is not known, so there is no tenant to serve it to.",
    DATABASE_UNAVAILABLE: "The database cannot be written to; what was served stays served.",
    BINDING_CONFLICT: "An older active Binding of the same Principal exists (D-21).",
    SUBJECT_CONFLICT: "An older Principal already has this subject (D-13).",
    KEY_CONFLICT: "An older Principal already has this API key (D-45).",
    ISSUER_CONFLICT: "An older TokenIssuer already has this issuer, or is already the cluster's (D-44).",
    CAPABILITY_CONFLICT: "An older PlanTemplate of the namespace already has this capability.",
    COMPONENT_NOT_POSSIBLE: "An entry of `components` that no component_key can be, so it permits nobody.",
    SECRET_REF_NOT_DECLARED: "A service's `auth.secretRef` names none of the secretRefs of the Profile beside it.",
    TREE_NOT_BOUNDED: "A PolicyProfile without `limits.maxTotalDescendants`: nothing bounds the tree of one root.",
    TOOL_NAME_LONG: "A tool that agents see under a name of more than 64 characters, which some of them cannot use.",
    KEYS_INLINE: "The keys are part of the spec.",
    KEYS_AWAITED: "The keys have not been fetched yet.",
    KEYS_FETCHED: "The keys were fetched recently.",
    KEYS_STALE: "Fetching the keys failed; those known stay in use.",
}
