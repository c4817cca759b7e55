"""The console: what the person on call looks at. Read-only, for principals of type admin or observer."""
