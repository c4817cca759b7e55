"""DepotGate: artifacts that cannot change, each kept with its receipt. It keeps; it does not read."""
