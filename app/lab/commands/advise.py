"""`fourways lab advise`: which strategy to choose, by the article's tree and, given a trace, by the bill.

    needs      --stale, --loss, --counts; those of the running service's resources are known
    traffic    --reads and --writes, a --trace, a --workload, or the service's --metrics

What can go wrong: needs or traffic are missing or not understood. It never switches a strategy.
"""

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import Progress
from rich.table import Column, Table

from app.advice import Advice, Loss, Needs, Traffic, advise, pick
from app.lab.alternatives import NO_CACHE, alternatives
from app.lab.commands.compare import play, read
from app.lab.commands.interruption import INTERRUPTED, Interruption
from app.lab.commands.screen import bar, complaints, console
from app.lab.comparison.bill import Bill
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.plan import Plan
from app.lab.comparison.terminal import duration, stale
from app.lab.service_metrics import MetricsError, read_metrics
from app.lab.traces.trace import Trace
from app.lab.traces.trace_error import TraceError
from app.lab.traces.workload import WORKLOADS, WorkloadError, make
from app.routers.strategies import STRATEGIES, Advised, advised

REQUESTS, WARM_UP = 2_000, 500
LONGEST = 10 * 365 * 86_400
"""In seconds. Data that may be older than this may have any age."""


@dataclass(frozen=True, slots=True)
class Billed:
    """The alternatives as measured, and the best of them; None when no measured alternative meets the needs."""

    comparison: Comparison
    best: Bill | None


