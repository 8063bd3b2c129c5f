"""A region against a model: in any order of events, no read is older than what was answered before it began.

test_region.py tests the interleavings that somebody thought of. Here Hypothesis searches for those that nobody did:
loads that stall in the middle, writers that have committed and not invalidated yet, a relay that repeats changes and
delivers them late, writers that hold a row's lock, and keys that expire. It makes one step at a time on a real Redis,
and checks all invariants after each step.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from enum import Enum, auto
from typing import Any, TypeVar, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)
from redis.asyncio import Redis

from app.caching import Breaker, Cache, Identity, Locked, Reading, RedisClock, Region, Trust, open_redis
from app.caching.lease import WRITER, Fill, Lease
from app.caching.moment import NEVER
from app.embedded import Endpoints
from tests.caching.conftest import LIFETIMES, Thing
from tests.settled import settled

T = TypeVar("T")

AN_HOUR = timedelta(hours=1)
KEYS = (1, 2)

keys = st.sampled_from(KEYS)
ticks = st.sampled_from([(1,), (2,), KEYS])
"""The keys that are asked for in one tick, and so in one call."""
instances = st.sampled_from((0, 1))
names = st.sampled_from(["", " ", "\n", "a  b\r\n", " 1 2 3 4 {}", "\x00", "Fahrrad für 1 €", "🚲"]) | st.text(
    max_size=4
)


def json_of(thing: Thing | None) -> bytes | None:
    """Returns the bytes that a read of this row must answer."""
    return None if thing is None else thing.model_dump_json().encode()


class Change(Enum):
    """What a writer does to a row."""

    UPDATE = auto()  # Or an INSERT, when there is no row.
    DELETE = auto()  # When there is no row: the INSERT that waited for a DELETE.
    REPLACE = auto()  # A DELETE, and the INSERT that waited for it.


changes = st.sampled_from(Change)


@dataclass(eq=False)
class Row:
    """A row of the database, and what Redis must hold beside its value."""

    states: list[Thing | None]
    """All states that it has had; the last is the current one."""
    answered: int = 0
    """Index of the newest state whose write was answered. A read that begins now may answer no earlier state."""
    lock: str | None = None
    """The writer that holds its lock."""
    lease: str | None = None
    floor: int = 0
    followers: dict[str, int] = field(default_factory=dict)
    """For each lease that others wait for: what was answered when the last of them began to wait."""

    def may_be(self, since: int) -> set[bytes | None]:
        """Returns what a read may answer that began when the state `since` had been answered."""
        return {json_of(state) for state in self.states[since:]}


@dataclass(eq=False)
class Load:
    """A load in flight, or a writer that has committed: both end in a fill."""

    key: int
    token: str
    brought: Thing | Locked[Thing] | None = None


@dataclass(frozen=True)
class Write:
    """A committed change, and the state that it made."""

    key: int
    version: int
    state: int


class Coherence(RuleBasedStateMachine):
    """Two instances, one Redis, and a database that is a list."""

    leases: Bundle[Load] = Bundle("leases")
    """Loads that have not read the database yet."""
    loads: Bundle[Load] = Bundle("loads")
    """Loads that have read it, and writers that have committed."""
    landed: Bundle[Load] = Bundle("landed")
    writers: Bundle[Load] = Bundle("writers")
    """Writers that hold a row's lock, and have not committed."""

    def __init__(self, runner: asyncio.Runner, redis: Redis, regions: list[Region[int, Thing]]) -> None:
        super().__init__()
        self.runner, self.redis, self.regions = runner, redis, regions
        self.versions = itertools.count(1000)
        # Versions of INSERTs that had to wait for a DELETE: all writers in between have drawn a later version.
        self.early_versions = itertools.count(999, -1)
        self.tokens = itertools.count(1)
        self.writes: list[Write] = []
        self.rows = {key: Row([None]) for key in KEYS}
        self.wait_for(redis.flushdb())

    def wait_for(self, work: Awaitable[T]) -> T:
        """Runs the loop until `work` is done: Hypothesis does not support coroutines."""
        return self.runner.get_loop().run_until_complete(work)

    def check(self, key: int, reading: Reading[Thing] | None) -> None:
        if reading is not None:
            row = self.rows[key]
            assert reading.payload in row.may_be(row.answered), "a read that is too old, or was never committed"
            assert reading.version == (0 if reading.value is None else reading.value.version)

    def change(self, key: int, change: Change, name: str) -> Thing | None:
        """Commits a change, and returns the row's new state."""
        row = self.rows[key]
        exists = row.states[-1] is not None
        if change is Change.REPLACE and exists:
            self.change(key, Change.DELETE, name)
            exists = False
        state: Thing | None = None
        if exists and change is Change.DELETE:
            version = next(self.versions)
        elif not exists and change is not Change.UPDATE:
            version = next(self.early_versions)
            state = Thing(name=name, version=version)
        else:
            version = next(self.versions)
            state = Thing(name=name, version=version)
        row.states.append(state)
        self.writes.append(Write(key, version, len(row.states) - 1))
        return state

    # Readers

    @rule(target=leases, instance=instances, asked=ticks)
    def lookup(self, instance: int, asked: tuple[int, ...]) -> MultipleResults[Load]:
        """Readers miss, all in one tick."""
        return multiple(*self.misses(instance, asked))

    def misses(self, instance: int, asked: tuple[int, ...]) -> list[Load]:
        """Looks keys up, and returns the leases that this grants."""

        async def answers() -> list[Reading[Thing] | Lease[Thing]]:
            return await asyncio.gather(*map(self.regions[instance].lookup, asked))

        granted = []
        for key, answer in zip(asked, self.wait_for(answers()), strict=True):
            row = self.rows[key]
            if isinstance(answer, Reading):
                assert answer.ttl > timedelta(0)
                self.check(key, answer)
                continue
            self.check(key, answer.old)
            if answer.granted:
                assert row.lease is None, "two leases at a time"
                row.lease = answer.token
                granted.append(Load(key, answer.token))
            else:
                assert answer.token == row.lease
                assert answer.writers == answer.token.startswith(WRITER)
                row.followers[answer.token] = row.answered
        return granted

    @rule(target=leases, instance=instances, key=keys)
    def refresh(self, instance: int, key: int) -> MultipleResults[Load]:
        """A reader begins to load a value that still stands."""
        row = self.rows[key]
        token = self.wait_for(self.regions[instance].claim(key))
        assert (token is None) == (row.lease is not None)
        if token is None:
            return multiple()
        row.lease = token
        return multiple(Load(key, token))

    @rule(target=loads, lease=consumes(leases))
    def load(self, lease: Load) -> Load:
        """A load reads the database."""
        self.ask(lease)
        return lease

    def ask(self, load: Load) -> None:
        """Reads the row. While a writer holds its lock, the load learns that it must not keep the row."""
        row = self.rows[load.key]
        load.brought = Locked(row.states[-1]) if row.lock else row.states[-1]

    @rule(target=landed, instance=instances, load=consumes(loads))
    def fill(self, instance: int, load: Load) -> Load:
        """A load or a write ends."""
        self.land(instance, [load])
        return load

    @rule(instance=instances, load=landed)
    def fill_again(self, instance: int, load: Load) -> None:
        """A fill is repeated."""
        self.land(instance, [load])

    @rule(instance=instances, load=consumes(leases))
    def fail(self, instance: int, load: Load) -> None:
        """A load fails."""
        self.give_back(instance, load)

    @rule(target=loads, instance=instances, asked=ticks, stall=st.booleans())
    def read(self, instance: int, asked: tuple[int, ...], stall: bool) -> MultipleResults[Load]:
        """Readers miss and load. Nothing interrupts them, except perhaps before the fill."""
        granted = self.misses(instance, asked)
        for load in granted:
            self.ask(load)
        if stall:
            return multiple(*granted)
        self.land(instance, granted)
        return multiple()

    def land(self, instance: int, loads: list[Load]) -> None:
        region = self.regions[instance]
        brought: list[tuple[Load, Thing | None]] = []
        for load in loads:
            if isinstance(load.brought, Locked):
                self.give_back(instance, load)
            else:
                brought.append((load, load.brought))

        async def fills() -> list[tuple[Reading[Thing], Fill]]:
            return await asyncio.gather(*(region.fill(load.key, load.token, thing) for load, thing in brought))

        for (load, thing), (reading, fill) in zip(brought, self.wait_for(fills()), strict=True):
            row = self.rows[load.key]
            assert reading.payload == json_of(thing)
            if load.token != row.lease:
                assert fill is Fill.LOST
                continue
            assert fill is (Fill.BELOW if thing is not None and thing.version < row.floor else Fill.STORED)
            row.lease = None
            # Readers that waited for this lease may have what was loaded under it.
            assert json_of(thing) in row.may_be(row.followers.get(load.token, 0)), "a shared load that is too old"
            if fill is Fill.STORED:
                self.finds(instance, load.key, thing)

    def finds(self, instance: int, key: int, thing: Thing | None) -> None:
        (found,) = self.wait_for(self.regions[instance].find_all([key]))
        assert found is not None
        assert found.payload == json_of(thing)

    def give_back(self, instance: int, load: Load) -> None:
        self.wait_for(self.regions[instance].release(load.key, load.token))
        row = self.rows[load.key]
        row.lease = None if row.lease == load.token else row.lease

    # Writers

    @rule(instance=instances, key=keys, change=changes, name=names, stall=st.booleans())
    def write(self, instance: int, key: int, change: Change, name: str, stall: bool) -> None:
        """A writer commits, and invalidates at once or stalls before it does."""
        self.change(key, change, name)
        if not stall:
            self.tell(instance, self.writes[-1:])

    @precondition(lambda self: len(self.writes) > 0)
    @rule(instance=instances, back=st.integers(0, 4))
    def invalidate(self, instance: int, back: int) -> None:
        """A writer or a relay invalidates a change: for the first time or again, in order or not."""
        self.tell(instance, [self.writes[-1 - back % len(self.writes)]])

    @rule(instance=instances, backwards=st.booleans())
    def relay(self, instance: int, backwards: bool) -> None:
        """A relay invalidates the last changes together."""
        self.tell(instance, self.writes[:-4:-1] if backwards else self.writes[-3:])

    def tell(self, instance: int, writes: list[Write]) -> None:
        async def told() -> None:
            await asyncio.gather(*(self.regions[instance].invalidate(write.key, write.version) for write in writes))

        self.wait_for(told())
        for write in writes:
            row = self.rows[write.key]
            if write.version != row.floor:
                row.lease = None
                row.floor = max(row.floor, write.version)
            row.answered = max(row.answered, write.state)

    @rule(target=writers, instance=instances, key=keys)
    def revoke(self, instance: int, key: int) -> MultipleResults[Load]:
        """A writer takes the row's lock, and then removes the value and the lease."""
        row = self.rows[key]
        if row.lock:
            return multiple()
        token = f"{WRITER}{next(self.tokens)}"
        self.wait_for(self.regions[instance].revoke(key, token))
        row.lock = row.lease = token
        return multiple(Load(key, token))

    @rule(target=loads, writer=consumes(writers), change=changes, name=names)
    def commit(self, writer: Load, change: Change, name: str) -> MultipleResults[Load]:
        """That writer commits. From here on, nobody may read the old value in the cache, even before it is answered."""
        row = self.rows[writer.key]
        if row.lock != writer.token:
            return multiple()
        writer.brought = self.change(writer.key, change, name)
        row.lock = None
        row.answered = len(row.states) - 1
        return multiple(writer)

    @rule(instance=instances, writer=consumes(writers), killed=st.booleans())
    def roll_back(self, instance: int, writer: Load, killed: bool) -> None:
        """That writer fails or dies: the database releases the lock in either case."""
        row = self.rows[writer.key]
        row.lock = None if row.lock == writer.token else row.lock
        if not killed:
            self.give_back(instance, writer)

    # What expires, and what gets lost

    @rule(key=keys, ends=st.sampled_from([("",), (":lease",), (":floor",), ("", ":lease", ":floor")]))
    def expire(self, key: int, ends: tuple[str, ...]) -> None:
        """One key expires, or all three do, as when somebody flushes Redis."""
        self.wait_for(self.redis.delete(*(f"things:{{{key}}}{end}" for end in ends)))
        row = self.rows[key]
        row.lease = None if ":lease" in ends else row.lease
        row.floor = 0 if ":floor" in ends else row.floor

    @rule(
        target=leases,
        instance=instances,
        key=keys,
        become=st.sampled_from(["stale", "foreign", "of another schema", "rotten"]),
    )
    def spoil(self, instance: int, key: int, become: str) -> MultipleResults[Load]:
        """The value under the key is no longer valid, and the next reader misses."""
        name = f"things:{{{key}}}"
        # The client returns bytes, though redis-py's own type allows text.
        raw = cast("bytes", self.wait_for(self.redis.get(name)) or b"")
        schema, *words = raw.split(b" ", 4)
        if len(words) < 4:
            return multiple()
        spoilt = {
            # Stored a second ago, and fresh for a millisecond: a value stored just now might still be fresh.
            "stale": b" ".join([schema, words[0], b"%d" % (int(words[1]) - 1000), b"1", words[3]]),
            "foreign": b"\xff\xfe 1",
            "of another schema": b" ".join([b"01234567", *words]),
            "rotten": raw[:-1] + bytes([raw[-1] ^ 1]),
        }
        self.wait_for(self.redis.set(name, spoilt[become], keepttl=True))
        assert self.wait_for(self.regions[instance].find_all([key])) == [None]
        return multiple(*self.misses(instance, (key,)))

    # What must hold

    def teardown(self) -> None:
        """At the end all changes are invalidated, and every holder of a lock or a lease is gone: a read answers the
        current row, and stores it."""
        self.tell(0, self.writes)
        for key, row in self.rows.items():
            row.lock = None
            self.expire(key, (":lease", ":floor"))
        self.read(1, KEYS, stall=False)
        for key, row in self.rows.items():
            self.finds(0, key, row.states[-1])

    @invariant()
    def no_read_is_too_old(self) -> None:
        async def found() -> list[list[Reading[Thing] | None]]:
            return await asyncio.gather(*(region.find_all(KEYS) for region in self.regions))

        for readings in self.wait_for(found()):
            for key, reading in zip(KEYS, readings, strict=True):
                self.check(key, reading)

    @invariant()
    def redis_holds_what_it_must(self) -> None:
        names = [[f"things:{{{key}}}{what}" for what in (":lease", ":floor", "")] for key in KEYS]

        async def look() -> tuple[list[bytes], list[list[Any]]]:
            async with self.redis.pipeline(transaction=False) as pipeline:
                pipeline.keys("*")
                for lease, floor, value in names:
                    pipeline.mget(lease, floor)
                    for name in (lease, floor, value):
                        pipeline.pttl(name)
                there, *answers = await pipeline.execute()
            return there, [answers[:4], answers[4:]]

        there, answers = self.wait_for(look())
        assert {name.decode() for name in there} <= {name for three in names for name in three}
        for row, ((lease, floor), *ends) in zip(self.rows.values(), answers, strict=True):
            assert (lease or b"").decode() == (row.lease or "")
            assert int((floor or b"0").split()[-1]) == row.floor
            assert -1 not in ends, "a key that never ends"


