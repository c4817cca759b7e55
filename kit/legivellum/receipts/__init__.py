"""The receipt: its fields, its canonical form, its phase rules. Pure: no I/O."""
