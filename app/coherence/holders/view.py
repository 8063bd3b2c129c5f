"""Who holds which slot, as it stands in Postgres in place of a run of Redis.

    cluster 7f3a…/0 0-5460 | 91bc…/2 5461-10922,16000 | …       the id and the term of each node, and its slots

When slots are taken from a node that has died or was cut off, it and their new holder get a new term. What they have
kept from before belongs to another life (`identity.py`):

    X is cut off; Y is made the holder, gets a write, and dies      X is made the holder again: its values are too old

What can go wrong: the text is that of one Redis, or of another version. Then this service's cluster claims the next
epoch, as another Redis would.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from app.caching.cluster.slot_map import SLOTS

TEXT = re.compile(r"cluster(?: \w+/\d+ [\d,-]*(?: \||$))+")
NODE = re.compile(r" (\w+)/(\d+) ([\d,-]*)(?: \||$)")


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """The id of the holder of each slot, None where there is none, and the term of each node."""

    holders: Sequence[str | None]
    terms: Mapping[str, int]

    @staticmethod
    @lru_cache(maxsize=4)
    def read(text: str) -> "View | None":
        """Reads a view, None if the text is not one. Each poll reads the one of the poll before."""
        if TEXT.fullmatch(text) is None:
            return None
        holders: list[str | None] = [None] * SLOTS
        terms: dict[str, int] = {}
        for id_, term, slots in NODE.findall(text):
            terms[id_] = int(term)
            for span in filter(None, slots.split(",")):
                begin, _, end = span.partition("-")
                first, last = int(begin), int(end or begin)
                if not first <= last < SLOTS:
                    return None
                holders[first : last + 1] = [id_] * (last + 1 - first)
        return View(holders, terms)

    def __str__(self) -> str:
        spans: dict[str, list[str]] = {id_: [] for id_ in self.terms}
        for id_, slots in groupby(range(SLOTS), key=lambda slot: self.holders[slot]):
            if id_ is not None:
                first, *others = slots
                spans.setdefault(id_, []).append(f"{first}-{others[-1]}" if others else str(first))
        nodes = [id_ for id_ in sorted(spans) if spans[id_] or self.terms.get(id_)]
        return "cluster" + " |".join(f" {id_}/{self.terms.get(id_, 0)} {','.join(spans[id_])}" for id_ in nodes)
