"""The rules of a region: which fills are stored, and what an invalidation removes."""

import asyncio
import time
import zlib
from collections import Counter
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import BaseModel, Field
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection

from app.caching import Cache, CacheUnavailable, Event, Identity, Outcome, Reading, RedisClock, Region, open_redis
from app.caching.lease import LEASE, Fill, Lease
from tests.caching.conftest import LIFETIMES, NewRegion, Thing
from tests.settled import settled

A_MILLISECOND = timedelta(milliseconds=1)


async def leased(region: Region[int, Thing], key: int = 1) -> str:
    """Returns the token of the lease that a miss is granted."""
    answer = await region.lookup(key)
    assert isinstance(answer, Lease)
    assert answer.granted
    return answer.token


def thing(version: int) -> Thing | None:
    """Returns a row, or None for version 0."""
    return Thing(name="thing", version=version) if version else None


async def fill(region: Region[int, Thing], token: str, version: int) -> Fill:
    """Fills key 1, and returns what became of the fill."""
    return (await region.fill(1, token, thing(version), A_MILLISECOND))[1]


async def test_a_filled_value_is_found_with_its_version_age_and_ttl(region: Region[int, Thing]) -> None:
    assert await fill(region, await leased(region), 7) is Fill.STORED
    found = await region.find(1)
    assert found is not None
    assert (found.value, found.version, found.outcome) == (Thing(name="thing", version=7), 7, Outcome.HIT)
    assert timedelta(0) <= found.age < timedelta(seconds=10)
    # Its lifetime is shortened by up to a tenth, so that values filled together do not expire together.
    assert LIFETIMES.fresh * 0.9 - timedelta(seconds=10) < found.ttl <= LIFETIMES.fresh


async def test_every_concurrent_hit_is_counted(region: Region[int, Thing], reported: Counter[Event]) -> None:
    for key in (1, 2):
        await region.fill(key, await leased(region, key), thing(7), A_MILLISECOND)
    assert None not in await asyncio.gather(*(region.find(key) for key in (1, 2, 1, 1)))
    assert await region.find(3) is None
    assert reported[Event.HIT] == 4


async def test_the_stored_format_is_plain_text(region: Region[int, Thing], redis: Redis) -> None:
    await fill(region, await leased(region), 7)
    raw = await redis.get("things:{1}")
    assert isinstance(raw, bytes)
    schema, version, stored_at, fresh_for, cost, checksum, payload = raw.split(b" ", 6)
    assert (len(schema), version, cost, payload) == (8, b"7", b"1", b'{"name":"thing","version":7}')
    assert int(checksum, 16) == zlib.crc32(payload)
    assert abs(int(stored_at) / 1000 - time.time()) < 60
    assert 0.9 * LIFETIMES.fresh <= timedelta(milliseconds=int(fresh_for)) <= LIFETIMES.fresh


async def test_values_filled_together_do_not_expire_together(region: Region[int, Thing]) -> None:
    keys = range(100)
    tokens = await asyncio.gather(*(leased(region, key) for key in keys))
    await asyncio.gather(*(region.fill(key, token, thing(1)) for key, token in zip(keys, tokens, strict=True)))
    found = await region.find_all(list(keys))
    assert len({round(reading.ttl.total_seconds()) for reading in found if reading is not None}) > 10


async def test_a_fill_after_an_invalidation_is_refused(region: Region[int, Thing]) -> None:
    """R gets the lease, reads v1 · W commits v2 and invalidates · R fills v1, which would stay for its whole TTL."""
    token = await leased(region)
    await region.invalidate(1, 2)
    assert await fill(region, token, 1) is Fill.LOST
    assert await region.find(1) is None


async def test_an_insert_between_load_and_fill_is_not_hidden_by_a_negative_entry(
    region: Region[int, Thing],
) -> None:
    """R gets the lease and finds no row · W inserts v1 and invalidates · R fills "there is no such row"."""
    token = await leased(region)
    await region.invalidate(1, 1)
    assert await fill(region, token, 0) is Fill.LOST
    assert await region.find(1) is None


