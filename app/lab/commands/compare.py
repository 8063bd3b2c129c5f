"""`fourways lab compare`: one trace against every strategy, and the bill."""

import asyncio
import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
from redis.exceptions import RedisError
from rich.progress import Progress

from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.lab.commands.interruption import INTERRUPTED, Interruption
from app.lab.commands.screen import bar, complaints, console
from app.lab.commands.stores import stores
from app.lab.comparison.compare import compare
from app.lab.comparison.comparison import Comparison
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.page import page
from app.lab.comparison.plan import Plan
from app.lab.comparison.terminal import show
from app.lab.traces.trace import Trace, read_trace
from app.lab.traces.trace_error import TraceError
from app.lab.traces.workload import WORKLOADS, WorkloadError, make, share_of_reads

REQUESTS = 4_000


def compare_(
    trace: Annotated[
        Path | None,
        typer.Option(help="A CSV with op,key[,t], or a web server's log; gzip is fine, `-` is standard input."),
    ] = None,
    workload: Annotated[str | None, typer.Option(help=f"Instead of a trace, one of: {', '.join(WORKLOADS)}.")] = None,
    requests: Annotated[
        int, typer.Option(min=1, max=1_000_000, help="How many operations are played, the first ones of a trace.")
    ] = REQUESTS,
    warm_up: Annotated[int, typer.Option(min=0, help="So many of them are played first, and not billed.")] = 0,
    clients: Annotated[int, typer.Option(min=1, max=64, help="Closed loop: each waits for its answer.")] = 8,
    rate: Annotated[
        float | None,
        typer.Option(
            min=0.1, max=100_000, help="Open loop: operations a second, whether earlier ones are answered or not."
        ),
    ] = None,
    cache_size: Annotated[
        int | None, typer.Option(min=1, help="Entries, the least recently used out first. Default: all fit.")
    ] = None,
    ttl: Annotated[float, typer.Option(min=1, max=86_400, help="Seconds that an entry lives.")] = 300,
    db_latency: Annotated[
        float, typer.Option(min=0, max=1_000, help="Milliseconds to the database and back, added at the wire.")
    ] = 0,
    keys: Annotated[int | None, typer.Option(min=1, help="Of a workload.")] = None,
    alpha: Annotated[
        float | None, typer.Option(min=0, help="Of a workload: how steeply popularity falls (zipf).")
    ] = None,
    ratio: Annotated[str | None, typer.Option(help="Of a workload: reads to writes, as in 95:5.")] = None,
    views: Annotated[
        bool, typer.Option("--views", help="Of a log: each read of a page is a view, which is written.")
    ] = False,
    seed: Annotated[int, typer.Option(help="The same seed plays the same operations.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
    html: Annotated[Path | None, typer.Option(help="Write a page with plots to this file.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Only the replay, without the two drills.")] = False,
) -> None:
    """Play one trace against no cache, the four strategies, and the published variants, and print the bill.

    It does not touch the service's own data. Without REDIS_URL and DATABASE_URL, it starts both stores itself.
    """
    if (trace is None) == (workload is None):
        raise typer.BadParameter("Name a --trace or a --workload.")
    if trace is not None and not (keys is None and alpha is None and ratio is None):
        raise typer.BadParameter("--keys, --alpha and --ratio are of a --workload; a trace has its own.")
    if warm_up >= requests:
        raise typer.BadParameter(f"A warm-up of {warm_up:,} leaves nothing of {requests:,} requests to be billed.")
    if workload is not None and views:
        raise typer.BadParameter("--views is of a --trace; a workload has its own writes.")
    if html is not None:
        _try_out(html)
    plan = Plan(
        clients=clients,
        rate=rate,
        warm_up=warm_up,
        cache_size=cache_size,
        ttl=timedelta(seconds=ttl),
        db_latency=timedelta(milliseconds=db_latency),
        seed=seed,
        drills=not quick,
    )
    with Interruption() as interruption, bar() as progress:
        try:
            if trace is not None:
                played = read(trace, requests, progress, views=views)
            else:
                played = make(
                    workload or "",
                    requests=requests,
                    keys=keys,
                    alpha=alpha,
                    reads=None if ratio is None else share_of_reads(ratio),
                    seed=seed,
                )
            if warm_up >= len(played.operations):
                raise TraceError(
                    f"A warm-up of {warm_up:,} leaves nothing of {len(played.operations):,} operations to be billed."
                )
            comparison = play(played, plan, interruption, progress)
        except (TraceError, WorkloadError, LabError) as error:
            progress.stop()
            complaints.print(str(error), style="red")
            raise typer.Exit(1) from None
    written = html is None or _write(html, page(comparison))
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=2))
    else:
        show(comparison, console)
    if not comparison.complete:
        raise typer.Exit(INTERRUPTED)
    if not written:
        raise typer.Exit(1)


def _try_out(path: Path) -> None:
    """Checks that the page can be written, before a comparison that takes a minute."""
    if not path.parent.is_dir():
        raise typer.BadParameter(f"There is no directory {path.parent} for {path.name}.")
    new = not path.exists()
    try:
        path.open("ab").close()
        if new:
            path.unlink()
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}.") from None


def _write(path: Path, text: str) -> bool:
    """Writes the page, and returns whether that succeeded. If not, the measurements are printed all the same."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        complaints.print(f"{path} cannot be written: {error.strerror}.", style="red")
        return False
    complaints.print(f"The page is {path}.")
    return True


def read(path: Path, most: int, bar: Progress, *, views: bool = False) -> Trace:
    """Reads the trace at `path`, and shows its progress on the bar. Raises TraceError."""
    task = bar.add_task("reading the trace", total=None)

    def progress(done: int, total: int | None) -> None:
        bar.update(task, completed=done, total=total)

    try:
        return read_trace(path, most, views=views, progress=progress)
    finally:
        bar.remove_task(task)


def play(
    trace: Trace,
    plan: Plan,
    interruption: Interruption,
    bar: Progress,
    contestants: Sequence[Contestant] = CONTESTANTS,
) -> Comparison:
    """Plays the trace against all contestants, on the configured stores or on its own. Raises LabError.

    From here on a signal ends it gently: what was started is stopped, and what was measured is returned.
    """
    task = bar.add_task("starting the stores", total=None)

    def progress(what: str, done: int, total: int) -> None:
        bar.update(task, description=what, completed=done, total=total)

    async def compared(endpoints: Endpoints) -> Comparison:
        with interruption.telling(asyncio.Event()) as stop:
            return await compare(endpoints, trace, plan, contestants=contestants, stop=stop, progress=progress)

    interruption.defer()
    try:
        with stores() as endpoints:
            return asyncio.run(compared(endpoints))
    except (RedisError, OSError, DatabaseUnavailable) as error:
        raise LabError(f"A store does not answer: {error}") from error
