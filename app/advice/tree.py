"""The article's decision tree, corrected: the needs decide which strategies are correct at all, and the ratio of reads
to writes decides which of these is cheap.

What can go wrong: the ratio comes from little traffic. `Advice.sure` says how far to trust it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from app.advice.choice import Choice
from app.advice.leaf import DOMINATED, RARE, leaf_of_loss, leaf_of_ratio, leaf_of_staleness
from app.advice.needs import Needs, meets
from app.advice.traffic import Traffic
from app.advice.trust import Sure, trust

BECAUSE = {
    Choice.CACHE_ASIDE: "it writes to the database and forgets the entry, which costs one round trip.",
    Choice.TTL_ONLY: "a write costs what it costs without a cache, and entries live on until their TTL ends.",
    Choice.WRITE_THROUGH: "a write is in both stores or in none, and it waits for both.",
    Choice.WRITE_BEHIND: "a write costs one round trip to Redis, and many of them become one row.",
}
"""The reason for each choice. Read-through costs what cache-aside costs, so it is never the cheaper one: it is for data
that is read in many places, or by many keys at once."""


@dataclass(frozen=True, slots=True)
class Advice:
    """The advised strategy, and why."""

    strategy: Choice
    reasons: Sequence[str]
    """For each question: the answer, the article's leaf, and the facts where they differ."""
    sure: Sure
    why: str
    """The reason for `sure`, as a sentence."""
    meets: Sequence[Choice]
    """The strategies that satisfy the needs at all, the simplest first."""


def advise(needs: Needs, traffic: Traffic) -> Advice:
    """Returns the tree's answer for these needs and this traffic. Raises ValueError for negative counts."""
    if min(traffic.reads, traffic.writes) < 0:
        raise ValueError(f"{traffic.reads} reads and {traffic.writes} writes cannot be.")
    line = RARE if Choice.WRITE_BEHIND in meets(needs) else DOMINATED
    reads_dominate = traffic.reads >= line * traffic.writes
    strategy = _cheapest(needs, reads_dominate)
    reasons = [
        str(leaf_of_staleness(needs)),
        f"{leaf_of_ratio(traffic, line)} {_seen(traffic)}",
        str(leaf_of_loss(needs)),
        f"So {strategy}: {BECAUSE[strategy]}",
    ]
    sure, why = (
        (Sure.HIGH, "The needs alone decide, whatever the ratio is.")
        if strategy is _cheapest(needs, not reads_dominate)
        else trust(traffic, line)
    )
    return Advice(strategy, reasons, sure, why, meets(needs))


def _cheapest(needs: Needs, reads_dominate: bool) -> Choice:
    fits = meets(needs)
    if Choice.WRITE_BEHIND in fits and not reads_dominate:
        return Choice.WRITE_BEHIND
    if Choice.TTL_ONLY in fits and not reads_dominate:
        return Choice.TTL_ONLY
    return fits[0]


def _seen(traffic: Traffic) -> str:
    seen = f"({traffic.reads:,} reads to {traffic.writes:,} writes"
    if traffic.keys:
        seen += f", {traffic.writes / traffic.keys:,.1f} writes to a key: so many can become one row"
    return seen + ".)"
