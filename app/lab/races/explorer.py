"""Runs a case in one order after the other, on real stores, until one fails or none is left to try.

    explore     the schedules without a preemption or a fault, then those with one, with two …: the first that fails is
                as simple as it can be; and then, for what is left of the budget, random ones

Whoever has begun goes on until it waits or ends; a preemption lets another go before. A fault is a process that dies
before a call, an answer that is lost, or a lease that ends. (Iterative context bounding: Musuvathi et al., "Finding and
Reproducing Heisenbugs in Concurrent Programs", OSDI 2008.)

Everything runs in a loop of its own, in a thread: its time passes only when it is told, so whoever polls costs nothing,
and one seed takes the same turns each time. What is bounded by `budget` may end sooner on a slower machine; what is
bounded by `most` is the same everywhere.

What can go wrong: a schedule in which somebody waits for ever is given up, and counted.
"""

import asyncio
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import IntEnum, auto
from hashlib import sha1
from importlib.resources import files
from typing import Any, cast

import asyncpg
from redis.asyncio import Redis

from app.caching import open_redis
from app.lab.anomaly import Anomaly
from app.lab.published import Flushing
from app.lab.races.cases import KEY, Actor, Case, Deed
from app.lab.races.gate import Gate, Line, Passage, Phase
from app.lab.races.idle_loop import IdleLoop
from app.lab.races.stepped_redis import PREFIX, SteppedRedis
from app.lab.races.stepped_table import SteppedTable, schema
from app.lab.races.timeline import timeline
from app.lab.races.witness import Witness
from app.lab.strategy import Strategy

TTL = timedelta(minutes=5)
TIMEOUT = timedelta(seconds=10)
SYSTEMATIC = 0.8
"""So much of the budget goes to what can be enumerated, where that does not end by itself."""
MOST_FAULTS = 2
SOON = 0.1
"""A timer that is due within so many seconds is a poll, and somebody may be late for it."""
POLLS = 3
"""Whoever has polled so often in vain waits for a lease, and it ends."""
IN_VAIN = 12
STEPS = 300
ATTEMPTS, PASSES = 3, 50
AGAIN = 0.6
"""How likely a random schedule lets the same process go on."""
FAULT = 0.04


class Turn(IntEnum):
    """What may happen next."""

    GO = auto()  # An actor's call is carried out.
    LOSE = auto()  # It is, and its answer is lost.
    DIE = auto()  # The actor's process dies before it.
    WAIT = auto()  # A poll is due.
    LAPSE = auto()  # The leases end: everybody has stalled for so long.


class Diverged(Exception):
    """A schedule did not repeat itself. The library's own deadlines are of real time, seconds long: the machine has
    stood still meanwhile."""


@dataclass(frozen=True, slots=True)
class Choice:
    """One turn of a schedule: the `number`-th call of an actor."""

    turn: Turn
    actor: int = -1
    number: int = 0


@dataclass(frozen=True, slots=True)
class Failure:
    """A schedule that shows an anomaly: with how many preemptions and faults (`cost`), how many `faults` of them, and
    what everybody did."""

    anomaly: Anomaly
    what: str
    cost: int
    faults: int
    names: tuple[str, ...]
    lines: tuple[Line, ...]

    @property
    def size(self) -> tuple[int, int, int]:
        """The smaller of two is the better to show: a race that needs no fault says more than one that does."""
        return self.cost, self.faults, len(self.lines)

    def __str__(self) -> str:
        return f"{timeline(self.names, self.lines)}\n\n{self.anomaly.value}: {self.what}"


@dataclass(frozen=True, slots=True)
class Result:
    """What came of a case. All schedules with up to `exhausted` preemptions and faults were run (-1: not even those
    with none); `given_up` is how many of the `schedules` did not end. `failures` has the simplest schedule for each
    anomaly that was found."""

    case: Case
    schedules: int
    given_up: int
    exhausted: int
    failures: dict[Anomaly, Failure]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far it is: so many schedules of at most `most`, and what was found until now."""

    schedules: int
    most: int
    found: frozenset[Anomaly]


async def explore(
    case: Case,
    *,
    redis_url: str,
    database_url: str,
    budget: timedelta,
    most: int,
    seed: int,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Result:
    """Runs at most `most` schedules of a case, and for no longer than `budget`.

    A case that shall fail ends with the level on which all that it shows was found. `report` is called in this loop
    after each schedule. Raises OSError, RedisError and asyncpg's errors when a store is not there.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def told(progress: Progress) -> None:
        loop.call_soon_threadsafe(report, progress)

    def run() -> Result:
        with asyncio.Runner(loop_factory=IdleLoop) as runner, _quiet():
            return runner.run(_explore(case, redis_url, database_url, budget, most, seed, told, stop))

    thread = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({thread})
        raise


