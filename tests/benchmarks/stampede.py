"""500 readers of a cold key, in four processes, while the load takes 120 ms: how many loads, and how long they wait.

The load is `pg_sleep` on a pool of eight connections in each process. The schemes are in `stampede_reader.py`.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from statistics import median
from typing import Any

from tests.benchmarks.measurement import (
    MILLISECOND,
    Bar,
    Chart,
    Goal,
    Result,
    Rounds,
    Sample,
    Table,
    Variant,
    WrongAnswer,
    interleave,
    spread,
)
from tests.benchmarks.stage import Stage, on, processors
from tests.conftest import empty
from tests.service import REPOSITORY

QUESTION = "How many loads do 500 readers of a cold key cause, and how long do they wait?"
READERS, PROCESSES = 500, 4
LOAD = timedelta(milliseconds=120)
AHEAD = timedelta(milliseconds=100)
"""The time between the instruction and the moment at which all processes begin together."""
OURS = "fourways"
SCHEMES: Mapping[str, str] = {
    OURS: "ours",
    "cashews": "cashews",
    "cashews, lock": "cashews_lock",
    "SETNX, 50 ms, fall through": "setnx",
}


async def measure(stage: Stage) -> Result:
    """Measures all schemes in turns, with a new key each time."""
    await empty(stage.endpoints)
    loads: dict[str, list[int]] = {name: [] for name in SCHEMES}
    stampedes = 0
    async with _readers(stage) as readers:

        def variant(name: str, scheme: str) -> Variant:
            async def turn() -> Sample:
                nonlocal stampedes
                stampedes += 1
                answers = await _stampede(readers, scheme, f"key-{stampedes}")
                loads[name].append(sum(answer["loads"] for answer in answers))
                took = sorted(one for answer in answers for one in answer["took"])
                p50, p99 = (timedelta(seconds=took[len(took) * part // 100]) for part in (50, 99))
                return Sample(len(took), timedelta(seconds=took[-1]), None, p50, p99)

            return Variant(name, turn)

        variants = [variant(name, scheme) for name, scheme in SCHEMES.items()]
        rounds = await interleave(variants, stage.size.rounds, stage.report)
    waits = {name: rounds.values(name, lambda sample: sample.p99) for name in SCHEMES}
    # The loads of the warm-up count, too: the number of loads does not depend on speed.
    return Result(
        "stampede",
        QUESTION,
        [
            Goal("loads of the database, the most of all rounds", [max(loads[OURS])], 1, True),
            Goal(f"p99, ms beyond the load's {LOAD / MILLISECOND:.0f}", _beyond(waits[OURS]), 15, True),
        ],
        [_table(rounds, loads)],
        Chart(
            f"p99 of {READERS} readers in {PROCESSES} processes, ms; the load takes {LOAD / MILLISECOND:.0f}",
            [Bar(name, values) for name, values in waits.items()],
        ),
        {f"{READERS} readers": rounds},
    )


def _beyond(waits: Sequence[float]) -> list[float]:
    return [wait - LOAD / MILLISECOND for wait in waits]


def _table(rounds: Rounds, loads: Mapping[str, Sequence[int]]) -> Table:
    rows = [
        [
            name,
            f"{min(loads[name])} / {median(loads[name]):.0f} / {max(loads[name])}",
            f"{median(rounds.values(name, lambda sample: sample.p50)):.1f}",
            spread(rounds.values(name, lambda sample: sample.p99)),
        ]
        for name in rounds.samples
    ]
    return Table(f"{READERS} readers in {PROCESSES} processes", ["", "loads", "p50 ms", "p99 ms"], rows)


@asynccontextmanager
async def _readers(stage: Stage) -> AsyncIterator[Sequence[asyncio.subprocess.Process]]:
    stage.report("starting the readers")
    first, others = processors()
    async with AsyncExitStack() as stack:
        processes = []
        for _ in range(PROCESSES):
            with on([*first, *others]):  # One processor could not serve all of them.
                process = await asyncio.create_subprocess_exec(
                    sys.executable, "-m", "tests.benchmarks.stampede_reader",
                    stage.endpoints.redis_url, stage.endpoints.database_url, str(LOAD.total_seconds()),
                    stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, cwd=REPOSITORY, limit=2**22,
                )  # fmt: skip
            stack.push_async_callback(_end, process)
            processes.append(process)
        for process in processes:
            await _line(process)  # It is ready.
        yield processes


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        await asyncio.wait_for(process.wait(), 10)
    except TimeoutError:
        process.kill()
        await process.wait()


async def _stampede(processes: Sequence[asyncio.subprocess.Process], scheme: str, key: str) -> list[dict[str, Any]]:
    begin = time.monotonic() + AHEAD.total_seconds()
    question = {"scheme": scheme, "key": key, "readers": READERS // PROCESSES, "begin": begin}
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(question).encode() + b"\n")
    return [json.loads(await _line(process)) for process in processes]


async def _line(process: asyncio.subprocess.Process) -> bytes:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 120)
    if not line:
        raise WrongAnswer("A reader of the stampede has ended.")
    return line
