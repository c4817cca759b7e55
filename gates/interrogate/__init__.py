"""InterroGate: may this request pass? One decision, one receipt, one commit (docs/interrogate)."""
