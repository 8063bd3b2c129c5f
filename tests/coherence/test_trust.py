"""No read that begins after a write was answered returns older data, even when an instance cannot reach its stores.

A write whose invalidation failed is answered once nobody reads the old value any more: another instance's relay has
delivered the change, or no instance believes a Redis that was not told of it. The rules are B5 to B9.
"""

import asyncio
import signal
import time
from collections import Counter
from typing import Literal

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import SETTLED, Outcome, Trust
from app.coherence import delivery as deliveries
from app.embedded import Endpoints
from tests.coherence.conftest import SOON, TAKES, UNDONE, Instance, NewInstance, NewRelay
from tests.eventually import PATIENCE, eventually
from tests.keyed import keyed
from tests.readings import readings
from tests.service import serving
from tests.topologies.ways import Ways

LOOKS = r"^\s*SELECT coalesce\(\(SELECT max\(id\) FROM outbox"
"""The statement by which a relay reads the outbox at the beginning of a poll."""
LOOKS_AGAIN = r"^SELECT .* EXISTS .* outbox.id <="
"""The statement by which it learns whether all that it saw then is done."""


async def is_cut_off(instance: Instance, how: Literal["refuse", "silence"]) -> None:
    """Cuts the instance off from Redis."""
    instance.redis.refuse() if how == "refuse" else instance.redis.silence()


@pytest.mark.parametrize("how", ["refuse", "silence"])
async def test_a_write_without_redis_is_answered_once_another_instance_has_delivered_it(
    unbounded_trust: None, new_instance: NewInstance, ada: int, how: Literal["refuse", "silence"]
) -> None:
    """A cannot reach Redis:

    A commits the new row, and fails to invalidate
                                        B believes Redis, and hits the old value: A has not answered
                                        B's relay takes A's row, and delivers it
    A answers                           B reads the new row
    """
    a, b = await new_instance(redis_timeout=0.2), await new_instance()
    await b.hits(ada)
    async with b.postgres.holding(TAKES) as held:
        await is_cut_off(a, how)
        write = asyncio.create_task(a.rename(ada, "Ada King"))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)

        async def has_failed() -> bool:
            return a.happened("invalidation_failed") == 1

        await eventually(has_failed)
        reading = await b.users.get(ada)
        assert reading.outcome is Outcome.HIT
        assert reading.value is not None
        assert reading.value.name == "Ada Lovelace"
        assert not write.done()
        held.release()
        await asyncio.wait_for(write, SOON)
    assert await b.name(ada) == "Ada King"
    assert await a.name(ada) == "Ada King"


async def test_a_product_written_without_redis_is_answered_once_another_instance_has_delivered_it(
    unbounded_trust: None, new_instance: NewInstance, cup: str
) -> None:
    """The same as above."""
    a, b = await new_instance(), await new_instance()
    assert await b.price(cup) == "6.20"
    async with b.postgres.holding(TAKES) as held:
        a.redis.refuse()
        write = asyncio.create_task(a.products.change(cup, {"price": "7.00"}, None))
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)

        async def has_failed() -> bool:
            return a.happened("invalidation_failed", "products") == 1

        await eventually(has_failed)
        (reading,) = readings(await b.products.get_many([cup]))
        assert reading.outcome is Outcome.HIT
        assert reading.value is not None
        assert reading.value.price == "6.20"
        assert not write.done()
        held.release()
        await asyncio.wait_for(write, SOON)
    assert await b.price(cup) == "7.00"


