"""What a process that serves a gate does: listen, migrate, follow, report its health."""