async def test_an_insert_with_a_lower_version_than_the_deletion_before_it_is_not_hidden(
    region: Region[int, Thing],
) -> None:
    """For a DELETE and an INSERT of the same key, the sequence does not follow the order of the commits:

    D deletes the row as version 66     I draws version 65, and waits for D's lock on the key
    D commits, invalidates 66
                                        R finds no row, and fills "there is no such row"
                                        I commits, invalidates 65, and answers

    If an invalidation below the floor did nothing, R's negative entry would hide the row after I was answered.
    """
    await region.invalidate(1, 66)
    assert await fill(region, await leased(region), 0) is Fill.STORED
    await region.invalidate(1, 65)
    assert await region.find(1) is None

    # The same while the load is still in flight.
    token = await leased(region)
    await region.invalidate(1, 64)
    assert await fill(region, token, 0) is Fill.LOST


async def test_a_version_below_the_floor_is_not_kept(region: Region[int, Thing]) -> None:
    """The row was read from a replica that lags behind, or before it was deleted and created again."""
    await region.invalidate(1, 9)
    assert await fill(region, await leased(region), 8) is Fill.BELOW
    assert await fill(region, await leased(region), 9) is Fill.STORED


async def test_a_repeated_invalidation_voids_no_newer_lease(region: Region[int, Thing]) -> None:
    """The writer invalidates, then the relay does. The second call must not void a load that began in between."""
    await region.invalidate(1, 2)
    token = await leased(region)
    await region.invalidate(1, 2)
    assert await fill(region, token, 2) is Fill.STORED


async def test_an_invalidation_keeps_a_value_of_its_own_version(region: Region[int, Thing]) -> None:
    await fill(region, await leased(region), 5)
    await region.invalidate(1, 5)
    assert isinstance(await region.find(1), Reading)
    await region.invalidate(1, 6)
    assert await region.find(1) is None


class Told(Thing, frozen=True):
    """A row that names the epoch in which it was read."""

    epoch: str | None = Field(None, exclude=True)


async def test_a_reading_names_the_epoch_that_issued_its_version(
    region: Region[int, Thing], identity: Identity
) -> None:
    identity.epoch = "e1"
    row = Told(name="thing", version=7, epoch="e1")
    filled, _fill = await region.fill(1, await leased(region), row, A_MILLISECOND)
    hit = await region.find(1)
    assert hit is not None
    assert (filled.epoch, hit.epoch, hit.value) == ("e1", "e1", Thing(name="thing", version=7))
    assert region.unkept(row, Outcome.BYPASSED).epoch == "e1"


async def test_a_row_of_another_epoch_is_not_kept_and_its_reading_names_no_epoch(
    region: Region[int, Thing], identity: Identity
) -> None:
    """The database is restored, and gives version 7, which was lost, to another row · R loads that row while it still
    believes in the old epoch: it must neither keep the row there as version 7 nor answer it as that version"""
    identity.epoch = "e1"
    for epoch in ("e2", None):
        row = Told(name="thing", version=7, epoch=epoch)
        reading, outcome = await region.fill(1, await leased(region), row, A_MILLISECOND)
        assert (reading.epoch, outcome) == (None, Fill.UNKNOWN)
        assert await region.find(1) is None
        assert region.unkept(row, Outcome.BYPASSED).epoch is None
        await region.invalidate(1, 7)  # This releases the lease immediately.


async def test_an_instance_outside_of_every_epoch_names_none_in_its_readings(
    region: Region[int, Thing], identity: Identity
) -> None:
    identity.epoch, identity.refused = "e1", "it is another Redis than the one that Postgres names"
    assert region.unkept(Told(name="thing", version=7, epoch="e1"), Outcome.BYPASSED).epoch is None


async def test_an_inserted_row_with_a_lower_version_is_not_hidden_by_the_deleted_row(
    region: Region[int, Thing],
) -> None:
    """The version of an INSERT can be lower than that of the row that a DELETE removed just before it:

    I draws version 71, and waits for the key
    W commits version 72                                R fills 72
    D deletes the row as 73, commits, and its invalidation is late
    I commits, invalidates 71, and answers              R must not hit 72
    """
    await fill(region, await leased(region), 72)
    await region.invalidate(1, 71)
    assert await region.find(1) is None


