"""One request and its response: the edge, problems, batching, limits."""
