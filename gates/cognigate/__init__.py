"""CogniGate: a worker that asks models, within what the lease permits, and can mint nothing."""
