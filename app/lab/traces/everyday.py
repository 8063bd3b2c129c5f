"""The steps of everyday workloads.

points      popular keys are read and written
sales       calm, and then bursts of orders for a few keys
batches     every row is written once, in order
catalogue   hardly any writes
"""

import math
from collections.abc import Iterator

from app.lab.traces.mix import Mix, Step
from app.lab.traces.operation import Kind
from app.lab.traces.zipf import Zipf

PERIOD, SALE = 500, 200
"""Every 500 operations end in a sale of 200."""
ON_SALE = 3
CROWD = 0.9
"""The share of a sale's operations that are for the keys on sale."""


def points(mix: Mix) -> Iterator[Step]:
    """Yields reads and writes of keys whose popularity falls with their number."""
    popularity = Zipf(mix.keys, mix.alpha)
    while True:
        yield Kind.READ if mix.read() else Kind.WRITE, popularity.draw(mix.random)


def sales(mix: Mix) -> Iterator[Step]:
    """Yields twice the usual share of writes in a sale, and so fewer outside."""
    popularity = Zipf(mix.keys, mix.alpha)
    in_sale = min(1, 2 * (1 - mix.reads))
    outside = ((1 - mix.reads) * PERIOD - in_sale * SALE) / (PERIOD - SALE)
    while True:
        for place in range(PERIOD):
            sale = place >= PERIOD - SALE
            written = mix.random.random() < (in_sale if sale else outside)
            crowd = sale and mix.random.random() < CROWD
            number = mix.random.randrange(min(ON_SALE, mix.keys)) if crowd else popularity.draw(mix.random)
            yield Kind.WRITE if written else Kind.READ, number


def batches(mix: Mix) -> Iterator[Step]:
    """Yields one row after another, and now and then a read of one of the newest."""
    written = 0
    while True:
        if written and mix.read():
            newest = (written - 1) % mix.keys
            yield Kind.READ, newest - Zipf(newest + 1, mix.alpha).draw(mix.random)
        else:
            yield Kind.WRITE, written % mix.keys
            written += 1


def catalogue(mix: Mix) -> Iterator[Step]:
    """Yields writes at even distances, and at least one unless everything reads."""
    popularity = Zipf(mix.keys, mix.alpha)
    writes = math.ceil(mix.requests * (1 - mix.reads) - 0.5) or int(mix.reads < 1)
    places = {int((number + 0.5) * mix.requests / writes) for number in range(writes)}
    for place in range(mix.requests):
        yield Kind.WRITE if place in places else Kind.READ, popularity.draw(mix.random)
