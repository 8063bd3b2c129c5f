"""Ranks by popularity: rank k is drawn in proportion to 1 / k^alpha.

    rank = Zipf(1_000, alpha=0.99).draw(Random(1))      # 0 is the most popular

The law of Gray, Sundaresan, Englert, Baclawski and Weinberger, "Quickly generating billion-record synthetic databases",
SIGMOD 1994, as YCSB uses it. Their way of drawing first adds up all items and needs an alpha below 1, less than many
caches see. Here ranks are drawn exactly, for every alpha, in no memory, by rejection-inversion: Hörmann and Derflinger,
"Rejection-inversion to generate variates from monotone discrete distributions", ACM TOMACS 6 (3), 1996.
"""

from math import exp, expm1, log, log1p
from random import Random


class Zipf:
    """A distribution over the ranks 0 … items - 1. With an alpha of 0 all are equally popular."""

    def __init__(self, items: int, alpha: float) -> None:
        self._items, self._alpha = items, alpha
        self._top = self._area(1.5) - 1
        self._bottom = self._area(items + 0.5)
        self._near = 2 - self._inverse(self._area(2.5) - self._height(2))

    def draw(self, random: Random) -> int:
        """Draws one rank."""
        while True:
            area = self._bottom + random.random() * (self._top - self._bottom)
            x = self._inverse(area)
            rank = min(max(int(x + 0.5), 1), self._items)
            if rank - x <= self._near or area >= self._area(rank + 0.5) - self._height(rank):
                return rank - 1

    def _height(self, x: float) -> float:
        """Returns 1 / x^alpha."""
        return exp(-self._alpha * log(x))

    def _area(self, x: float) -> float:
        """Returns the area under the height from 1 to x: (x^(1 - alpha) - 1) / (1 - alpha), and log(x) where alpha is
        1."""
        exponent = (1 - self._alpha) * log(x)
        return log(x) * (expm1(exponent) / exponent if abs(exponent) > 1e-8 else 1 + exponent / 2)

    def _inverse(self, area: float) -> float:
        """Returns the x with this area. Rounding may lead below the smallest area."""
        power = max(area * (1 - self._alpha), -1 + 1e-15)
        return exp(area * (log1p(power) / power if abs(power) > 1e-8 else 1 - power / 2))