async def test_a_write_without_redis_is_answered_once_time_has_settled_it(
    impatient: None, new_instance: NewInstance, ada: int, cup: str, hand: Redis
) -> None:
    """A cannot reach Redis, and B's relay cannot take a row:

    A commits the new row, and fails to invalidate
                                        B's relay sees the row, and does not get it: trust is not renewed
    SETTLED passes, A answers
                                        B bypasses Redis, which still holds the old value
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    assert await b.price(cup) == "6.20"
    async with b.postgres.holding(TAKES) as held:
        a.redis.refuse()
        began = time.monotonic()
        await asyncio.gather(a.rename(ada, "Ada King"), a.products.change(cup, {"price": "7.00"}, None))
        assert time.monotonic() - began >= SETTLED.total_seconds()
        reading = await b.users.get(ada)
        assert reading.outcome is Outcome.BYPASSED
        assert reading.value is not None
        assert reading.value.name == "Ada King"
        (product,) = readings(await b.products.get_many([cup]))
        assert product.value is not None
        assert product.value.price == await b.price(cup) == "7.00"
        assert b"Lovelace" in (await hand.get(f"users:{{{ada}}}") or b"")
        assert b"6.20" in (await hand.get("products:{CUP}") or b"")
        assert held.arrived.is_set()
        held.release()
    await b.hits(ada)
    assert await b.name(ada) == "Ada King"
    assert await b.price(cup) == "7.00"


async def test_an_instance_that_cannot_reach_redis_takes_no_changes(
    new_instance: NewInstance, ada: int, sql: asyncpg.Connection
) -> None:
    """A cannot reach Redis. If its relay took rows, they would be locked, and B's relay would skip them."""
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    a.redis.refuse()
    await a.believes_no_more()
    taken, failures = a.postgres.count(TAKES), a.resources.metrics.total("outbox_failures")
    async with b.postgres.holding(TAKES) as held:
        await sql.execute("UPDATE users SET name = 'Ada King'")

        async def has_tried_twice() -> bool:
            return a.resources.metrics.total("outbox_failures") >= failures + 3

        await eventually(has_tried_twice)
        held.release()
    await a.settles()
    assert a.postgres.count(TAKES) == taken
    await b.hits(ada)
    assert await b.name(ada) == "Ada King"


async def test_a_change_that_another_relay_has_taken_is_delivered_anyway(
    unbounded_trust: None, new_instance: NewInstance, ada: int, sql: asyncpg.Connection
) -> None:
    """A's relay takes the row of a change, and stalls before Redis
    B's relay finds nothing to take; it must neither believe Redis nor wait for A, and tells Redis itself
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    async with a.redis.holding("^INVALIDATE") as held, b.postgres.holding(TAKES) as kept:
        await sql.execute("UPDATE users SET name = 'Ada King'")
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await asyncio.wait_for(kept.arrived.wait(), PATIENCE)
        kept.release()

        async def is_new() -> bool:
            return await b.name(ada) == "Ada King"

        await eventually(is_new)
        await b.hits(ada)
        assert await sql.fetchval(UNDONE) == 1
        held.release()


async def test_after_an_outage_redis_is_believed_only_once_the_changes_are_delivered(
    new_instance: NewInstance, ada: int, hand: Redis
) -> None:
    """Nobody can reach Redis, for longer than SETTLED:

    A commits the new row, and answers after SETTLED
                                        B can reach Redis again, and leaves its beat; the row is not delivered yet
                                        R on B would hit the old value
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    a.redis.refuse()
    b.redis.refuse()
    await a.rename(ada, "Ada King")
    assert (await b.users.get(ada)).outcome is Outcome.BYPASSED
    async with b.postgres.holding(TAKES) as held:
        beats = b.redis.count("^BEAT")
        b.redis.heal()
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert b.redis.count("^BEAT") > beats
        assert all(cache.breaker.reachable for cache in b.resources.cache.caches)
        assert b.lost
        reading = await b.users.get(ada)
        assert reading.outcome is Outcome.BYPASSED
        assert reading.value is not None
        assert reading.value.name == "Ada King"
        assert b"Lovelace" in (await hand.get(f"users:{{{ada}}}") or b"")
        held.release()
    await b.hits(ada)
    assert await b.name(ada) == "Ada King"


