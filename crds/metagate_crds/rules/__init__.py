"""What a declaration may not hold: bounds, forbidden keys, secrets, unusable keys, patterns that admit too much."""
