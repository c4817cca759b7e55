"""AsyncGate: who works on a task now, and for how long. It moves responsibility and judges no outcome."""
