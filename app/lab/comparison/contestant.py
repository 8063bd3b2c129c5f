"""The contestants of a comparison, by name."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from app.caching import CacheAside, ReadThrough, WriteBehind, WriteThrough
from app.lab.published import PUBLISHED
from app.lab.strategy import Make


class Kind(StrEnum):
    """The origin of a contestant."""

    NONE = "no cache"
    OURS = "ours"
    PUBLISHED = "published"
    REPAIRED = "repaired"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A way to cache. `about` is a line for a person; `copy` says whether to copy it; `make` is None when `entrant.py`
    makes the strategy."""

    name: str
    kind: Kind
    about: str
    copy: bool
    make: Make | None = None

    @property
    def later(self) -> bool:
        """Whether a write is acknowledged before the database has it."""
        return self.name.startswith(WriteBehind.NAME)


CONTESTANTS: Sequence[Contestant] = (
    Contestant("no cache", Kind.NONE, "Every read and every write asks the database.", True),
    Contestant(CacheAside.NAME, Kind.OURS, "Database, then invalidate; a fill needs a lease.", True),
    Contestant(ReadThrough.NAME, Kind.OURS, "The same, and the cache loads itself: many misses, one query.", True),
    Contestant(WriteThrough.NAME, Kind.OURS, "Both stores or neither, under the row's lock.", True),
    Contestant(WriteBehind.NAME, Kind.OURS, "Counts in Redis now, in the database soon, each exactly once.", True),
    *(
        Contestant(
            variant.name,
            Kind.REPAIRED if variant.copy and "TTL" not in variant.name else Kind.PUBLISHED,
            variant.defect,
            variant.copy,
            variant.make,
        )
        for variant in PUBLISHED.values()
    ),
)
