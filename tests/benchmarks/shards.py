"""Do four shards accept and flush more views than one, on one Redis? In the library, with 64 and with 1,000 tasks.

Each turn opens the library anew on empty stores, with one shard or with four. It counts the views that Postgres has at
the end: all that were accepted, each once.
"""

from collections.abc import Awaitable, Mapping
from contextlib import ExitStack
from unittest.mock import patch

from tests.benchmarks import pages
from tests.benchmarks.measurement import (
    Goal,
    Result,
    Rounds,
    Sample,
    Table,
    Variant,
    WrongAnswer,
    compared,
    interleave,
    rates,
    spread,
)
from tests.benchmarks.stage import Stage, library
from tests.benchmarks.tasks import hammer
from tests.benchmarks.views_accepted import arrived, warm
from tests.conftest import empty

QUESTION = "Do four shards accept and flush more views than one, on one Redis?"
ONE, FOUR = "one shard", "four shards"
SHARDS = {ONE: 1, FOUR: 4}


async def measure(stage: Stage) -> Result:
    """Measures with 64 tasks, and with 1,000."""
    few, few_drained = await _with(stage, 64)
    many, many_drained = await _with(stage, 1_000)
    return Result(
        "shards",
        QUESTION,
        [
            Goal("accepted by four shards, times one, at 64 tasks", few.ratio(FOUR, ONE), 0.95),
            Goal("accepted by four shards, times one, at 1,000 tasks", many.ratio(FOUR, ONE), 0.95),
        ],
        [
            compared("64 tasks", few, ONE, unit="views/s"),
            compared("1,000 tasks", many, ONE, unit="views/s"),
            Table(
                "Drained by accepted, in the same turn",
                ["", "64 tasks", "1,000 tasks"],
                [[name, spread(few_drained[name][1:]), spread(many_drained[name][1:])] for name in SHARDS],
            ),
        ],
        rates("Views accepted in the library, views/s of one process at 64 tasks", few),
        {"64 tasks": few, "1,000 tasks": many},
    )


async def _with(stage: Stage, tasks: int) -> tuple[Rounds, Mapping[str, list[float]]]:
    viewed = pages.views(100_000)
    drained: dict[str, list[float]] = {name: [] for name in SHARDS}

    def variant(name: str) -> Variant:
        async def turn() -> Sample:
            await empty(stage.endpoints)
            with ExitStack() as patched:
                for module in ("acceptance", "backlog", "gathering", "shard"):
                    patched.enter_context(patch(f"app.caching.write_behind.{module}.COUNT", SHARDS[name]))
                async with library(stage) as resources:
                    await warm(resources, viewed)
                    warmed = await arrived(lambda: pages.counted(stage.endpoints), len(set(viewed)))

                    def add(page: str) -> Awaitable[int | None]:
                        return resources.page_views.add(page, 1)

                    sample = await hammer(add, viewed, lambda _, views: bool(views), tasks=tasks, turn=stage.size.turn)
                    drained[name].append((await pages.counted(stage.endpoints) - warmed) / sample.done)
                    right = warmed + sample.done
                    if (found := await arrived(lambda: pages.counted(stage.endpoints), right)) != right:
                        raise WrongAnswer(f"There are {found} views by {name}, and {right} were accepted.")
            return sample

        return Variant(name, turn)

    rounds = await interleave(
        [variant(name) for name in SHARDS], stage.size.rounds, lambda text: stage.report(f"{tasks:,} tasks, {text}")
    )
    return rounds, drained
