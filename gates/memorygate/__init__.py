"""MemoryGate: the append-only record of who accepted, completed or escalated what. It remembers; it never acts."""
