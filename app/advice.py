"""Which strategy: the article's decision tree, as data and as code, corrected where it is wrong.

    advice = advise(Needs(stale=timedelta(0), loss=Loss.REVENUE), Traffic(reads=900, writes=100))
    best = pick(needs, bills)

The tree asks three questions: may reads be stale, how many reads come to a write, and what is lost with the cache. It
contradicts itself, as the three may point to three strategies, and some of its leaves are not true of the strategies as
they are built here. So the needs decide first which strategies are right at all, and only among those does the ratio
decide which is cheap. Each reason names the leaf, and where the facts differ from it.

What can go wrong: a ratio seen in little traffic. `Advice.sure` says how far to trust it. Nothing here switches
anything.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from math import sqrt
from typing import Protocol, TypeVar


class Choice(StrEnum):
    """What can be advised: the simplest first."""

    CACHE_ASIDE = "cache-aside"
    READ_THROUGH = "read-through"
    TTL_ONLY = "cache-aside, TTL only"
    WRITE_THROUGH = "write-through"
    WRITE_BEHIND = "write-behind"


class Loss(StrEnum):
    """What it means to lose the data that is in the cache."""

    NOTHING = "nothing"
    DASHBOARD = "dashboard"
    REVENUE = "revenue"
    DATA = "data"


class Sure(StrEnum):
    """How sure an advice is."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Needs:
    """What the data must have."""

    stale: timedelta | None
    """How old an answer may be after a newer one was written; zero: never, None: any age."""
    loss: Loss
    counts: bool = False
    """Whether a write adds to a number. What replaces a value cannot be merged with what came before."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """What was seen."""

    reads: int
    writes: int
    keys: int | None = None
    """How many different ones; None where nobody counted."""


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do, and why."""

    strategy: Choice
    reasons: Sequence[str]
    """For each question: the answer, the article's leaf, and the facts where they differ."""
    sure: Sure
    why: str
    """Why it is so sure, in a sentence."""
    meets: Sequence[Choice]
    """What satisfies the needs at all, the simplest first."""


class Measured(Protocol):
    """What a strategy was measured to do."""

    @property
    def name(self) -> str:
        """A `Choice`, or anything else."""

    @property
    def stale_reads(self) -> int:
        """Reads that began after a newer write was answered."""

    @property
    def longest_stale(self) -> timedelta:
        """How long before: the longest of them."""

    @property
    def lost(self) -> int:
        """Writes that were acknowledged, and are not in the database in the end."""

    @property
    def doubled(self) -> int:
        """Writes that are there more than once."""

    @property
    def cost(self) -> float:
        """What is to be small: the mean latency of all operations, say. Any unit, the same for all."""


M = TypeVar("M", bound=Measured)


@dataclass(frozen=True, slots=True)
class Leaf:
    """One answer to a question of the tree."""

    question: str
    answer: str
    says: str
    """What the article makes of it."""
    fact: str = ""
    """What is otherwise here."""

    def __str__(self) -> str:
        return f"{self.question} {self.answer} The article: {self.says}{' Here: ' if self.fact else ''}{self.fact}"


DOMINATED = 10
"""Reads to a write, from which on reads dominate."""
SHORTEST = timedelta(seconds=1)
"""What may not be stale for as long as this has no use for a TTL alone."""
RARE = 1_000
"""The same where write-behind will do: each write throws an entry of the others away, which write-behind keeps.
Measured with the lab, cache-aside took 2.5 times as long at 9 reads to a write, 2.3 times at 99 and 1.6 at 999."""
WORTH = 1.5
"""So many times the least may the simpler and fresher strategy cost. Measured with the lab, cache-aside took 2.3 times
as long as a TTL alone at 4 reads to a write, 1.5 times at 9, and as long at 19: the article's line at 10 is right."""
ENOUGH = 1_000
"""Operations below which no ratio is sure: traffic comes in waves."""

_STALE = "Can reads tolerate stale data?"
_RATIO = "What is the read-to-write ratio?"
_LOSS = "What happens if the data in the cache is lost?"

