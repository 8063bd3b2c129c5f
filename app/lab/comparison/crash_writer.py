"""The process that the crash drill kills: it writes to every contestant, and reports what was acknowledged.

    REDIS_URL=… DATABASE_URL=… python -m app.lab.comparison.crash_writer TTL CONTESTANT…

It prints the lines of `killed.py` to its standard output. A line from the parent on its standard input asks for the cut
(`cut.py`).

What can go wrong: its parent dies. Then it ends by itself; otherwise it would hold locks in somebody's database for as
long as its cut lasts.
"""

import asyncio
import os
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from app.embedded import Endpoints
from app.lab.comparison.bench import Bench, open_bench
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.comparison.crash import DRILLED, RUN
from app.lab.comparison.cut import LATENCY, Cut
from app.lab.comparison.entrant import Entrant
from app.lab.comparison.killed import CUT
from app.lab.comparison.wire import wire

WRITERS = 4
PACE = 0.04
"""Seconds between two writes of a writer: all strategies share the process."""
IN_HANDS = timedelta(seconds=3)
"""By then each flusher has a batch: a published one that found nothing tries again after a second."""


async def live(endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta) -> None:
    """Writes until it is killed."""
    cut, word = Cut(), asyncio.Event()
    threading.Thread(target=_listen, args=(asyncio.get_running_loop(), word), daemon=True).start()
    async with (
        wire(endpoints.database_url, cut.there, back=cut.usual) as late,
        wire(endpoints.database_url, cut.usual, back=cut.back, hear=cut.hear) as flushed,
        open_bench(
            Endpoints(endpoints.redis_url, late),
            contestants,
            RUN,
            ttl=ttl,
            connections=WRITERS * len(contestants),
            flushed_url=flushed,
        ) as bench,
        bench.running(),
    ):
        await asyncio.gather(
            _cut(cut, bench, word),
            *(_write(entrant, DRILLED[writer::WRITERS]) for entrant in bench.entrants for writer in range(WRITERS)),
        )
        await asyncio.Event().wait()  # The parent ends it.


async def _write(entrant: Entrant, places: Sequence[str]) -> None:
    name = entrant.contestant.name
    for place in places:
        print(name, place, "began", time.monotonic(), sep="\t", flush=True)
        await entrant.strategy.write(place, int(place) + 1)
        print(name, place, "acknowledged", time.monotonic(), sep="\t", flush=True)
        await asyncio.sleep(PACE)


async def _cut(cut: Cut, bench: Bench, word: asyncio.Event) -> None:
    """Waits for the parent's line, cuts, and reports when each flusher has a batch in flight."""
    await word.wait()
    before = {entrant.name: entrant.costs.writes for entrant in bench.entrants if entrant.contestant.make}
    flushers = [entrant for entrant in bench.entrants if entrant.contestant.later and entrant.contestant.make]
    ours = any(entrant.contestant.later and not entrant.contestant.make for entrant in bench.entrants)
    cut.asked = True
    with suppress(TimeoutError):
        async with asyncio.timeout(IN_HANDS.total_seconds()):
            while not (  # noqa: ASYNC110  # nothing announces a statement
                all(entrant.costs.writes > before[entrant.name] for entrant in flushers) and (cut.committed or not ours)
            ):
                await asyncio.sleep(0.01)
    await asyncio.sleep(2 * LATENCY)  # What was sent before the cut arrives.
    print(CUT, flush=True)


def _listen(loop: asyncio.AbstractEventLoop, word: asyncio.Event) -> None:
    """Waits for the parent's line, and exits when the parent does."""
    while sys.stdin.readline():
        loop.call_soon_threadsafe(word.set)
    os._exit(1)


if __name__ == "__main__":
    seconds, *names = sys.argv[1:]
    asyncio.run(
        live(
            Endpoints(os.environ["REDIS_URL"], os.environ["DATABASE_URL"]),
            [contestant for contestant in CONTESTANTS if contestant.name in names],
            timedelta(seconds=float(seconds)),
        )
    )
