"""The leaves of the article's decision tree: its answers to three questions, with the facts where it is wrong.

staleness   may reads be stale?
ratio       how many reads are there per write?
loss        what is lost with the cache?
"""

from dataclasses import dataclass
from datetime import timedelta

from app.advice.needs import Loss, Needs
from app.advice.traffic import Traffic

DOMINATED = 10
"""The number of reads per write from which on reads dominate."""
RARE = 1_000
"""The same where write-behind meets the needs: it keeps the entry that each write to the others discards. Measured with
the lab, cache-aside took 2.5 times as long at 9 reads per write, 2.3 times at 99 and 1.6 times at 999."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One answer to one question."""

    question: str
    answer: str
    says: str
    """What the article concludes from it."""
    fact: str = ""
    """What differs here."""

    def __str__(self) -> str:
        return f"{self.question} {self.answer} The article: {self.says}{' Here: ' if self.fact else ''}{self.fact}"


_STALE = "Can reads tolerate stale data?"
_RATIO = "What is the read-to-write ratio?"
_LOSS = "What happens if the data in the cache is lost?"

TOLERANT = Leaf(_STALE, "Yes.", "cache-aside or read-through.", "both are not stale after a write was answered.")
STRICT = Leaf(
    _STALE,
    "No.",
    "write-through.",
    "cache-aside and read-through as well answer nothing older to a read that begins after a write was answered, and "
    "write-behind answers what it has accepted. The TTL alone is out.",
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


def leaf_of_staleness(needs: Needs) -> Leaf:
    """Returns the answer to the first question."""
    if needs.stale != timedelta(0):
        return TOLERANT
    return DECISIVE if needs.decisive else STRICT


def leaf_of_ratio(traffic: Traffic, line: int) -> Leaf:
    """Returns the answer to the second question. Reads dominate from `line` reads per write on."""
    if traffic.reads >= line * traffic.writes:
        return READS
    return READS_OF_COUNTS if traffic.reads >= DOMINATED * traffic.writes else WRITES


def leaf_of_loss(needs: Needs) -> Leaf:
    """Returns the answer to the third question."""
    if needs.loss is Loss.DATA:
        return SOURCE if needs.counts else SOURCE_OF_VALUES
    return {Loss.NOTHING: UNHARMED, Loss.DASHBOARD: DASHBOARD, Loss.REVENUE: REVENUE}[needs.loss]