async def _explore(
    case: Case,
    redis_url: str,
    database_url: str,
    budget: timedelta,
    most: int,
    seed: int,
    report: Callable[[Progress], None],
    stop: threading.Event,
) -> Result:
    deadline = time.monotonic() + budget.total_seconds()
    async with AsyncExitStack() as stack:
        name = await stack.enter_async_context(schema(database_url))
        stores = []
        for _actor in range(len(case.actors) + 1):
            redis = await stack.enter_async_context(open_redis(redis_url, timeout=TIMEOUT, connections=4))
            connection = await asyncpg.connect(
                database_url, server_settings={"search_path": name, "synchronous_commit": "off"}
            )
            stack.push_async_callback(connection.close)
            stores.append((redis, connection))
        schedules = Schedules(case, stores, f"{PREFIX}{name}")
        await schedules.prepare()
        stack.push_async_callback(schedules.clear)
        return await _search(case, schedules, deadline, budget, most, seed, report, stop)


async def _search(
    case: Case,
    schedules: "Schedules",
    deadline: float,
    budget: timedelta,
    most: int,
    seed: int,
    report: Callable[[Progress], None],
    stop: threading.Event,
) -> Result:
    dice = random.Random(seed)
    # Of each number of preemptions and faults, the beginnings that are to be tried.
    levels: dict[int, list[tuple[Choice, ...]]] = {0: [()]}
    failures: dict[Anomaly, Failure] = {}
    count = given_up = level = 0

    def goes_on(schedules: float, share: float) -> bool:
        in_time = time.monotonic() < deadline - budget.total_seconds() * (1 - share)
        return count < schedules and in_time and not stop.is_set()

    def learn(schedule: Schedule) -> None:
        nonlocal count, given_up
        count, given_up = count + 1, given_up + schedule.given_up
        for failure in schedule.failures:
            best = failures.get(failure.anomaly)
            if best is None or failure.size < best.size:
                failures[failure.anomaly] = failure
        report(Progress(count, most, frozenset(failures)))

    share = 0.0
    while level <= max(levels) and not (case.shows and case.shows <= set(failures)):
        # Half of what is left for each level, so that a large one leaves something for those that are less simple.
        share += (SYSTEMATIC - share) / 2
        schedules_until = count + (most * SYSTEMATIC - count) / 2
        untried = levels.setdefault(level, [])
        while untried and goes_on(schedules_until, share):
            # In no order, for a level that does not come to its end is to be seen everywhere.
            place = dice.randrange(len(untried))
            untried[place], untried[-1] = untried[-1], untried[place]
            schedule = await _repeated(schedules, untried.pop())
            learn(schedule)
            for cost, beginning in schedule.alternatives():
                levels.setdefault(cost, []).append(beginning)
        level += 1
    exhausted = next((cost for cost in sorted(levels) if levels[cost]), max(levels) + 1) - 1
    if not case.shows:
        while any(levels.values()) and goes_on(most, 1):
            learn(await schedules.run((), dice))
    return Result(case, count, given_up, exhausted, failures)


async def _repeated(schedules: "Schedules", given: Sequence[Choice]) -> "Schedule":
    for _attempt in range(ATTEMPTS - 1):
        try:
            return await schedules.run(given)
        except Diverged:
            continue
    return await schedules.run(given)


@dataclass(slots=True)
class Point:
    """A moment at which it was decided: what might have been, at what price, and what was."""

    options: list[tuple[Choice, int]]
    chosen: Choice
    price: int


@dataclass(slots=True)
class Schedule:
    """One schedule as it was run. The first `given` choices were given."""

    given: int
    points: list[Point] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    given_up: bool = False

    def alternatives(self) -> Iterator[tuple[int, tuple[Choice, ...]]]:
        """The beginnings that differ from this one in their last choice, and what they cost."""
        cost, chosen = 0, tuple(point.chosen for point in self.points)
        for place, point in enumerate(self.points):
            if place >= self.given:
                for choice, price in point.options:
                    if choice != point.chosen:
                        yield cost + price, (*chosen[:place], choice)
            cost += point.price

    @property
    def cost(self) -> int:
        """How many preemptions and faults it has."""
        return sum(point.price for point in self.points)

    @property
    def faults(self) -> int:
        """How many faults it has."""
        return sum(point.chosen.turn in (Turn.LOSE, Turn.DIE, Turn.LAPSE) for point in self.points)


