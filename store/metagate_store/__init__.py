"""The database as a contract: what may be written, what may be asked, and in which words."""
