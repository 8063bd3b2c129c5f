"""A drill: few keys, many clients, and a database whose latency varies.

    R loads the old row, and its answer is slow to arrive
                                                W writes the new row, invalidates, and is acknowledged
    R fills the cache with the old row          … unless something stops it

On a quiet machine such a moment is rare, and a short replay may miss it. Here a wire (`wire.py`) makes it happen. First
this very race is set up for each contestant: the answer to R is held back until W has been acknowledged. Then all
contestants are played at random, while bytes now and then take 30 ms. Nothing is lost or changed.
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

from app.embedded import Endpoints
from app.lab.comparison.bench import open_bench
from app.lab.comparison.contestant import Contestant
from app.lab.comparison.database_clock import database_clock
from app.lab.comparison.oracle import Verdict
from app.lab.comparison.replay import Player
from app.lab.comparison.wire import wire
from app.lab.traces.operation import Kind, Operation

RUN = "contention"
ROUNDS, KEYS, OPERATIONS, CLIENTS = 9, 2, 64, 8
AT_ONCE = 3
"""Contestants that play at the same time."""
USUAL, STALLED, SELDOM = 0.001, 0.03, 1 / 8
"""Delay of bytes in one direction, in seconds: the usual one, and the one of a stall (one case in eight), as when a
packet is lost."""

TRIES, RACED = 4, 4
"""How often the race is set up at most until it happens, and with how many keys at the same time."""
HELD, SETTLED = 0.12, 0.02
"""In seconds: how long answers are held back, and the time between the first held answer and the start of the
writers."""

DRILLED = [
    *(f"{round_}-{place}" for round_ in range(ROUNDS) for place in range(KEYS)),
    *(f"warm-{place}" for place in range(2 * RACED)),
    *(f"race-{try_}-{place}" for try_ in range(TRIES) for place in range(RACED)),
]
"""The keys of the drill. Each round and each try has its own, so they are cold when it begins."""


async def contend(
    endpoints: Endpoints,
    contestants: Sequence[Contestant],
    *,
    ttl: timedelta,
    seed: int,
    stop: asyncio.Event,
    progress: Callable[[int], object],
) -> dict[str, Verdict]:
    """Returns what goes wrong with each. `endpoints` names the lab's schema; `progress` is called with the number of
    played operations."""
    chance = random.Random(seed)
    rounds = [
        [
            Operation(chance.choice((Kind.READ, Kind.WRITE)), f"{round_}-{chance.randrange(KEYS)}")
            for _each in range(OPERATIONS)
        ]
        for round_ in range(ROUNDS)
    ]
    weather = _Weather(random.Random(seed))
    turns = asyncio.Semaphore(AT_ONCE)

    async def drill(player: Player) -> None:
        async with turns:
            for operations in rounds:
                progress(await player.closed(operations, CLIENTS, stop))

    async with (
        wire(endpoints.database_url, weather.there, back=weather.back) as late,
        open_bench(
            Endpoints(endpoints.redis_url, late), contestants, RUN, ttl=ttl, connections=CLIENTS * AT_ONCE
        ) as bench,
    ):
        players = [Player(entrant, bench) for entrant in bench.entrants]
        async with bench.running():
            for player in players:
                await _race(player, weather, stop)
            weather.rough = True
            await asyncio.gather(*map(drill, players))
        clock = await database_clock(bench.pool)
        return {
            player.entrant.contestant.name: (await bench.judge(player.entrant, player.oracle, clock)).verdict
            for player in players
        }


class _Weather:
    """The delay of bytes. It is `rough` when some are stalled at random."""

    def __init__(self, chance: random.Random) -> None:
        self.rough = self.holding = False
        self.held = asyncio.Event()
        self._chance = chance

    def there(self) -> float:
        return STALLED if self.rough and self._chance.random() < SELDOM else USUAL

    def back(self) -> float:
        if not self.holding:
            return self.there()
        self.held.set()
        return HELD


async def _race(player: Player, weather: _Weather, stop: asyncio.Event) -> None:
    """Sets up the race above. It is repeated when a held answer arrives before the write is acknowledged, as on a busy
    machine."""
    # Opens connections and prepares statements first. Otherwise the first answers held back would be theirs.
    for kind in (Kind.READ, Kind.WRITE):
        await player.closed([Operation(kind, f"warm-{place}") for place in range(2 * RACED)], 2 * RACED, stop)
    for try_ in range(TRIES):
        keys = [f"race-{try_}-{place}" for place in range(RACED)]
        reads = [Operation(Kind.READ, key) for key in keys]
        weather.held.clear()
        weather.holding = True
        slow = asyncio.create_task(player.closed(reads, RACED, stop))
        # A read that needs no database is answered at once instead.
        held = asyncio.create_task(weather.held.wait())
        await asyncio.wait({slow, held}, return_when=asyncio.FIRST_COMPLETED)
        held.cancel()
        await asyncio.sleep(SETTLED)  # The relay queries the database, too: the first held answer may be the relay's.
        weather.holding = False
        await player.closed([Operation(Kind.WRITE, key) for key in keys], RACED, stop)
        raced = not slow.done()
        await slow
        await player.closed(reads, RACED, stop)
        if raced or stop.is_set():
            return