async def test_an_instance_that_slept_through_an_outage_does_not_believe_redis_when_it_returns(
    unbounded_trust: None, new_instance: NewInstance, ada: int, sql: asyncpg.Connection, hand: Redis
) -> None:
    """Nobody can reach Redis:

    A commits the new row, and waits                B is idle: no call of its own fails, only its relay's
    Redis is back
                                                    R on B would hit the old value, if the relay had not noticed
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    a.redis.refuse()
    b.redis.refuse()
    write = asyncio.create_task(a.rename(ada, "Ada King"))
    await b.believes_no_more()

    async def is_committed() -> bool:
        return bool(await sql.fetchval(UNDONE) == 1)

    await eventually(is_committed)
    async with b.postgres.holding(TAKES) as held:
        b.redis.heal()
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        assert await b.name(ada) == "Ada King"
        assert not write.done()
        assert b"Lovelace" in (await hand.get(f"users:{{{ada}}}") or b"")
        held.release()
        await asyncio.wait_for(write, SOON)
    await b.hits(ada)
    assert await b.name(ada) == "Ada King"


@pytest.mark.not_on("cluster", because="this relay has the cache of one Redis")
async def test_a_constant_stream_of_changes_does_not_keep_redis_from_being_believed(
    new_relay: NewRelay, trust: Trust, sql: asyncpg.Connection
) -> None:
    """Somebody changes rows all the time: each delivery is followed by another change. The outbox never empties."""

    async def forget(key: str, version: int) -> None:
        await sql.execute("UPDATE products SET price = '7'")

    relay = await new_relay(forget)
    trust.lose("the test says so")
    await sql.execute("INSERT INTO products (sku, name, price) VALUES ('CUP', 'Cup', '6.20')")
    assert await asyncio.wait_for(relay.poll(), PATIENCE / 4) == 1
    assert await sql.fetchval(UNDONE) == 1
    assert not trust.lost


async def test_a_change_whose_delivery_is_in_doubt_is_delivered_again(
    new_instance: NewInstance, ada: int, sql: asyncpg.Connection
) -> None:
    """The relay takes a row, and gets no answer from Redis: the row is undone, and is delivered again."""
    a = await new_instance(redis_timeout=0.3)
    await a.hits(ada)
    before = a.redis.count("^INVALIDATE")
    lost = a.redis.drop_reply("^INVALIDATE")
    await sql.execute("UPDATE users SET name = 'Ada King'")
    await asyncio.wait_for(lost.dropped.wait(), PATIENCE)
    assert await sql.fetchval(UNDONE) == 1
    await a.settles()
    assert a.redis.count("^INVALIDATE") >= before + 2
    await a.hits(ada)
    assert await a.name(ada) == "Ada King"


async def test_an_instance_whose_relay_stalls_does_not_believe_its_cache(
    impatient: None, new_instance: NewInstance, ada: int, hand: Redis
) -> None:
    """B's relay stalls before Redis
    A commits the new row, cannot reach Redis, and answers after SETTLED
                                        R on B waits for news, and none comes: it would hit the old value
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    async with b.redis.holding("^BEAT") as held:
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        a.redis.refuse()
        await a.rename(ada, "Ada King")
        assert not b.lost
        reading = await b.users.get(ada)
        assert reading.outcome is Outcome.BYPASSED
        assert reading.value is not None
        assert reading.value.name == "Ada King"
        assert b"Lovelace" in (await hand.get(f"users:{{{ada}}}") or b"")


async def test_a_stopped_process_does_not_believe_its_cache_when_it_resumes(
    endpoints: Endpoints, named: Endpoints, ways: Ways, new_instance: NewInstance, ada: int, hand: Redis
) -> None:
    """B is a separate process:

    B is stopped (SIGSTOP) while its relay's beat is in flight
    A commits the new row, cannot reach Redis, and answers after SETTLED
    R asks B
    B resumes, and finds R's question and the answer to its beat: it would hit the old value
    """
    a = await new_instance()
    async with (
        ways.redis(endpoints.redis_url) as wire,
        serving(wire.url, named.database_url, FOURWAYS_REDIS_TIMEOUT="10") as service,
        keyed(service, 1) as (reader,),
    ):

        async def hits() -> bool:
            return "; hit" in (await reader.ask(f"/users/{ada}")).headers["cache-status"]

        await eventually(hits)
        async with wire.holding_replies("^BEAT") as held:
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            service.process.send_signal(signal.SIGSTOP)
        try:
            a.redis.refuse()
            await a.rename(ada, "Ada King")
            assert b"Lovelace" in (await hand.get(f"users:{{{ada}}}") or b"")
            await reader.send(f"/users/{ada}")
        finally:
            service.process.send_signal(signal.SIGCONT)
        assert (await reader.answer()).json()["name"] == "Ada King"


async def test_a_crowd_that_finds_trust_lapsed_continues_with_the_first_news(
    new_instance: NewInstance, ada: int
) -> None:
    """The relay is late, and finds that nothing has changed: the readers that waited for it hit, and do not all ask the
    database at once."""
    b = await new_instance()
    await b.hits(ada)
    async with b.redis.holding("^BEAT") as held:
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await b.believes_no_more()
        crowd = [asyncio.create_task(b.users.get(ada)) for _ in range(100)]
        await asyncio.wait(crowd, timeout=0)
        held.release()
        outcomes = Counter([(await reader).outcome for reader in crowd])
    assert outcomes == {Outcome.HIT: 100}


