"""What a change would do (`planner`), and why a packet has the values it has (`explanation`)."""
