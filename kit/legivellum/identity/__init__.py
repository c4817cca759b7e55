"""Who is calling: API keys and tokens, verified from memory."""
