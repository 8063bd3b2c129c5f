"""A drill: the process that caches is killed (SIGKILL) in the middle of its writes, and another one takes over.

    child    writes to every strategy, each key once, and says what was acknowledged; its background work runs
    the cut                             what it sends to the database from now on does not arrive; of what our flusher
                                        commits, the answer does not come back
    kill -9                             what it had taken out of a queue, and not written yet, is gone with it
    parent   later: a new instance of each strategy runs until nothing moves any more; then it reads, and counts

What was said before the kill is in the pipe, so nothing that was acknowledged is overlooked. A child whose parent has
died ends by itself: it would hold locks in somebody's database for as long as its cut lasts. The cut makes the worst
moment certain: each flusher dies with a batch in its hands. For one that takes its batch out of the queue first, that
is before the database has it; for ours, which does so last, it is after. The new instances come at the very end of a
comparison: what a dead flusher held is claimed when it has been still for ten seconds, which pass during the replay.

What can go wrong: `LabError` when the child ends by itself, with what it has said.
"""

import asyncio
import os
import sys
import tempfile
import threading
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import timedelta

from app.caching.errors import REDIS_DOWN
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.lab.comparison.bench import Bench, open_bench
from app.lab.comparison.contestant import CONTESTANTS, Contestant
from app.lab.comparison.database_clock import database_clock
from app.lab.comparison.entrant import Entrant
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.oracle import Oracle, Verdict, Write
from app.lab.comparison.wire import wire

RUN = "crash"
MOST, WRITERS = 1_000, 4
PACE = 0.04
"""Seconds from one write of a writer to the next: all strategies share the child."""
ENOUGH = 40
"""So many acknowledged writes has each of them before the cut."""
CUT = "cut"
"""What the child says when each flusher has a batch in its hands."""
IN_HANDS = timedelta(seconds=3)
"""By then each has taken one: a published flusher that found nothing looks again after a second."""
NEVER = 3600.0
"""Seconds that bytes are on their way which do not arrive."""
LOOKED_AT = 40
"""So many keys are read at the end, of those that were written last."""
PATIENCE = timedelta(seconds=30)
LATENCY = 0.04
"""Seconds to the database, and as many back."""
ABANDONED = timedelta(seconds=11)
"""So long after the kill, what a dead flusher held may be claimed (`app.caching.gathering`)."""
STILL = timedelta(seconds=1.5)
"""When nothing has come to the database for so long, everything has settled."""

DRILLED = [f"{place:03}" for place in range(MOST)]
"""The keys of the drill."""


@dataclass(slots=True)
class Killed:
    """What the child has said of each contestant's writes before it was killed, in seconds of `time.monotonic`."""

    writes: dict[str, dict[str, Write]] = field(default_factory=dict)
    at: float = 0.0

    def hear(self, line: str) -> None:
        """A line of the child: contestant, place, `began` or `acknowledged`, and when. Of others it takes no notice."""
        if line == CUT:
            return
        name, place, what, when = line.split("\t")
        of_name = self.writes.setdefault(name, {})
        if what == "began":
            of_name[place] = Write(int(place) + 1, float(when))
        else:
            of_name[place].acknowledged = float(when)

    def acknowledged(self, name: str) -> int:
        """How many writes of this contestant were."""
        return sum(1 for write in self.writes.get(name, {}).values() if write.acknowledged < float("inf"))


async def write_and_die(
    endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta, stop: asyncio.Event
) -> Killed:
    """Has a child write to all of them, and kills it: early, when it is told to stop. `endpoints` names the lab's
    schema. Raises LabError."""
    killed = Killed()
    async with _child(endpoints, contestants, ttl) as (child, said):
        out, into = child.stdout, child.stdin
        assert out is not None
        assert into is not None

        async def line() -> str:
            heard = (await out.readline()).decode()
            if not heard and stop.is_set():
                raise TimeoutError
            if not heard:
                raise LabError(f"The process of the crash drill ended by itself: {(await said).strip()[-500:]}")
            killed.hear(heard.rstrip("\n"))
            return heard.rstrip("\n")

        async def told_to_stop() -> None:
            await stop.wait()
            child.kill()

        early = asyncio.create_task(told_to_stop())
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while any(killed.acknowledged(contestant.name) < ENOUGH for contestant in contestants):
                    await line()
                into.write(b"\n")
                while await line() != CUT:
                    continue
        except TimeoutError:
            pass  # One of them takes no writes any more; those that were acknowledged are judged.
        finally:
            early.cancel()
        with suppress(ProcessLookupError):
            child.kill()
        killed.at = time.monotonic()
        for rest in (await out.read()).decode().splitlines(keepends=True):
            if rest.endswith("\n"):  # The last one may have been cut off.
                killed.hear(rest.rstrip("\n"))
        await child.wait()
    return killed


