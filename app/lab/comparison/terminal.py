"""The comparison as a person reads it in a terminal."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise

from rich.console import Console, Group, RenderableType
from rich.table import Column, Table
from rich.text import Text

from app.caching import WriteBehind
from app.lab.comparison.bill import MILLISECOND, Bill, Latency
from app.lab.comparison.claims import COLUMNS, PUBLISHED_AS, TABLE_OF_FOUR
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.oracle import Verdict

WIDE = 180
"""Characters that the bill needs to fit on one line."""
PARTS = (0, 3, 8, len(COLUMNS))
"""Where the bill is split on a narrower screen: how long, how much work, what went wrong."""
MANY = 999.5
"""In milliseconds: from here on, three digits are too few."""
UNLIKE = 0.1
"""The largest difference between the played and the whole trace's share of reads that needs no note."""


def cells(bill: Bill) -> list[str]:
    """Returns a bill as the cells of `claims.COLUMNS`."""
    whole = bill.whole
    return [
        "" if bill.hit_ratio is None else f"{bill.hit_ratio:.1%}",
        _times(bill.read_latency),
        _times(bill.write_latency),
        f"{bill.database_reads:,}",
        f"{bill.database_writes:,}",
        "" if bill.coalescing is None else f"{bill.coalescing:.1f}",
        f"{bill.redis_round_trips:,}",
        f"{bill.redis_bytes / 1024:,.0f}",
        stale(whole),
        f"{whole.uncommitted:,}",
        f"{whole.lost:,}",
        f"{whole.doubled:,}",
        f"{bill.errors:,}",
    ]


def stale(verdict: Verdict) -> str:
    """Says how many reads were stale, and how old the oldest answer was."""
    return f"{verdict.stale:,} ({duration(verdict.longest_stale)})" if verdict.stale else "0"


def duration(took: timedelta) -> str:
    """Formats a duration in ms, or in seconds when it is long."""
    return f"{took.total_seconds():.1f} s" if took >= timedelta(seconds=1) else f"{took / MILLISECOND:.3g} ms"


def heading(comparison: Comparison) -> str:
    """Says what was compared, in two sentences."""
    trace, replayed, plan = comparison.trace, comparison.replayed, comparison.plan
    how = (
        f"{plan.clients} clients, each waits for its answer"
        if plan.rate is None
        else f"{plan.rate:g} operations a second"
    )
    limits = "" if plan.cache_size is None else f", a cache of {plan.cache_size:,} entries"
    late = f", {duration(plan.db_latency)} to the database and back" if plan.db_latency else ""
    whole = "" if trace.whole else " (its first part: it has more lines than are read)"
    played = "Played" if comparison.complete else "To be played"
    return (
        f"{trace.name}{whole}: {trace.reads:,} reads and {trace.writes:,} writes of {trace.keys:,} keys. {played}: "
        f"{replayed.reads:,} reads and {replayed.writes:,} writes of {replayed.keys:,} keys; {how}{limits}{late}."
    )


def notes(comparison: Comparison) -> list[str]:
    """Returns what a reader has to know to read the numbers."""
    found = [
        "stale, uncommitted, lost and doubled: in the replay, under contention (few keys, a database that stalls now "
        "and then), and after a process was killed with SIGKILL while it wrote."
        if comparison.plan.drills and all(bill.crash is not None for bill in comparison.bills)
        else "stale, uncommitted, lost and doubled: in the replay.",
        f"Our four share one relay, which asked the database {comparison.relay.reads:,} times and Redis "
        f"{comparison.relay.traffic.round_trips:,} times; it is in nobody's bill.",
        f"It took {comparison.took.total_seconds():.0f} s.",
    ]
    if not comparison.plan.db_latency:
        found.append(
            "A database on the same machine answers nearly as fast as Redis; --db-latency adds the ms of a network."
        )
    trace, replayed = comparison.trace, comparison.replayed
    of_all, of_played = (_share(each.reads, each.writes) for each in (trace, replayed))
    if abs(of_all - of_played) > UNLIKE:
        found.insert(
            0,
            f"What was played is unlike the whole: {of_played:.0%} of it are reads, and of the trace {of_all:.0%}. "
            "--requests plays more of it.",
        )
    if trace.skipped:
        found.append(f"{trace.skipped:,} lines of the log were passed over: they are no request that reads or writes.")
    if not trace.exact:
        found.append("The number of keys is an estimate, some 0.2 % off.")
    found += [f"{bill.name}: {bill.first_error}" for bill in comparison.bills if bill.errors]
    if any(bill.name == WriteBehind.NAME and bill.reads for bill in comparison.bills):
        found.append(
            "The slowest reads of write-behind are of totals that it does not have: it adds up what waits and what the "
            "database has, for one group of readers after the other, and once more when a flush came between."
        )
    if not comparison.complete:
        found.insert(0, interrupted(comparison))
    return found


