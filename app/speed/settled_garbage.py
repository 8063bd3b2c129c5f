"""The garbage collector while the application runs. Most of its work at a request was to walk through what stays.

What can go wrong: circles of garbage stay for longer. So what may hold much, as a body does, is let go by hand.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (50_000, 50, 1_000)
"""The collector's thresholds while the application runs."""


@contextmanager
def settled_garbage() -> Iterator[None]:
    """Tells the collector that what is there now will stay, and to look less often for what comes."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