async def test_a_lease_is_granted_once_and_others_learn_its_token(new_region: NewRegion) -> None:
    token = await leased(new_region())
    answer = await new_region().lookup(1)
    assert isinstance(answer, Lease)
    assert (answer.granted, answer.token) == (False, token)


@pytest.mark.parametrize("token", [b"theirs", b"writer-theirs", b"\xff"])
async def test_a_lease_without_an_expiry_gets_one_and_does_not_block_other_keys(
    region: Region[int, Thing], redis: Redis, token: bytes
) -> None:
    """A person or a tool has set the lease; both keys are looked up in one call."""
    await redis.set("things:{1}:lease", token)
    left, free = await asyncio.gather(region.lookup(1), region.lookup(2))
    assert isinstance(left, Lease)
    assert not left.granted
    assert isinstance(free, Lease)
    assert free.granted
    assert 0 < await redis.pttl("things:{1}:lease") <= LEASE / A_MILLISECOND
    await redis.pexpire("things:{1}:lease", 1_000)
    await region.lookup(1)
    assert await redis.pttl("things:{1}:lease") <= 1_000, "It ends once."


async def test_only_the_holder_of_a_lease_can_release_it(region: Region[int, Thing], redis: Redis) -> None:
    token = await leased(region)
    await region.release(1, "somebody else")
    assert await redis.get("things:{1}:lease") == token.encode()
    await region.release(1, token)
    assert await redis.get("things:{1}:lease") is None


async def test_every_key_has_an_expiry(region: Region[int, Thing], redis: Redis) -> None:
    await region.invalidate(1, 1)
    await fill(region, await leased(region), 1)
    await leased(region, 2)
    for key in await redis.keys("*"):
        assert await redis.pttl(key) > 0, key


async def test_two_versions_of_the_application_share_one_redis(
    opened: Cache, redis: Redis, new_region: NewRegion, reported: Counter[Event]
) -> None:
    """During a rollout, old and new instances run side by side. Each reads only what it can parse:

    A fills {"name"} · B, whose model has a colour, must not answer A's bytes · B fills · A must not answer B's
    """

    class ColouredThing(BaseModel, frozen=True):
        name: str
        colour: str
        version: int

    old = new_region()
    new: Region[int, ColouredThing] = Region(
        opened,
        "things",
        ColouredThing,
        lifetimes=LIFETIMES,
        settled=settled,
    )
    assert await fill(old, await leased(old), 7) is Fill.STORED
    assert await new.find(1) is None

    answer = await new.lookup(1)
    assert isinstance(answer, Lease)
    assert answer.granted
    assert answer.old is None
    red = ColouredThing(name="thing", colour="red", version=7)
    await new.fill(1, answer.token, red)
    found = await new.find(1)
    assert found is not None
    assert found.value == red

    assert await old.find(1) is None
    assert reported[Event.FOREIGN] == 1
    # An invalidation removes the value, whichever instance wrote it.
    await old.invalidate(1, 8)
    assert await new.find(1) is None


@pytest.mark.parametrize("foreign", [b"", b"hello", b"{}", b"a 1 2 3 4 {}", b"\xff\xfe\x00", b"1 2 3 4 5 6"])
async def test_foreign_bytes_are_a_miss_and_are_overwritten(
    region: Region[int, Thing], redis: Redis, foreign: bytes
) -> None:
    await redis.set("things:{1}", foreign)
    assert await region.find(1) is None
    assert await fill(region, await leased(region), 1) is Fill.STORED
    assert isinstance(await region.find(1), Reading)


@pytest.mark.parametrize("rot", [b"x", b'{"name":"thing","version":7', b'{"name":"think","version":7}'])
async def test_a_corrupt_value_is_a_miss_and_is_overwritten(
    region: Region[int, Thing], redis: Redis, reported: Counter[Event], rot: bytes
) -> None:
    await fill(region, await leased(region), 7)
    raw = await redis.get("things:{1}")
    assert isinstance(raw, bytes)
    await redis.set("things:{1}", raw.replace(b'{"name":"thing","version":7}', rot))
    assert await region.find(1) is None
    assert reported[Event.FOREIGN] == 1
    assert await fill(region, await leased(region), 7) is Fill.STORED
    found = await region.find(1)
    assert found is not None
    assert found.value == Thing(name="thing", version=7)