def interrupted(comparison: Comparison) -> str:
    """Says that the numbers are of a part, and how large that is."""
    billed = sum(bill.reads + bill.writes + bill.errors for bill in comparison.bills)
    whole = (comparison.replayed.operations - comparison.plan.warm_up) * len(comparison.bills)
    told = f" Of {whole:,} operations {billed:,} are in it." if whole else ""
    return f"It was interrupted: this is what was measured until then.{told}"


def _share(reads: int, writes: int) -> float:
    return reads / (reads + writes) if reads + writes else 0.0


def show(comparison: Comparison, console: Console) -> None:
    """Prints all of it. What does not fit the width is folded, never cut off."""
    console.print(_report(comparison, console.width))


def _report(comparison: Comparison, width: int) -> RenderableType:
    parts = [range(len(COLUMNS))] if width >= WIDE else [range(*part) for part in pairwise(PARTS)]
    bills = [each for part in parts for each in (_bills(comparison.bills, part), Text(""))]
    words = Table(
        Column("", no_wrap=True),
        "stale risk, in words",
        "published",
        "ours",
        "writes, in words",
        "published",
        "ours",
        box=None,
    )
    by_name = {bill.name: bill for bill in comparison.bills}
    for row in TABLE_OF_FOUR:
        theirs, ours = by_name.get(PUBLISHED_AS[row.strategy]), by_name.get(row.strategy)
        if theirs is not None and ours is not None:
            words.add_row(
                row.strategy,
                row.stale_risk,
                stale(theirs.whole),
                stale(ours.whole),
                row.write_latency,
                f"{_median(theirs.write_latency)}",
                f"{_median(ours.write_latency)}",
            )
    legend = Table(Column("column", no_wrap=True), "what it is", "the claim that it tests", box=None)
    for column in COLUMNS:
        legend.add_row(column.title, column.meaning, column.claim)
    blank = Text("")
    return Group(
        Text(heading(comparison), "bold"),
        blank,
        *bills,
        words,
        blank,
        legend,
        blank,
        *map(Text, notes(comparison)),
    )


def _bills(bills: Sequence[Bill], places: range) -> Table:
    """Returns the columns at these places."""
    table = Table(
        Column("strategy", overflow="fold", min_width=16),
        *(Column(COLUMNS[place].title, justify="right", overflow="fold") for place in places),
        box=None,
        header_style="bold",
        padding=(0, 1),
    )
    for bill in bills:
        found = cells(bill)
        style = "" if bill.contestant.copy else "dim"
        table.add_row(bill.name, *(Text(found[place], _colour(place, bill)) for place in places), style=style)
    return table


def _colour(place: int, bill: Bill) -> str:
    whole = bill.whole
    wrong = {8: whole.stale, 9: whole.uncommitted, 10: whole.lost, 11: whole.doubled, 12: bill.errors}
    return "red" if wrong.get(place) else ""


def _times(latency: Latency) -> str:
    times = [each / MILLISECOND for each in (latency.p50, latency.p99, latency.p999) if each is not None]
    return " / ".join(f"{each:.3g}" if each < MANY else f"{each:,.0f}" for each in times)


def _median(latency: Latency) -> str:
    return "no writes" if latency.p50 is None else f"{latency.p50 / MILLISECOND:.3g} ms"
