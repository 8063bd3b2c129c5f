"""A drill: the caching process is killed (SIGKILL) in the middle of its writes, and another one takes over.

    child     writes to every strategy, each key once, and reports what was acknowledged (`crash_writer.py`)
    cut       from now on nothing that it sends to the database arrives, or no answer comes back (`cut.py`)
    kill -9   a batch in its memory is lost with it
    parent    later: a new instance of each strategy runs until nothing changes any more, and then reads and counts

The new instances come at the very end of a comparison: what a dead flusher held is reclaimed after ten idle seconds,
which pass during the replay.

What can go wrong: `LabError` when the child ends by itself, with the child's error output.
"""

import asyncio
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import timedelta

from app.caching.errors import REDIS_DOWN
from app.embedded import Endpoints
from app.errors import DatabaseUnavailable
from app.lab.comparison.bench import open_bench
from app.lab.comparison.contestant import Contestant
from app.lab.comparison.database_clock import database_clock
from app.lab.comparison.entrant import Entrant
from app.lab.comparison.killed import CUT, Killed
from app.lab.comparison.lab_error import LabError
from app.lab.comparison.oracle import Oracle, Verdict

RUN = "crash"
WRITER = "app.lab.comparison.crash_writer"
MOST = 1_000
DRILLED = [f"{place:03}" for place in range(MOST)]
"""The keys of the drill."""
ENOUGH = 40
"""The number of acknowledged writes that each contestant has before the cut."""
LOOKED_AT = 40
"""How many keys are read at the end, the last written ones."""
PATIENCE = timedelta(seconds=30)
ABANDONED = timedelta(seconds=11)
"""The delay after the kill until what a dead flusher held may be reclaimed (`app.caching.write_behind.gathering`)."""
STILL = timedelta(seconds=1.5)
"""When nothing has reached the database for this long, everything has settled."""


async def write_and_die(
    endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta, stop: asyncio.Event
) -> Killed:
    """Starts a child that writes to all contestants, and kills it; at once, when `stop` is set. `endpoints` names the
    lab's schema. Raises LabError."""
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

        async def kill_early() -> None:
            await stop.wait()
            child.kill()

        early = asyncio.create_task(kill_early())
        try:
            async with asyncio.timeout(PATIENCE.total_seconds()):
                while any(killed.acknowledged(contestant.name) < ENOUGH for contestant in contestants):
                    await line()
                into.write(b"\n")
                while await line() != CUT:
                    continue
        except TimeoutError:
            pass  # A contestant accepts no more writes; the acknowledged ones are judged.
        finally:
            early.cancel()
        with suppress(ProcessLookupError):
            child.kill()
        killed.at = time.monotonic()
        for rest in (await out.read()).decode().splitlines(keepends=True):
            if rest.endswith("\n"):  # The last line may be truncated.
                killed.hear(rest.rstrip("\n"))
        await child.wait()
    return killed


async def take_over(
    endpoints: Endpoints, contestants: Sequence[Contestant], ttl: timedelta, killed: Killed, stop: asyncio.Event
) -> dict[str, Verdict]:
    """Runs a new instance of each until nothing changes any more, and judges. Returns nothing when `stop` is set."""
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
    # The child leaves its wire's socket behind; it is removed together with this directory.
    directory = tempfile.TemporaryDirectory(prefix="fourways-crash-", ignore_cleanup_errors=True)
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        WRITER,
        str(ttl.total_seconds()),
        *(contestant.name for contestant in contestants),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        # Ctrl-C goes to every process of the terminal's group; this one is ended by its parent.
        start_new_session=True,
        limit=2**20,
        # Not as arguments: every user of the machine may read those, and a URL may hold a password.
        env={
            **os.environ,
            "TMPDIR": directory.name,
            "REDIS_URL": endpoints.redis_url,
            "DATABASE_URL": endpoints.database_url,
        },
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
    """Reads what was written last. A read that a strategy can no longer answer is no finding of this drill."""
    for place in sorted(oracle.histories)[-LOOKED_AT:]:
        began = time.monotonic()
        with suppress(DatabaseUnavailable, *REDIS_DOWN):
            oracle.read(place, await entrant.strategy.read(place), began, time.monotonic())
