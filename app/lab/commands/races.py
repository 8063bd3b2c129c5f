"""`fourways lab races`: each case in all the orders that time allows, on a real Redis and a real Postgres.

    a published variant    the shortest schedules that show its defect, as timelines
    repaired, and ours     how many schedules passed

What can go wrong: a store does not answer. A machine that is too slow for the time explores fewer schedules, and may
miss a defect: then the command says so, and fails.
"""

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import asyncpg
import typer
from redis.exceptions import RedisError
from rich.progress import Progress as Bar
from rich.table import Column, Table

from app.caching import open_redis
from app.embedded import Endpoints
from app.lab.commands.interruption import INTERRUPTED, Interruption
from app.lab.commands.screen import bar, complaints, console
from app.lab.commands.stores import stores
from app.lab.comparison.lab_error import LabError
from app.lab.published import PUBLISHED, Published
from app.lab.races.abandoned import remove_abandoned
from app.lab.races.cases import CASES, Case
from app.lab.races.explorer import explore
from app.lab.races.search import Progress, Result
from app.lab.races.timeline import timeline

SCHEDULES = 500
SECONDS = 60.0
TIMEOUT = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Race:
    """The result of a case, and whether it was expected."""

    result: Result

    @property
    def name(self) -> str:
        """The case's name."""
        return self.result.case.name

    @property
    def published(self) -> Published | None:
        """The variant of the case; None for ours."""
        case = self.result.case
        return None if case.ours else next(each for each in PUBLISHED.values() if each.make is case.make)

    @property
    def surprise(self) -> str | None:
        """The unexpected part of the result, in a sentence."""
        result = self.result
        if not result.schedules:
            return f"{self.name} had no time for a single schedule."
        if unexpected := sorted(set(result.failures) - result.case.shows):
            return f"{self.name} shows what it should not: {', '.join(unexpected)}."
        if missing := sorted(result.case.shows - set(result.failures)):
            return f"{self.name} did not show, in {result.schedules:,} schedules: {', '.join(missing)}."
        return None

    @property
    def verdict(self) -> str:
        """The verdict, in a few words."""
        if self.result.failures:
            return f"fails: {', '.join(sorted(self.result.failures))}"
        return "passed" if self.surprise is None else "not shown"

    def as_json(self) -> dict[str, object]:
        """Returns the race with names in snake_case."""
        result, published = self.result, self.published
        return {
            "name": self.name,
            "ours": result.case.ours,
            "copy": published is None or published.copy,
            "defect": None if published is None or not result.case.shows else published.defect,
            "shows": sorted(result.case.shows),
            "schedules": result.schedules,
            "exhausted": result.exhausted,
            "given_up": result.given_up,
            "as_told": self.surprise is None,
            "failures": [
                {
                    "anomaly": failure.anomaly,
                    "what": failure.what,
                    "preemptions": failure.cost - failure.faults,
                    "faults": failure.faults,
                    "timeline": timeline(failure.names, failure.lines).splitlines(),
                }
                for failure in sorted(result.failures.values(), key=lambda failure: failure.size)
            ],
        }