TOLERANT = Leaf(_STALE, "Yes.", "cache-aside or read-through.", "both are not stale after a write was answered.")
STRICT = Leaf(
    _STALE,
    "No.",
    "write-through.",
    "cache-aside and read-through as well answer nothing older to a read that begins after a write was answered, and "
    "write-behind answers what it has taken on. The TTL alone is out.",
)
DECISIVE = Leaf(
    _STALE,
    "No, and money depends on it.",
    "write-through.",
    "the only one where two readers never disagree about what is newest, even while a write is under way.",
)
READS = Leaf(_RATIO, "Reads dominate.", "any strategy works, and cache-aside is the simplest.")
READS_OF_COUNTS = Leaf(
    _RATIO,
    "Reads dominate.",
    "any strategy works, and cache-aside is the simplest.",
    f"with counts, write-behind is much cheaper up to about {RARE:,} reads to a write, because it keeps the entry that "
    "each write to the others throws away.",
)
WRITES = Leaf(
    _RATIO,
    "Writes dominate, or are near parity.",
    "write-behind, or cache-aside with nothing but a TTL.",
    "write-behind takes additions only, because values that replace each other cannot be merged, and a TTL is also "
    "how stale a read may be.",
)
UNHARMED = Leaf(_LOSS, "Nothing that matters.", "does not ask.")
DASHBOARD = Leaf(_LOSS, "A dashboard is stale for half a minute.", "cache-aside with a TTL.")
REVENUE = Leaf(
    _LOSS,
    "Revenue, or compliance.",
    "write-through.",
    "each strategy but write-behind has the write in the database before it is answered, so that the cache holds only "
    "copies. Write-behind is out, whatever else speaks for it.",
)
SOURCE = Leaf(
    _LOSS,
    "The data itself: the cache is the only source.",
    "write-behind with streams, disk persistence, dead letters and alerts.",
    "that is right for counts that can bear the loss of what Redis had not yet written to disk.",
)
SOURCE_OF_VALUES = Leaf(
    _LOSS,
    "The data itself: the cache is the only source.",
    "write-behind with streams, disk persistence, dead letters and alerts.",
    "values that replace each other belong in the database first, and then the cache is not the only source any more.",
)


def meets(needs: Needs) -> Sequence[Choice]:
    """The strategies that satisfy the needs at all, the simplest first. Never empty.

    A TTL alone does so only if it is no longer than `needs.stale`.
    """
    fits = {Choice.WRITE_THROUGH}
    if _leaf_of_staleness(needs) is not DECISIVE:
        fits |= {Choice.CACHE_ASIDE, Choice.READ_THROUGH}
    if needs.stale is None or needs.stale >= SHORTEST:
        fits.add(Choice.TTL_ONLY)
    if needs.counts and needs.loss is not Loss.REVENUE:
        fits.add(Choice.WRITE_BEHIND)
    return [choice for choice in Choice if choice in fits]


def advise(needs: Needs, traffic: Traffic) -> Advice:
    """What the tree answers to these needs and this traffic. Raises ValueError for counts below zero."""
    if min(traffic.reads, traffic.writes) < 0:
        raise ValueError(f"{traffic.reads} reads and {traffic.writes} writes cannot be.")
    line = RARE if Choice.WRITE_BEHIND in meets(needs) else DOMINATED
    reads_dominate = traffic.reads >= line * traffic.writes
    strategy = _cheapest(needs, reads_dominate)
    reasons = [
        str(_leaf_of_staleness(needs)),
        f"{_leaf_of_ratio(traffic, line)} {_told(traffic)}",
        str(_leaf_of_loss(needs)),
        f"So {strategy}: {BECAUSE[strategy]}",
    ]
    sure, why = (
        (Sure.HIGH, "The needs alone decide, whatever the ratio is.")
        if strategy is _cheapest(needs, not reads_dominate)
        else _trust(traffic, line)
    )
    return Advice(strategy, reasons, sure, why, meets(needs))