async def take_over(
    endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta, killed: Killed, stop: asyncio.Event
) -> dict[str, Verdict]:
    """Runs a new instance of each until nothing moves any more, and judges. Nothing, when it was told to stop."""
    early = killed.at + ABANDONED.total_seconds() - time.monotonic()
    with suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), max(0.0, early))
    if stop.is_set():
        return {}
    oracles: dict[str, Oracle] = {}
    async with open_bench(endpoints, contestants, RUN, ttl=ttl, connections=4) as bench:
        clock = await database_clock(bench.pool)
        for entrant in bench.entrants:
            oracles[entrant.contestant.name] = oracle = Oracle(entrant.strategy.holds, later=entrant.contestant.later)
            for place, write in killed.writes.get(entrant.contestant.name, {}).items():
                oracle.begin(place, write.value, write.began).acknowledged = write.acknowledged

        async def judged() -> dict[str, Verdict]:
            return {
                name: (await bench.judge(entrant, oracles[name], clock)).verdict
                for entrant in bench.entrants
                for name in [entrant.contestant.name]
            }

        async with bench.running():
            before, since = await judged(), time.monotonic()
            while time.monotonic() - since < STILL.total_seconds() and not stop.is_set():
                await asyncio.sleep(0.1)
                if (now := await judged()) != before:
                    before, since = now, time.monotonic()
            for entrant in bench.entrants:
                await _look(entrant, oracles[entrant.contestant.name])
        return await judged()


@asynccontextmanager
async def _child(
    endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta
) -> AsyncIterator[tuple[Process, "asyncio.Task[str]"]]:
    # It leaves its wire's socket behind, which goes with this.
    directory = tempfile.TemporaryDirectory(prefix="fourways-crash-", ignore_cleanup_errors=True)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "app.lab.comparison.crash",
        endpoints.redis_url,
        endpoints.database_url,
        str(ttl.total_seconds()),
        *(contestant.name for contestant in contestants),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        # Ctrl-C goes to every process of the terminal's group; this one is ended by us.
        start_new_session=True,
        limit=2**20,
        env={**os.environ, "TMPDIR": directory.name},
    )

    async def complaints() -> str:
        assert child.stderr is not None
        return (await child.stderr.read()).decode(errors="replace")

    said = asyncio.create_task(complaints())
    try:
        yield child, said
    finally:
        if child.returncode is None:
            with suppress(ProcessLookupError):
                child.kill()
        await child.wait()
        await said
        directory.cleanup()


async def _look(entrant: Entrant, oracle: Oracle) -> None:
    """Reads what was written last. What a strategy cannot answer any more is no finding of this drill."""
    for place in sorted(oracle.histories)[-LOOKED_AT:]:
        began = time.monotonic()
        with suppress(DatabaseUnavailable, *REDIS_DOWN):
            oracle.read(place, await entrant.strategy.read(place), began, time.monotonic())


async def _write(entrant: Entrant, places: Sequence[str]) -> None:
    name = entrant.contestant.name
    for place in places:
        print(name, place, "began", time.monotonic(), sep="\t", flush=True)
        await entrant.strategy.write(place, int(place) + 1)
        print(name, place, "acknowledged", time.monotonic(), sep="\t", flush=True)
        await asyncio.sleep(PACE)


@dataclass(slots=True)
class _Cut:
    """The child's ways to the database: one of the tables, and one of our flusher."""

    asked: bool = False
    committed: bool = False

    def there(self) -> float:
        return NEVER if self.asked else LATENCY

    def hear(self, said: bytes) -> None:
        # The first commit that sets out after the cut is the last thing that this way carries. (With the semicolon it
        # is no "READ COMMITTED".)
        self.committed = self.committed or (self.asked and b"COMMIT;" in said)

    def back(self) -> float:
        return NEVER if self.committed else LATENCY


def _listen(loop: asyncio.AbstractEventLoop, word: asyncio.Event) -> None:
    """Hears the parent's word, and its end, which is ours too."""
    while sys.stdin.readline():
        loop.call_soon_threadsafe(word.set)
    os._exit(1)


async def _cut(cut: _Cut, bench: Bench, word: asyncio.Event) -> None:
    """Waits for the parent's word, cuts, and says when each flusher has a batch in its hands."""
    await word.wait()
    before = {entrant.name: entrant.costs.writes for entrant in bench.entrants if entrant.contestant.make}
    flushers = [entrant for entrant in bench.entrants if entrant.contestant.later and entrant.contestant.make]
    ours = any(entrant.contestant.later and not entrant.contestant.make for entrant in bench.entrants)
    cut.asked = True
    with suppress(TimeoutError):
        async with asyncio.timeout(IN_HANDS.total_seconds()):
            while not (  # noqa: ASYNC110  # who counts tells nobody of it
                all(entrant.costs.writes > before[entrant.name] for entrant in flushers) and (cut.committed or not ours)
            ):
                await asyncio.sleep(0.01)
    await asyncio.sleep(2 * LATENCY)  # What set out before the cut arrives.
    print(CUT, flush=True)


async def _live(endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta) -> None:
    cut, word = _Cut(), asyncio.Event()
    threading.Thread(target=_listen, args=(asyncio.get_running_loop(), word), daemon=True).start()
    async with (
        wire(endpoints.database_url, cut.there, back=lambda: LATENCY) as late,
        wire(endpoints.database_url, lambda: LATENCY, back=cut.back, hear=cut.hear) as flushed,
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
        await asyncio.Event().wait()  # The end comes from outside.


if __name__ == "__main__":
    redis_url, database_url, seconds, *names = sys.argv[1:]
    asyncio.run(
        _live(
            Endpoints(redis_url, database_url),
            [contestant for contestant in CONTESTANTS if contestant.name in names],
            timedelta(seconds=float(seconds)),
        )
    )
