"""Tunes the garbage collector while the application runs. Most of its work per request was to walk permanent objects.

What can go wrong: reference cycles stay in memory for longer. So references to large objects, such as bodies, are
dropped by hand.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = (5_000, 50, 20)
"""The collector's thresholds while the application runs. A collection of 5,000 new objects takes 5 ms, and delays all
requests; one of 50,000 takes 60 ms. The third bounds the memory of connections that were long open and have closed."""


@contextmanager
def settled_garbage() -> Iterator[None]:
    """Exempts all present objects from collection, and makes collections rarer, while the block lasts."""
    thresholds = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*SELDOM)
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
