"""DeleGate: plans become work. It mints; it does not think."""
