"""From declared objects to served rows: desired state, the difference to what is stored, the status of each object."""