class Schedules:
    """Runs schedules of one case. `stores` are the clients of each actor, and of whoever looks at the end."""

    def __init__(self, case: Case, stores: Sequence[tuple[Redis, asyncpg.Connection]], prefix: str) -> None:
        self._case, self._stores, self._prefix = case, stores, prefix
        self._loop = cast("IdleLoop", asyncio.get_running_loop())
        self._names: dict[str, str] = {}
        self._used: set[str] = set()

    async def prepare(self) -> None:
        """Sends the scripts to Redis, so that no schedule has to."""
        for folder in ("app.caching.scripts", "app.caching.write_behind.scripts"):
            for file in files(folder).iterdir():
                if file.name.endswith(".lua"):
                    source = file.read_bytes()
                    self._names[sha1(source).hexdigest()] = file.name.removesuffix(".lua")
                    await self._redis.script_load(source.decode())
        # Those of the published variants are as short as a command, and are sent when they are first used.
        self._gate = Gate()
        strategies, _ = self._processes(Witness(self._case.holds, self._case.behind))
        for script in (value for value in vars(strategies[0]).values() if hasattr(value, "sha")):
            self._names[script.sha] = "one script"
            await self._redis.script_load(script.script)

    async def clear(self) -> None:
        """Removes what is left in Redis."""
        if self._used:
            await self._redis.delete(*self._used)
            self._used.clear()

    async def run(self, given: Sequence[Choice], dice: random.Random | None = None) -> Schedule:
        """Runs a schedule: as it is given, and from there on by the rule, or by the dice."""
        await self.clear()
        case, schedule = self._case, Schedule(len(given))
        self._gate = gate = Gate()
        witness = Witness(case.holds, case.behind)
        strategies, tables = self._processes(witness)
        await tables[-1].reset(KEY)
        before = asyncio.all_tasks()
        self._loop.stop_time()
        gate.phase = Phase.WATCHED
        values = iter(range(1, 100))
        programs = [
            asyncio.create_task(self._live(place, actor, strategies[place], witness, values))
            for place, actor in enumerate(case.actors)
        ]
        try:
            await self._decide(schedule, given, dice, programs, tables)
        finally:
            lines = tuple(gate.lines)
            gate.phase = Phase.OVER
            left = asyncio.all_tasks() - before
            for task in left:
                task.cancel()
            await asyncio.gather(*left, return_exceptions=True)
            self._loop.start_time()
            for table in tables:
                await table.roll_back()
        if not schedule.given_up:
            gate.phase = Phase.OPEN
            await self._look(strategies[-1], tables[-1], witness)
        names = tuple(actor.name for actor in case.actors)
        schedule.failures = [
            Failure(anomaly, what, schedule.cost, schedule.faults, names, lines)
            for anomaly, what in witness.found.items()
        ]
        return schedule

    @property
    def _redis(self) -> Redis:
        return self._stores[-1][0]

    def _processes(self, witness: Witness) -> tuple[list[Strategy], list[SteppedTable]]:
        strategies, tables = [], []
        for actor, (redis, connection) in enumerate(self._stores):
            stepped = SteppedRedis(
                redis.connection_pool,
                self._gate,
                actor,
                prefix=self._prefix,
                names=self._names,
                shard=self._case.shard,
                used=self._used,
            )
            table = SteppedTable(connection, self._gate, actor, witness.commits)
            tables.append(table)
            strategies.append(self._case.make(stepped, table, self._prefix, TTL))
        return strategies, tables

    async def _live(
        self, place: int, actor: Actor, strategy: Strategy, witness: Witness, values: Iterator[int]
    ) -> None:
        """The life of a process: an operation that fails is in doubt, and the next one begins."""
        gate = self._gate
        for deed in actor.deeds:
            floor, value = 0, 0

            def begin(deed: Deed = deed) -> None:
                nonlocal floor, value
                floor = witness.floor

            if deed is Deed.WRITE:
                value = next(values)
                gate.begins[place] = lambda value=value: witness.begins(value)  # type: ignore[misc]
            else:
                gate.begins[place] = begin
            try:
                match deed:
                    case Deed.READ:
                        read = await strategy.read(KEY)
                        gate.say(place, f"answers {read}")
                        witness.answers(read, floor)
                    case Deed.WRITE:
                        await strategy.write(KEY, value)
                        gate.say(place, "acknowledged")
                        witness.acknowledges(value)
                    case Deed.FLUSH:
                        await cast("Flushing", strategy).flush()
                    case Deed.CARRY:
                        await cast("Any", strategy).carry()
            except Exception as error:  # noqa: BLE001  # Whatever it is: the caller is told so.
                gate.say(place, f"fails: {type(error).__name__}")
            if place in gate.crashed:
                return  # Its deadlines pass all the same; nobody is there to do more.

    async def _decide(
        self,
        schedule: Schedule,
        given: Sequence[Choice],
        dice: random.Random | None,
        programs: Sequence[asyncio.Task[None]],
        tables: Sequence[SteppedTable],
    ) -> None:
        gate = self._gate
        last, faults, polls, in_vain, rested, lapsed = -1, 0, 0, 0, True, False
        dead: set[int] = set()
        while True:
            timer = await self._loop.idle(lambda: gate.busy)
            ended = all(task.done() or place in dead for place, task in enumerate(programs))
            if not gate.parked and ended:
                return
            if len(schedule.points) > STEPS or in_vain > IN_VAIN or (not gate.parked and timer is None):
                schedule.given_up = True
                return
            options = self._options(last, faults, timer, rested=rested, lapsed=lapsed)
            place = len(schedule.points)
            if place < len(given):
                choice = given[place]
                prices = dict(options)
                if choice not in prices:
                    raise Diverged(f"A schedule did not repeat itself: {choice} is none of {options}.")
                price = prices[choice]
            else:
                choice, price = options[0] if dice is None else _thrown(dice, options, last)
            schedule.points.append(Point(options, choice, price))
            match choice.turn:
                case Turn.GO | Turn.LOSE:
                    call = next(
                        call for call in gate.parked if (call.actor, call.number) == (choice.actor, choice.number)
                    )
                    lost = choice.turn is Turn.LOSE
                    faults += lost
                    call.passage.set_result(Passage.ANSWER_LOST if lost else Passage.CARRIED_OUT)
                    last, rested = choice.actor, True
                    polls = polls if len(gate.parked) == 1 else 0
                case Turn.DIE:
                    faults += 1
                    dead.add(choice.actor)
                    gate.crash(choice.actor)
                    await tables[choice.actor].roll_back()
                case Turn.WAIT:
                    polls, in_vain = polls + 1, in_vain + (not gate.parked)
                    rested = False
                    if polls > POLLS:
                        polls = 0
                        await self._lapse()
                    self._loop.advance((timer or 0.0) + 0.02)
                case Turn.LAPSE:
                    faults, lapsed = faults + 1, True
                    await self._lapse()

    def _options(
        self, last: int, faults: int, timer: float | None, *, rested: bool, lapsed: bool
    ) -> list[tuple[Choice, int]]:
        """What may happen now, and at what price; what happens by itself is the first."""
        calls = sorted(self._gate.parked, key=lambda call: (call.actor != last, call.actor, call.number))
        if not calls:
            return [(Choice(Turn.WAIT), 0)]
        goes_on = calls[0].actor == last
        prices = {call: int(goes_on and call.actor != last) for call in calls}
        options = [(Choice(Turn.GO, call.actor, call.number), prices[call]) for call in calls]
        if timer is not None and timer < SOON and rested:
            options.append((Choice(Turn.WAIT), 1))
        if faults < MOST_FAULTS:
            options += [(Choice(Turn.LOSE, call.actor, call.number), prices[call] + 1) for call in calls]
            # Who never moves again may as well have died at once; and who has not begun is not there at all.
            if goes_on:
                options.append((Choice(Turn.DIE, last), 1))
            if not lapsed and any(line.text.startswith(("lookup", "revoke")) for line in self._gate.lines):
                options.append((Choice(Turn.LAPSE), 1))
        return options

    async def _lapse(self) -> None:
        self._gate.say(None, "3 s pass, and every lease ends")
        if leases := [key for key in self._used if key.endswith(":lease")]:
            await self._redis.delete(*leases)

    async def _look(self, strategy: Strategy, table: SteppedTable, witness: Witness) -> None:
        """Lets everything be carried, by a process that lives, and then looks at both stores."""
        await self._lapse()
        if hasattr(strategy, "carry"):
            await strategy.carry()
        if self._case.behind:
            in_vain = 0
            for _pass in range(PASSES):
                in_vain = 0 if await cast("Flushing", strategy).flush() else in_vain + 1
                if in_vain == 2:  # The first pass may only have made what it needs.
                    break
        row = await table.load(KEY)
        witness.ends(0 if row is None else row.value, await strategy.read(KEY))


def _thrown(dice: random.Random, options: list[tuple[Choice, int]], last: int) -> tuple[Choice, int]:
    same = [option for option in options if option[0].turn is Turn.GO and option[0].actor == last]
    goes = [option for option in options if option[0].turn in (Turn.GO, Turn.WAIT)]
    rare = [option for option in options if option not in goes]
    if rare and dice.random() < FAULT:
        return dice.choice(rare)
    return dice.choice(same) if same and dice.random() < AGAIN else dice.choice(goes)


@contextmanager
def _quiet() -> Iterator[None]:
    """A fault that was meant is no news: the library's warnings are not wanted while it is explored."""
    logger = logging.getLogger("app.caching")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
