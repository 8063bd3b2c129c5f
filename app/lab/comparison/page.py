"""The comparison as one self-contained page: no script, no address, and its plots are SVG.

What can go wrong: only the file it is written to. Whatever comes from a trace is escaped.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from html import escape
from pathlib import Path
from string import Template

from app.caching import CacheAside
from app.lab.comparison.bill import MILLISECOND, Bill, Latency
from app.lab.comparison.claims import COLUMNS, PUBLISHED_AS, TABLE_OF_FOUR
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.contestant import Kind
from app.lab.comparison.terminal import cells, duration, heading, interrupted, notes, stale
from app.lab.strategy import Holds

TEMPLATE = Path(__file__).with_name("page.html")
ROW, TEXT, BAR, THICK = 38, 14, 20, 11
"""Pixels of a plot: from row to row, and within a row down to its text and its bar. Horizontally, all is per cent."""


def page(comparison: Comparison) -> str:
    """Returns the text of an HTML file."""
    bills = comparison.bills
    texts = {
        "title": f"{escape(comparison.trace.name)} through every caching strategy",
        "heading": escape(heading(comparison)),
        "finding": "".join(f"<li>{escape(each)}</li>" for each in _findings(comparison)),
        "read_plot": _latencies(bills, lambda bill: bill.read_latency, "reads"),
        "write_plot": _latencies(bills, lambda bill: bill.write_latency, "writes"),
        "database_plot": _plot(
            [
                (
                    bill,
                    bill.database_reads + bill.database_writes,
                    None,
                    f"{bill.database_reads:,} + {bill.database_writes:,}",
                )
                for bill in bills
            ],
            "Statements that Postgres was sent: reads + writes. Shorter is better.",
        ),
        "wrong_plot": _plot(
            [(bill, _wrong(bill), None, _wrongs(bill)) for bill in bills],
            "Reads that were stale or of what was not committed, and writes that were lost or doubled. None is right.",
            bad=True,
        ),
        "words": _words(bills),
        "bills": _bills(bills),
        "columns": _table(
            ("column", "what it is", "the claim that it tests"),
            ((_head(column.title), _cell(column.meaning), _cell(column.claim, "claim")) for column in COLUMNS),
        ),
        "contestants": _table(
            ("strategy", "from", "what it is, or what is wrong with it", "to copy"),
            (
                (
                    _head(bill.name),
                    _cell(bill.contestant.kind.value),
                    _cell(bill.contestant.about),
                    _cell("yes" if bill.contestant.copy else "no"),
                )
                for bill in bills
            ),
        ),
        "notes": "".join(f"<li>{escape(note)}</li>" for note in notes(comparison)),
    }
    return Template(TEMPLATE.read_text(encoding="utf-8")).substitute(texts)


def _findings(comparison: Comparison) -> list[str]:
    """Returns what a person in a hurry should know."""
    bills = comparison.bills
    right = [bill for bill in bills if not _wrong(bill) and not bill.errors and bill.reads + bill.writes]
    wrong = [bill for bill in bills if _wrong(bill)]
    found = [f"{len(wrong)} of {len(bills)} ways answered something wrong or lost a write: {_names(wrong)}."]
    if not wrong:
        found = [f"None of {len(bills)} ways was seen to answer something wrong or to lose a write."]
    if not comparison.complete:
        found.insert(0, interrupted(comparison))
    values = [bill for bill in right if bill.holds is Holds.VALUES and not bill.contestant.later]
    if values:
        best = min(values, key=lambda bill: bill.cost)
        found.append(
            f"Of those that were right and have it in the database when they say so, {best.name} was the fastest for "
            f"this mix: {best.cost:.3g} ms an operation on average."
        )
    later = [bill for bill in right if bill.contestant.later]
    if later:
        best = min(later, key=lambda bill: bill.cost)
        found.append(
            f"Of those that were right and write to the database later, {best.name}: {best.cost:.3g} ms. Until then, "
            "Redis is the only place that has what was written."
        )
    cached = next((bill for bill in bills if bill.name == CacheAside.NAME and bill.hit_ratio is not None), None)
    if cached is not None:
        found.append(f"{cached.name} answered {cached.hit_ratio:.0%} of the reads without the database.")
    if not comparison.plan.db_latency:
        found.append(
            "The database was on the same machine, and so as quick as the cache: what a cache saves is here its work "
            "and not its time. With --db-latency 5 it is as far away as another data centre nearby."
        )
    return found


def _names(bills: Sequence[Bill]) -> str:
    return "; ".join(bill.name for bill in bills)


def _wrong(bill: Bill) -> int:
    whole = bill.whole
    return whole.stale + whole.uncommitted + whole.lost + whole.doubled


def _wrongs(bill: Bill) -> str:
    whole = bill.whole
    named = {"stale": whole.stale, "uncommitted": whole.uncommitted, "lost": whole.lost, "doubled": whole.doubled}
    return ", ".join(f"{count:,} {name}" for name, count in named.items() if count) or "none"


def _latencies(bills: Sequence[Bill], of: Callable[[Bill], Latency], what: str) -> str:
    rows = [
        (bill, _ms(latency.p50), _ms(latency.p99), f"{_ms(latency.p50):.3g} … {_ms(latency.p99):.3g} ms")
        for bill in bills
        if (latency := of(bill)).p50 is not None
    ]
    if not rows:
        return f"<p>There were no {escape(what)}.</p>"
    return _plot(
        rows,
        f"The bar: half of the {what} took no longer. The line: 99 of 100 did not. Green: ours. Shorter is better.",
    )


def _ms(took: timedelta | None) -> float:
    return 0.0 if took is None else took / MILLISECOND


def _plot(rows: Sequence[tuple[Bill, float, float | None, str]], caption: str, *, bad: bool = False) -> str:
    # The list of what went wrong is too long to fit beside a name on a phone.
    row, bar = (ROW + TEXT, BAR + TEXT) if bad else (ROW, BAR)
    longest = max((max(value, reach or 0) for _bill, value, reach, _text in rows), default=0) or 1
    drawn = []
    for place, (bill, value, reach, text) in enumerate(rows):
        y = row * place
        kind = "bad" if bad else "ours" if bill.contestant.kind is Kind.OURS else "bar"
        width, middle = 100 * value / longest, y + bar + THICK / 2
        drawn.append(
            f'<text x="0" y="{y + TEXT}">{escape(bill.name)}</text>'
            + (
                f'<text x="0" y="{y + 2 * TEXT}">{escape(text)}</text>'
                if bad
                else f'<text x="100%" y="{y + TEXT}" text-anchor="end">{escape(text)}</text>'
            )
            + f'<rect class="{kind}" x="0" y="{y + bar}" width="{width:.2f}%" height="{THICK}" rx="2"/>'
        )
        if reach:
            drawn.append(
                f'<line class="reach" x1="{width:.2f}%" y1="{middle}" x2="{max(width, 100 * reach / longest):.2f}%" '
                f'y2="{middle}"/>'
            )
    return (
        f'<figure><svg height="{row * len(rows)}" role="img" aria-label="{escape(caption)}">'
        f"{''.join(drawn)}</svg><figcaption>{escape(caption)}</figcaption></figure>"
    )


def _words(bills: Sequence[Bill]) -> str:
    by_name = {bill.name: bill for bill in bills}
    plain = by_name.get("no cache")
    rows = []
    for words in TABLE_OF_FOUR:
        theirs, ours = by_name.get(PUBLISHED_AS[words.strategy]), by_name.get(words.strategy)
        rows.append(
            (
                _head(words.strategy),
                _cell(f"“{words.reads_from}”"),
                _cell(f"“{words.writes_to}”"),
                _cell(f"“{words.stale_risk}”"),
                _cell("" if theirs is None else stale(theirs.whole), "number"),
                _cell("" if ours is None else stale(ours.whole), "number"),
                _cell(f"“{words.write_latency}”"),
                _cell(_times(theirs, plain), "number"),
                _cell(_times(ours, plain), "number"),
                _cell(f"“{words.complexity}”"),
            )
        )
    return _table(
        (
            "strategy",
            "reads from",
            "writes to",
            "stale data risk",
            "stale reads, as published",
            "stale reads, ours",
            "write latency",
            "median write, as published",
            "median write, ours",
            "complexity",
        ),
        rows,
    )


def _times(bill: Bill | None, plain: Bill | None) -> str:
    if bill is None or bill.write_latency.p50 is None:
        return ""
    if plain is None or not plain.write_latency.p50:
        return duration(bill.write_latency.p50)
    return f"{duration(bill.write_latency.p50)} ({bill.write_latency.p50 / plain.write_latency.p50:.1f} × no cache)"


def _bills(bills: Sequence[Bill]) -> str:
    wrong = range(8, len(COLUMNS))
    return _table(
        ("strategy", *(column.title for column in COLUMNS)),
        (
            (
                _head(bill.name),
                *(
                    _cell(cell, "number bad" if place in wrong and cell != "0" else "number")
                    for place, cell in enumerate(cells(bill))
                ),
            )
            for bill in bills
        ),
        ["ours" if bill.contestant.kind is Kind.OURS else "" if bill.contestant.copy else "avoid" for bill in bills],
    )


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], classes: Sequence[str] | None = None) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(
        f'<tr class="{classes[place] if classes else ""}">{"".join(row)}</tr>' for place, row in enumerate(rows)
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _head(text: str) -> str:
    return f'<th scope="row">{escape(text)}</th>'


def _cell(text: str, kind: str = "") -> str:
    return f'<td class="{kind}">{escape(text)}</td>'
