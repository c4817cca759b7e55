"""The garbage collector of a process that only answers requests.

Answering leaves hardly any cycles behind, and what an application is made of stays as long as the process. Unless told
so, Python looks at all of it again and again while requests wait: a twelfth of a worker's time under load, and its
longest pauses.
"""

import gc

THRESHOLDS = (20_000, 10, 10)
"""Objects until the youngest are looked at, and how often that happens until the older ones are: a few megabytes."""


def freeze_gc() -> None:
    """Call this once, when the application is made: what there is now is never looked at again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)
