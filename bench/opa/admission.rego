# What the benchmark's policy says, as far as it can be said of a request alone: whoever asks has to know the parent's
# depth and budget and the counters of the tree, and to say them truly.
package admission

policy := {
	"limits": {"maxSpawnDepth": 5, "maxTotalDescendants": 1000000000, "maxRepeatsPerCapability": 1000000000},
	"surfaces": {"public": {"principals": ["*"], "allow": ["doc.*"]}},
}

depth := input.parent.depth + 1

budget_remaining := input.parent.budget - 1

reasons contains "SURFACE_NOT_FOUND" if not policy.surfaces[input.surface_id]

reasons contains "CAUSALITY_MISMATCH" if input.causality.spawn_depth != depth

reasons contains "CAUSALITY_MISMATCH" if input.causality.root_task_id != input.parent.root_task_id

reasons contains "UNAUTHORIZED" if not matches_any(policy.surfaces[input.surface_id].principals, input.caller.principal_key)

reasons contains "BUDGET_EXHAUSTED" if input.parent.budget <= 0

reasons contains "DEPTH_EXCEEDED" if depth > policy.limits.maxSpawnDepth

reasons contains "DESCENDANTS_EXCEEDED" if input.observed.descendants + 1 > policy.limits.maxTotalDescendants

reasons contains "REPEATS_EXCEEDED" if input.observed.repeats + 1 > policy.limits.maxRepeatsPerCapability

reasons contains "CAPABILITY_DENIED" if {
	not matches_any(policy.surfaces[input.surface_id].allow, input.causality.capability_id)
}

matches_any(globs, name) if {
	some pattern in globs
	glob.match(pattern, [], name)
}

decision := {
	"outcome": outcome,
	"reason_codes": reasons,
	"depth": depth,
	"budget_remaining": budget_remaining,
}

default outcome := "DENY"

outcome := "ALLOW" if count(reasons) == 0
