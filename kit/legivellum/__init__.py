"""What every gate is made of."""
