"""A gate as small as a gate can be: one table, two routes, one receipt. It shows what is left when the kit does the rest.

It stands in DepotGate's place: it keeps texts, and emits `artifact/stored` through that gate's emitting function.
"""
