"""Plans of work: what becomes of a PlanTemplate with its parameters, or of a draft (DELEGATE.md). Pure."""