@contextmanager
def two_instances(url: str) -> Iterator[tuple[asyncio.Runner, Redis, list[Region[int, Thing]]]]:
    """Opens two regions that act as two processes: they share nothing but Redis."""

    async def opened(stack: AsyncExitStack) -> tuple[Redis, Region[int, Thing]]:
        clock, trust = RedisClock(), Trust()
        breaker, identity = Breaker(trust), Identity(trust)
        redis = await stack.enter_async_context(
            open_redis(url, timeout=timedelta(seconds=30), connections=4, clock=clock, identity=identity)
        )
        # No relay runs, so trust must last without renewal.
        await breaker.probe(redis, redis.ping)
        trust.grant(trust.losses, NEVER)
        region: Region[int, Thing] = Region(
            Cache(redis, clock, trust, breaker, identity),
            "things",
            Thing,
            lifetimes=LIFETIMES,
            settled=settled,
        )
        return redis, await stack.enter_async_context(region)

    # The loop belongs to this test; the session's loop stays the current one.
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        stack = AsyncExitStack()
        (redis, first), (_, second) = runner.run(opened(stack)), runner.run(opened(stack))
        try:
            yield runner, redis, [first, second]
        finally:
            runner.run(stack.aclose())


SAMPLE = settings(
    max_examples=50,
    stateful_step_count=40,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
FULL = settings(SAMPLE, max_examples=4000, derandomize=False)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("effort", [SAMPLE, pytest.param(FULL, marks=pytest.mark.prove)], ids=["sample", "full"])
def test_no_read_is_older_than_a_write_answered_before_it_began(
    endpoints: Endpoints, monkeypatch: pytest.MonkeyPatch, effort: settings
) -> None:
    # No key expires by itself while the machine is busy: only the model's own steps expire keys.
    monkeypatch.setattr("app.caching.lookup.LEASE", AN_HOUR)
    monkeypatch.setattr("app.caching.values.LEASE", AN_HOUR)
    monkeypatch.setattr("app.caching.values.FLOOR", AN_HOUR)
    with two_instances(endpoints.redis_url) as world:

        class Machine(Coherence):
            def __init__(self) -> None:
                super().__init__(*world)

        run_state_machine_as_test(Machine, settings=effort)