def pick(needs: Needs, bills: Iterable[M]) -> M | None:
    """The best by measurement among the strategies that satisfy the needs; None where no bill does.

    A bill counts by its name. One that is no `Choice`, such as that of no cache, is passed over. The simplest and
    freshest wins that costs no more than WORTH times the least; Choice is in that order.
    """
    fits = [bill for bill in bills if bill.name in meets(needs) and _kept(needs, bill)]
    if not fits:
        return None
    least = min(bill.cost for bill in fits)
    simplest = list(Choice)
    return min(
        (bill for bill in fits if bill.cost <= least * WORTH), key=lambda bill: simplest.index(Choice(bill.name))
    )


BECAUSE = {
    Choice.CACHE_ASIDE: "it writes to the database and forgets the entry, which costs one round trip.",
    Choice.TTL_ONLY: "a write costs what it costs without a cache, and entries live on until their TTL ends.",
    Choice.WRITE_THROUGH: "a write is in both stores or in none, and it waits for both.",
    Choice.WRITE_BEHIND: "a write costs one round trip to Redis, and many of them become one row.",
}
"""What speaks for what is advised. Read-through costs what cache-aside costs, and so it is never the cheaper one: it is
for what many places read, or many keys at once."""


def _cheapest(needs: Needs, reads_dominate: bool) -> Choice:
    fits = meets(needs)
    if Choice.WRITE_BEHIND in fits and not reads_dominate:
        return Choice.WRITE_BEHIND
    if Choice.TTL_ONLY in fits and not reads_dominate:
        return Choice.TTL_ONLY
    return fits[0]


def _leaf_of_staleness(needs: Needs) -> Leaf:
    if needs.stale != timedelta(0):
        return TOLERANT
    decisive = needs.loss is Loss.REVENUE or (needs.loss is Loss.DATA and not needs.counts)
    return DECISIVE if decisive else STRICT


def _leaf_of_ratio(traffic: Traffic, line: int) -> Leaf:
    if traffic.reads >= line * traffic.writes:
        return READS
    return READS_OF_COUNTS if traffic.reads >= DOMINATED * traffic.writes else WRITES


def _leaf_of_loss(needs: Needs) -> Leaf:
    if needs.loss is Loss.DATA:
        return SOURCE if needs.counts else SOURCE_OF_VALUES
    return {Loss.NOTHING: UNHARMED, Loss.DASHBOARD: DASHBOARD, Loss.REVENUE: REVENUE}[needs.loss]


def _kept(needs: Needs, bill: Measured) -> bool:
    if (bill.lost or bill.doubled) and needs.loss is not Loss.NOTHING:
        return False
    if not bill.stale_reads or needs.stale is None:
        return True
    return bill.longest_stale <= needs.stale


def _told(traffic: Traffic) -> str:
    told = f"({traffic.reads:,} reads to {traffic.writes:,} writes"
    if traffic.keys:
        told += f", {traffic.writes / traffic.keys:,.1f} writes to a key: so many can become one row"
    return told + ".)"


def _trust(traffic: Traffic, line: int) -> tuple[Sure, str]:
    """How sure it is on which side of the line the ratio lies; the line is in reads to a write.

    By the interval in which the share of writes lies with 95 % confidence: Wilson, "Probable inference, the law of
    succession, and statistical inference", JASA 22, 1927. It knows nothing of waves, hence ENOUGH.
    """
    total = traffic.reads + traffic.writes
    if total == 0:
        return Sure.LOW, "Nothing was read or written yet."
    z = 1.96
    share = traffic.writes / total
    middle = (share + z * z / (2 * total)) / (1 + z * z / total)
    reach = z * sqrt(share * (1 - share) / total + z * z / (4 * total * total)) / (1 + z * z / total)
    low, high = max(middle - reach, 0), min(middle + reach, 1)
    limit = 1 / (line + 1)
    why = (
        f"Of {total:,} operations {share:.1%} write, {low:.1%} to {high:.1%} with what chance does; "
        f"the line is at {limit:.1%} ({line:,} reads to a write)."
    )
    if low <= limit <= high:
        return Sure.LOW, why
    # Another day may well have twice, or half, of the writes.
    if total < ENOUGH or low / 2 <= limit <= high * 2:
        return Sure.MEDIUM, why
    return Sure.HIGH, why