def races_(
    case: Annotated[list[str] | None, typer.Option(help="Only this one, and others named so. Default: all.")] = None,
    seconds: Annotated[
        float, typer.Option("--time", min=1, max=86_400, help="Seconds for all of them; what one leaves, others have.")
    ] = SECONDS,
    schedules: Annotated[int, typer.Option(min=1, max=10_000_000, help="The most schedules of each case.")] = SCHEDULES,
    seed: Annotated[int, typer.Option(help="The same seed tries the same schedules in the same order.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else.")] = False,
) -> None:
    """Explore in which orders a strategy goes wrong: every published defect as a timeline, and ours without one.

    The exit code is 0 when all is as expected: the published variants fail, and the repaired ones and ours pass. The
    command does not touch the service's own data. Without REDIS_URL and DATABASE_URL, it starts both stores itself.
    """
    cases = _chosen(case or [])
    with Interruption() as interruption, bar() as progress:
        try:
            races = _explore(
                cases, timedelta(seconds=seconds), schedules, seed, interruption, progress, show=not as_json
            )
        except (OSError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            progress.stop()
            complaints.print(f"A store does not answer: {error}", style="red")
            raise typer.Exit(1) from None
        except LabError as error:
            progress.stop()
            complaints.print(f"{error}", style="red")
            raise typer.Exit(1) from None
    complete = len(races) == len(cases)
    surprises = [race.surprise for race in races if race.surprise is not None]
    if as_json:
        answer = {
            "seed": seed,
            "complete": complete,
            "as_told": complete and not surprises,
            "cases": [race.as_json() for race in races],
        }
        typer.echo(json.dumps(answer, indent=2))
    else:
        console.print(_table(races))
    for surprise in surprises:
        complaints.print(surprise, style="red")
    if not complete:
        complaints.print(f"It was interrupted: {len(races)} of {len(cases)} cases were explored until then.")
        raise typer.Exit(INTERRUPTED)
    if surprises:
        raise typer.Exit(1)
    complaints.print("All is as expected: what was published fails, and what was repaired and ours pass.")


def _chosen(names: Sequence[str]) -> Sequence[Case]:
    known = {case.name: case for case in CASES}
    for name in names:
        if name not in known:
            raise typer.BadParameter(f"There is no case {name!r}. There are: {'; '.join(known)}.")
    return [case for case in CASES if not names or case.name in names]


def _explore(
    cases: Sequence[Case],
    budget: timedelta,
    most: int,
    seed: int,
    interruption: Interruption,
    bar: Bar,
    *,
    show: bool,
) -> list[Race]:
    """Returns the explored races, in the order of the cases: fewer than there are cases when a signal came."""
    races: list[Race] = []
    task = bar.add_task("starting the stores", total=None)

    async def explored(endpoints: Endpoints) -> None:
        async with open_redis(endpoints.redis_url, timeout=TIMEOUT, connections=1) as redis:
            await remove_abandoned(redis, endpoints.database_url)
        deadline = time.monotonic() + budget.total_seconds()
        with interruption.telling(asyncio.Event()) as stop:
            stopped = asyncio.create_task(stop.wait())
            for place, case in enumerate(cases):

                def report(progress: Progress, place: int = place) -> None:
                    bar.update(task, completed=place + min(1, progress.schedules / most))

                bar.update(task, description=case.name, completed=place, total=len(cases))
                left = max(0.0, deadline - time.monotonic()) / (len(cases) - place)
                exploring = asyncio.create_task(
                    explore(
                        case,
                        redis_url=endpoints.redis_url,
                        database_url=endpoints.database_url,
                        budget=timedelta(seconds=left),
                        most=most,
                        seed=seed,
                        report=report,
                    )
                )
                await asyncio.wait({exploring, stopped}, return_when=asyncio.FIRST_COMPLETED)
                if not exploring.done():
                    exploring.cancel()
                    await asyncio.wait({exploring})
                    return
                races.append(Race(exploring.result()))
                if show:
                    _show(races[-1])
            stopped.cancel()

    interruption.defer()
    with stores() as endpoints:
        asyncio.run(explored(endpoints))
    return races


def _show(race: Race) -> None:
    result, published = race.result, race.published
    if not result.failures:
        console.print(f"{race.name}: {result.schedules:,} schedules passed.\n")
        return
    console.print(f"{race.name}: {'' if published is None else published.defect}", style="bold")
    for failure in sorted(result.failures.values(), key=lambda failure: failure.size):
        console.print()
        # A timeline keeps its width: folding would destroy its columns.
        console.print(str(failure), soft_wrap=True)
    console.print()


def _table(races: Sequence[Race]) -> Table:
    table = Table(
        "strategy",
        "from",
        Column("schedules", justify="right"),
        "every one with at most",
        "",
        box=None,
        header_style="bold",
    )
    for race in races:
        published, result = race.published, race.result
        origin = "ours" if published is None else "repaired" if not published.shows else "published"
        exhausted = "" if result.exhausted < 0 else f"{result.exhausted} stalls or faults"
        given_up = f", {result.given_up:,} did not end" if result.given_up else ""
        style = "" if race.surprise is None else "red"
        table.add_row(race.name, origin, f"{result.schedules:,}", exhausted, race.verdict + given_up, style=style)
    return table