async def test_a_key_of_a_foreign_type_is_a_miss_and_is_overwritten(region: Region[int, Thing], redis: Redis) -> None:
    await redis.hset("things:{1}", mapping={"name": "thing"})
    assert await region.find(1) is None
    await region.invalidate(1, 1)
    await redis.hset("things:{1}", mapping={"name": "thing"})
    assert await fill(region, await leased(region), 1) is Fill.STORED


async def test_freshness_is_judged_by_the_clock_of_redis(region: Region[int, Thing], clock: RedisClock) -> None:
    await fill(region, await leased(region), 1)
    clock.set(clock.now() + 301_000)
    assert await region.find(1) is None
    # The lookup uses Redis' own clock, finds the value fresh, and corrects our copy of the clock.
    assert isinstance(await region.lookup(1), Reading)
    assert isinstance(await region.find(1), Reading)


async def test_an_age_is_never_negative_when_our_copy_of_the_clock_is_behind(
    region: Region[int, Thing], clock: RedisClock
) -> None:
    await fill(region, await leased(region), 1)
    clock.set(clock.now() - 5_000)
    found = await region.find(1)
    assert found is not None
    assert found.age == timedelta(0)


async def test_many_keys_are_one_round_trip(region: Region[int, Thing], redis: Redis) -> None:
    await redis.config_resetstat()
    await region.find_all(list(range(100)))
    await asyncio.gather(*(region.find(key) for key in range(100)))
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == 2


async def test_no_call_to_redis_has_more_than_500_keys(region: Region[int, Thing], redis: Redis) -> None:
    for key in (0, 1_100):
        await region.fill(key, await leased(region, key), thing(1))
    await redis.config_resetstat()
    found = await region.find_all([*range(1_101), 0])
    assert [place for place, reading in enumerate(found) if reading is not None] == [0, 1_100, 1_101]
    assert (await redis.info("commandstats"))["cmdstat_mget"]["calls"] == 3


async def test_a_script_that_redis_has_forgotten_is_sent_again(region: Region[int, Thing], redis: Redis) -> None:
    await leased(region)
    await redis.script_flush()
    await leased(region, 2)


async def test_without_redis_every_question_raises_cache_unavailable(opened: Cache, reported: Counter[Event]) -> None:
    def observe(name: str, event: Event, took: timedelta, times: int) -> None:
        reported[event] += times

    async with open_redis("unix:///nowhere/redis.sock", timeout=A_MILLISECOND, connections=1) as redis:
        region: Region[int, Thing] = Region(
            replace(opened, redis=redis),
            "things",
            Thing,
            lifetimes=LIFETIMES,
            settled=settled,
            observe=observe,
        )
        for question in (region.find(1), region.find_all([1, 2]), region.lookup(1), region.try_invalidate(1, 1)):
            with pytest.raises(CacheUnavailable, match="Redis did not answer for things"):
                await question
        await region.invalidate(1, 1)  # Time settles it.
        # The loaded value is answered anyway.
        reading, became = await region.fill(1, "token", thing(1))
        assert (reading.value, became) == (Thing(name="thing", version=1), Fill.UNKNOWN)
        await region.release(1, "token")
    assert reported[Event.UNAVAILABLE] == 9  # The lookup and the fill also tried to release their leases.
    assert reported[Event.INVALIDATION_FAILED] == 1


async def test_a_socket_that_was_just_closed_counts_as_an_unavailable_redis(
    region: Region[int, Thing], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Redis accepts a connection and closes it before redis-py has sent its handshake. uvloop then raises an error that
    redis-py does not know, and a read, or a fill after COMMIT, would be answered with 500."""

    async def closed(*_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation on <UnixTransport closed=True>; the handler is closed")

    monkeypatch.setattr(AbstractConnection, "send_packed_command", closed)
    with pytest.raises(CacheUnavailable):
        await region.find(1)
    _reading, became = await region.fill(1, "token", thing(1))
    assert became is Fill.UNKNOWN