def advise_(
    stale: Annotated[
        str | None, typer.Option(metavar="SECONDS|any|never", help="How old an answer may be after a newer write.")
    ] = None,
    loss: Annotated[Loss | None, typer.Option(help="What it means to lose what is in the cache.")] = None,
    counts: Annotated[
        bool, typer.Option("--counts", help="Writes add to a number, and do not replace a value.")
    ] = False,
    reads: Annotated[int | None, typer.Option(min=0, help="How many there are, with --writes.")] = None,
    writes: Annotated[int | None, typer.Option(min=0, help="How many there are, with --reads.")] = None,
    trace: Annotated[Path | None, typer.Option(help="A CSV with op,key[,t], or a web server's log.")] = None,
    workload: Annotated[str | None, typer.Option(help=f"One of: {', '.join(WORKLOADS)}.")] = None,
    metrics: Annotated[
        str | None, typer.Option(metavar="URL", help="Of the running service: an advice for each resource.")
    ] = None,
    no_bill: Annotated[
        bool, typer.Option("--no-bill", help="Of a trace or a workload, measure nothing: only the tree.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Say which strategy to choose, why, and how sure the advice is. It never switches anything.

    With a trace or a workload, the alternatives are played on it, and the bill is shown beside the tree's answer.
    """
    if (reads is None) != (writes is None):
        raise typer.BadParameter("--reads and --writes go together.")
    if [reads, trace, workload, metrics].count(None) != 3:
        raise typer.BadParameter("Name the traffic: --reads and --writes, a --trace, a --workload, or --metrics.")
    if metrics is not None:
        if stale is not None or loss is not None or counts:
            raise typer.BadParameter("What the service's resources need is known: leave --stale, --loss, --counts out.")
        _advise_service(metrics, as_json=as_json)
        return
    if stale is None or loss is None:
        raise typer.BadParameter(
            f"Say what the data must have: --stale SECONDS, any or never, and --loss {', '.join(Loss)}."
        )
    needs = Needs(_age(stale), loss, counts)
    billed: Billed | None = None
    with Interruption() as interruption, bar() as progress:
        try:
            if trace is None and workload is None:
                traffic = Traffic(reads or 0, writes or 0)
            else:
                played = _trace(trace, workload, progress)
                traffic = Traffic(played.reads, played.writes, played.keys)
                if not no_bill:
                    billed = _bill(played, needs, interruption, progress)
        except (TraceError, WorkloadError, LabError) as error:
            progress.stop()
            complaints.print(str(error), style="red")
            raise typer.Exit(1) from None
    advice = advise(needs, traffic)
    if as_json:
        typer.echo(json.dumps(_as_json(needs, traffic, advice, billed), indent=2))
    else:
        _tell(advice)
        if billed is not None:
            _tell_bill(advice, needs, billed)
    if billed is not None and not billed.comparison.complete:
        raise typer.Exit(INTERRUPTED)


def _age(stale: str) -> timedelta | None:
    if stale in ("any", "never"):
        return None if stale == "any" else timedelta(0)
    try:
        seconds = float(stale)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:
        raise typer.BadParameter(f"--stale takes seconds (0 to {LONGEST:,}), any or never, and not {stale!r}.")
    return timedelta(seconds=seconds)


def _trace(path: Path | None, workload: str | None, bar: Progress) -> Trace:
    return make(workload or "", requests=REQUESTS) if path is None else read(path, REQUESTS, bar)


def _bill(trace: Trace, needs: Needs, interruption: Interruption, bar: Progress) -> Billed:
    """Plays the alternatives without drills: those provoke what the advice already knows. A quarter of a short trace
    warms up."""
    plan = Plan(warm_up=min(WARM_UP, len(trace.operations) // 4), drills=False)
    comparison = play(trace, plan, interruption, bar, alternatives(needs))
    return Billed(comparison, pick(needs, comparison.bills) if comparison.complete else None)


def _differ(advice: Advice, billed: Billed) -> str:
    if not billed.comparison.complete:
        return "It was interrupted: this is what was measured until then, and nothing was picked by it."
    if billed.best is None:
        return "By the bill none of them is to be had: none that meets the needs was measured to keep them."
    if billed.best.name == advice.strategy:
        return f"By the bill it is {billed.best.name}, too."
    return (
        f"The tree and the bill differ: by the bill it is {billed.best.name}. The bill is of these operations on this "
        "machine, and the tree is of all; trust the bill where the trace is like your days."
    )


def without_a_cache(billed: Billed) -> str:
    """Returns a remark when no cache at all was the fastest; else nothing."""
    plain = next((bill for bill in billed.comparison.bills if bill.name == NO_CACHE), None)
    if plain is None or billed.best is None or plain.cost >= billed.best.cost:
        return ""
    return (
        f"No cache at all took less time than {billed.best.name}: this database is on the same machine, as near as "
        "Redis, and has nothing else to do. `fourways lab compare --db-latency 2` puts it 2 ms away."
    )


def _tell(advice: Advice) -> None:
    console.print(f"{advice.strategy}", style="bold")
    for reason in advice.reasons:
        console.print(f"- {reason}")
    console.print(f"How sure: {advice.sure}. {advice.why}")


def _tell_bill(advice: Advice, needs: Needs, billed: Billed) -> None:
    replayed = billed.comparison.replayed
    console.print(
        f"\nThe bill of the alternatives, for {replayed.operations:,} operations of {billed.comparison.trace.name}:\n"
    )
    numbers = ("ms an operation", "read ms", "write ms", "DB reads", "DB writes", "Redis trips", "stale", "lost")
    table = Table(
        "strategy",
        "meets the needs",
        *(Column(name, justify="right") for name in numbers),
        box=None,
        header_style="bold",
    )
    for bill in billed.comparison.bills:
        meets = "" if bill.name not in list(advice.meets) else "yes" if pick(needs, [bill]) else "not as measured"
        halves = (latency.p50 for latency in (bill.read_latency, bill.write_latency))
        table.add_row(
            bill.name,
            meets,
            f"{bill.cost:.3g}",
            *("" if half is None else duration(half).removesuffix(" ms") for half in halves),
            f"{bill.database_reads:,}",
            f"{bill.database_writes:,}",
            f"{bill.redis_round_trips:,}",
            stale(bill.whole),
            f"{bill.lost:,}",
            style="bold" if billed.best is bill else "",
        )
    console.print(table)
    console.print(f"\n{_differ(advice, billed)}")
    if remark := without_a_cache(billed):
        console.print(remark)


def _as_json(needs: Needs, traffic: Traffic, advice: Advice, billed: Billed | None) -> dict[str, object]:
    return {
        "needs": {
            "stale_seconds": None if needs.stale is None else needs.stale.total_seconds(),
            "loss": needs.loss,
            "counts": needs.counts,
        },
        "traffic": {"reads": traffic.reads, "writes": traffic.writes, "keys": traffic.keys},
        "strategy": advice.strategy,
        "reasons": list(advice.reasons),
        "sure": advice.sure,
        "why": advice.why,
        "meets": list(advice.meets),
        "bill": None
        if billed is None
        else {
            "best": None if billed.best is None else billed.best.name,
            "complete": billed.comparison.complete,
            "verdict": _differ(advice, billed),
            "strategies": [bill.as_json() for bill in billed.comparison.bills],
        },
    }


def _advise_service(url: str, *, as_json: bool) -> None:
    try:
        traffic = read_metrics(url)
    except MetricsError as error:
        complaints.print(str(error), style="red")
        raise typer.Exit(1) from None
    found = {strategy.resource: advised(strategy, traffic[strategy.resource]) for strategy in STRATEGIES}
    if as_json:
        typer.echo(json.dumps({resource: each.model_dump(mode="json") for resource, each in found.items()}, indent=2))
        return
    for resource, each in found.items():
        _tell_resource(resource, each)


def _tell_resource(resource: str, advice: Advised) -> None:
    console.print(f"{resource}: {advice.suggested}", style="bold")
    console.print(f"Configured is {advice.configured}. {advice.verdict}")
    for reason in advice.reasons:
        console.print(f"- {reason}")
    console.print(f"How sure: {advice.sure}. {advice.why}\n")