async def test_news_of_trust_that_has_already_ended_does_not_restore_belief(
    new_instance: NewInstance, ada: int, sql: asyncpg.Connection
) -> None:
    """B's relay delivers a change, asks whether all is done, and the answer is slow
    A commits the new row, cannot reach Redis, and answers after SETTLED
                                        R on B finds trust lapsed, and waits for news
    the answer comes: all was done when B's relay began, longer than TRUST ago
                                        R would hit the old value, and would not be told that nobody has verified it
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    async with b.postgres.holding_replies(LOOKS_AGAIN) as held, a.postgres.holding(TAKES):
        await sql.execute("INSERT INTO products (sku, name, price) VALUES ('CUP', 'Cup', '6.20')")
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        a.redis.refuse()
        await a.rename(ada, "Ada King")
        reader = asyncio.create_task(b.users.get(ada))
        await asyncio.wait({reader}, timeout=0)
        held.release()
        reading = await reader
        assert reading.value is not None
        assert reading.value.name == "Ada King" or not reading.verified


@pytest.mark.sampled("cluster-direct")
async def test_a_hit_that_was_asked_for_before_the_outbox_was_read_is_not_verified(
    new_instance: NewInstance, ada: int
) -> None:
    """B's relay reads the outbox, and Postgres answers late: B believes Redis, and cannot verify its hits
    R on B asks Redis                   Redis answers with the value of now, and the answer is slow
                                        A commits the new row, invalidates, and answers
    Postgres answers, and B verifies hits from now on
    R gets its answer: it is older than that
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    async with b.redis.holding_replies("^M?GET users:") as answer:
        async with b.postgres.holding(LOOKS) as look:
            await asyncio.wait_for(look.arrived.wait(), PATIENCE)
            await eventually(b.is_unverified)
            reader = asyncio.create_task(b.users.get(ada))
            await asyncio.wait_for(answer.arrived.wait(), PATIENCE)
            await a.rename(ada, "Ada King")
        await eventually(b.is_verified)
        answer.release()
        reading = await reader
    assert reading.value is not None
    assert reading.value.name == "Ada King" or not reading.verified


async def test_hits_are_not_verified_while_the_query_of_the_outbox_is_slow(new_instance: NewInstance, ada: int) -> None:
    """B's relay reads the outbox, and Postgres answers late: it may be away for everybody
                                        meanwhile it beats Redis, and believes it
    A commits the new row, cannot reach Redis, and answers after SETTLED
                                        R on B hits the old value, and is told that nobody has verified it
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    async with b.postgres.holding(LOOKS) as held:
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        a.redis.refuse()
        await a.rename(ada, "Ada King")
        assert not (await b.users.get(ada)).verified

    async def is_verified() -> bool:
        return (await b.users.get(ada)).verified

    await eventually(is_verified)
    assert await b.name(ada) == "Ada King"


async def test_hits_are_not_verified_when_only_this_instance_has_lost_postgres(
    new_instance: NewInstance, ada: int
) -> None:
    """B has lost Postgres, and believes Redis while that answers: perhaps nobody can change a row
    A has not lost it: it commits the new row, cannot reach Redis, and answers after SETTLED
                                        R on B hits the old value, and is told that nobody has verified it
    """
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    b.postgres.refuse()
    a.redis.refuse()
    await a.rename(ada, "Ada King")
    assert not (await b.users.get(ada)).verified


async def test_hits_are_not_verified_while_the_relay_works_through_thousands_of_changes(
    new_instance: NewInstance, ada: int, sql: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody changes rows by the thousand: B's relay delivers them batch by batch, and renews trust after each
    A commits the new row, cannot reach Redis, and answers after SETTLED
                                        B has not come to that row yet: R on B hits the old value, and is told so
    """
    monkeypatch.setattr("app.coherence.outbox.BATCH", 1)
    monkeypatch.setattr(deliveries, "BATCH", 1)
    a, b = await new_instance(), await new_instance()
    await b.hits(ada)
    a.redis.refuse()
    b.redis.delay(0.02)
    await sql.execute(
        "INSERT INTO products (sku, name, price) SELECT 'SKU-' || n, 'Cup', '6.20' FROM generate_series(1, 300) n"
    )
    await a.rename(ada, "Ada King")
    assert await sql.fetchval("SELECT count(*) FROM outbox WHERE done_at IS NULL AND resource = 'users'") == 1
    assert not (await b.users.get(ada)).verified
