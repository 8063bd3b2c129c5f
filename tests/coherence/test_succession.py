"""Which Redis is believed when there are two, or when Redis or Postgres is no longer what it was."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import CacheError, CacheUnavailable, Outcome
from app.embedded import Endpoints
from app.inventory.models import Setting
from app.schema import migrate
from tests.coherence.conftest import AGES, LOOKS, TAKES, UNDONE, Instance, NewInstance
from tests.eventually import PATIENCE, eventually
from tests.fresh_database import fresh_database
from tests.topologies.ways import Ways

pytestmark = pytest.mark.not_on("cluster", because="its nodes are believed one by one: holders/ has a model of that")

EPOCH = "SELECT max(n) FROM epochs"
BEGINS = "WITH claimed AS"
"""The statement by which an instance that has claimed begins the next epoch."""
IDS_FROM = "AS ids_from"
"""The question about the ledger that each process asks at its start."""
PARKED = r"^SELECT EXISTS \(SELECT FROM parked_views\)"
"""The question whether any views are parked."""
OTHERS = rf"(?s)^(?!.*{LOOKS}|{PARKED[1:]})"
"""Every statement except these two polls, the check whether a connection lives included."""


@pytest.fixture
async def first(endpoints: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """A Redis that belongs to the test, with the Postgres of all tests."""
    async with ways.another_redis() as url:
        yield Endpoints(url, endpoints.database_url)


@pytest.fixture
async def second(endpoints: Endpoints, ways: Ways) -> AsyncIterator[Endpoints]:
    """Another such Redis."""
    async with ways.another_redis() as url:
        yield Endpoints(url, endpoints.database_url)


async def answers_as_it_should(instance: Instance, user_id: int, name: str) -> None:
    """Returns when a read is a hit. Every read until then must answer this name, too."""

    async def hits() -> bool:
        reading = await instance.users.get(user_id)
        assert reading.value is not None
        assert reading.value.name == name
        return reading.outcome is Outcome.HIT

    await eventually(hits)


async def beats_until_it_doubts(instance: Instance) -> int:
    """Returns how many beats its relay has left when it stops believing Redis."""
    await instance.believes_no_more()
    return instance.redis.count("^BEAT ")


async def takes_views(instance: Instance) -> bool:
    """Whether the instance accepts a page view."""
    try:
        await instance.resources.page_views.add("home", 1)
    except CacheError:
        return False
    return True


async def test_a_connection_to_the_former_redis_is_not_used_again(
    new_instance: NewInstance, ada: int, first: Endpoints, second: Endpoints
) -> None:
    """A has two connections to X, and one of them is in use
    the name is moved to Y, and all connections but that one are cut: A connects to Y, which is believed
    the one in use returns to the pool: R on A would get it, and store the row in X
                                        W commits the new row, and invalidates on Y
    R on A would get it again, and hit the old row
    """
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    async with (
        Redis.from_url(first.redis_url, protocol=2) as old,
        Redis.from_url(second.redis_url, protocol=2) as new,
    ):

        @asynccontextmanager
        async def one_in_use() -> AsyncIterator[None]:
            """Holds the connection that was returned last, and returns it at the end."""
            waits = asyncio.ensure_future(a.resources.cache.caches[0].redis.blpop(["nothing"], timeout=0))

            async def is_blocked() -> bool:
                return any([(await redis.info("clients"))["blocked_clients"] for redis in (old, new)])

            await eventually(is_blocked)
            yield
            for redis in (old, new):
                await redis.rpush("nothing", "")
            await asyncio.wait_for(waits, PATIENCE)
            for redis in (old, new):
                await redis.delete("nothing")

        async with one_in_use():
            a.redis.move_to(second.redis_url)
            for connection in await old.client_list():
                if connection["cmd"] != "blpop":
                    await old.client_kill_filter(_id=connection["id"], skipme=True)
            await answers_as_it_should(a, ada, "Ada Lovelace")
        assert await a.name(ada) == "Ada Lovelace"
        for name in ("Ada King", "Ada Byron"):
            async with one_in_use():
                await a.rename(ada, name)
            for _ in range(10):
                assert await a.name(ada) == name


async def test_an_idle_instance_asks_postgres_one_question_a_poll_and_nothing_else(
    new_instance: NewInstance, first: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No check of the connection comes before the question, and an idle flusher asks nothing."""
    monkeypatch.setattr("app.page_views.parking.EVERY", timedelta(milliseconds=50))
    a = await new_instance(endpoints=first)
    await a.believes()

    async def has_begun() -> bool:
        # An epoch makes all connections anew, and each is checked first.
        return a.postgres.count(PARKED) >= parked + 2 and a.postgres.count(IDS_FROM) > 0

    parked = a.postgres.count(PARKED)
    await eventually(has_begun)
    await a.polls()
    beats, looks, parked = a.redis.count("^BEAT "), a.postgres.count(LOOKS), a.postgres.count(PARKED)
    others = a.postgres.count(OTHERS)
    for _ in range(5):
        await a.polls()
    # One of the two counts may include a poll that was in flight.
    assert abs((a.postgres.count(LOOKS) - looks) - (a.redis.count("^BEAT ") - beats)) <= 1
    assert a.postgres.count(PARKED) > parked
    assert a.postgres.count(OTHERS) == others


async def test_a_relay_with_many_changes_polls_again_before_each_batch(
    new_instance: NewInstance, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """Somebody changes 10,000 rows in SQL, which A delivers in one poll
    B, on another Redis, claims meanwhile: A would neither poll nor refute, and B would be believed
    """
    a = await new_instance(endpoints=first)
    await a.believes()
    await a.settles()
    beats, taken = a.redis.count("^BEAT "), a.postgres.count(TAKES)
    await sql.execute(
        "INSERT INTO products (sku, name, price) SELECT 'P' || i, 'P', '1' FROM generate_series(1, 10000) i"
    )
    await a.settles()
    assert a.postgres.count(TAKES) - taken >= 5
    assert a.redis.count("^BEAT ") - beats >= a.postgres.count(TAKES) - taken


async def test_an_operator_can_begin_another_epoch_in_sql(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """The row is changed without a trace, as when files are put back that nobody can tell from the old ones."""
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    epoch = await sql.fetchval(EPOCH)
    await sql.execute("DELETE FROM outbox")
    await sql.execute("SET session_replication_role = replica")
    await sql.execute("UPDATE users SET name = 'Ada King'")
    await sql.execute("RESET session_replication_role")
    assert await a.name(ada) == "Ada Lovelace"
    await sql.execute("UPDATE epochs SET run = 'put back'")

    async def next_epoch() -> bool:
        return bool(await sql.fetchval(EPOCH) > epoch)

    await eventually(next_epoch)
    await answers_as_it_should(a, ada, "Ada King")


async def test_a_change_told_only_to_a_redis_no_longer_believed_stays_undone(
    new_instance: NewInstance, first: Endpoints, cup: str, sql: asyncpg.Connection
) -> None:
    """A is a member, and is about to take a change of the cup
    another instance begins the next epoch, with another Redis
    A takes the change, tells its own Redis, and would mark it as done: nobody would tell the other Redis
    """
    a = await new_instance(endpoints=first)
    await a.believes()
    await a.settles()
    async with a.postgres.holding(TAKES) as takes, a.postgres.holding(BEGINS) as begins:
        await sql.execute("UPDATE products SET price = '7' WHERE sku = $1", cup)
        await asyncio.wait_for(takes.arrived.wait(), PATIENCE)
        await sql.execute(
            "INSERT INTO epochs (n, token, run, history)"
            " SELECT n + 1, 'theirs', 'another', history FROM epochs ORDER BY n DESC LIMIT 1"
        )
        takes.release()
        # A has detected that, and claims its own epoch, in which the change would be delivered.
        await asyncio.wait_for(begins.arrived.wait(), PATIENCE)
        assert await sql.fetchval(UNDONE) == 1
    await a.settles()


@pytest.mark.parametrize(
    ("field", "value"), [("telling", None), ("history", "nothing"), ("claim", "theirs"), ("position", "1e9")]
)
async def test_a_record_changed_by_hand_is_tolerated(
    new_instance: NewInstance, ada: int, first: Endpoints, field: str, value: str | None
) -> None:
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    async with Redis.from_url(first.redis_url, protocol=2) as redis:
        await (redis.hdel("epoch", field) if value is None else redis.hset("epoch", field, value))
    for _ in range(3):
        await a.polls()
    await answers_as_it_should(a, ada, "Ada Lovelace")
    await a.believes()


async def test_only_one_of_two_redises_is_believed_and_instances_on_the_other_bypass_it(
    new_instance: NewInstance, ada: int, first: Endpoints, second: Endpoints, sql: asyncpg.Connection
) -> None:
    """A is on X, and B, which starts later, on Y: B would keep its own values there, and A's writes reach only X."""
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    epoch = await sql.fetchval(EPOCH)
    b = await new_instance(endpoints=second)
    for number in range(10):
        for writer in (a, b):
            name = f"Ada {number} of {'ab'[writer is b]}"
            await writer.rename(ada, name)
            assert [await a.name(ada), await b.name(ada)] == [name, name]
    await a.resources.inventory.put("CUP", Setting(30))
    assert (await b.users.get(ada)).outcome is Outcome.BYPASSED
    assert await b.quantity("CUP") == 30
    with pytest.raises(CacheUnavailable, match="another Redis"):
        await b.resources.inventory.put("CUP", Setting(20))
    with pytest.raises(CacheUnavailable, match="another Redis"):
        await b.resources.page_views.add("home", 1)
    assert await a.quantity("CUP") == 30
    assert await takes_views(a)
    assert await sql.fetchval(EPOCH) == epoch, "Nobody takes X away from A."


async def test_trust_in_one_redis_has_ended_when_the_epoch_of_another_begins(
    new_instance: NewInstance, ada: int, first: Endpoints, second: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A polls on X, and its query of Postgres stalls: it trusts for a while, and does not see the claim
    B, on Y, claims: if it began the next epoch at its next poll, both Redises would be believed
    """
    monkeypatch.setattr("app.caching.trust.TRUST", timedelta(seconds=3))
    monkeypatch.setattr("app.coherence.candidacy.SETTLED", timedelta(seconds=3.5))
    monkeypatch.setattr("app.coherence.relay.PATIENCE", AGES)
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    await a.hits(ada)
    async with b.postgres.holding("^UPDATE epochs SET claim =") as claim:
        b.redis.move_to(second.redis_url)
        b.redis.cut()
        await asyncio.wait_for(claim.arrived.wait(), PATIENCE)
        async with a.postgres.holding(LOOKS) as look, b.postgres.holding(BEGINS) as begins:
            await asyncio.wait_for(look.arrived.wait(), PATIENCE)
            claim.release()
            await asyncio.wait_for(begins.arrived.wait(), PATIENCE)
            assert not a.trust.held


async def test_a_refuted_claim_begins_no_epoch(
    new_instance: NewInstance, ada: int, first: Endpoints, second: Endpoints, sql: asyncpg.Connection
) -> None:
    """B, on Y, has claimed, and waited while A stood still; B is about to begin the next epoch
    A polls, finds the claim, refutes it, and goes on to believe X
    B's statement arrives: two Redises would be believed
    """
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    await a.hits(ada)
    epoch = await sql.fetchval(EPOCH)

    async def is_refuted() -> bool:
        return await sql.fetchval("SELECT claim FROM epochs ORDER BY n DESC LIMIT 1") is None

    async with b.postgres.holding(BEGINS) as begins:
        async with a.postgres.holding(LOOKS):
            b.redis.move_to(second.redis_url)
            b.redis.cut()
            await asyncio.wait_for(begins.arrived.wait(), PATIENCE)
        await eventually(is_refuted)
    await b.polls()
    assert await sql.fetchval(EPOCH) == epoch
    await a.hits(ada)


async def test_a_member_that_refutes_a_claim_too_late_stays_a_member(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """A and B see the same claim · A refutes it · B's refutation finds none: no reason to leave, nor to claim"""
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    await a.hits(ada)
    await b.hits(ada)
    losses = a.trust.losses, b.trust.losses
    async with b.postgres.holding("^UPDATE epochs SET claim = NULL") as later:
        async with a.postgres.holding("^UPDATE epochs SET claim = NULL") as sooner:
            await sql.execute("UPDATE epochs SET claim = 'c', claimed_run = 'r' WHERE n = (SELECT max(n) FROM epochs)")
            await asyncio.wait_for(later.arrived.wait(), PATIENCE)
            await asyncio.wait_for(sooner.arrived.wait(), PATIENCE)

        async def is_refuted() -> bool:
            return await sql.fetchval("SELECT claim FROM epochs ORDER BY n DESC LIMIT 1") is None

        await eventually(is_refuted)
    for instance in (a, b):
        await instance.polls()
    assert (a.trust.losses, b.trust.losses) == losses


async def test_a_new_redis_is_believed_once_no_instance_uses_the_old_one(
    new_instance: NewInstance, ada: int, first: Endpoints, second: Endpoints, sql: asyncpg.Connection
) -> None:
    """A rolling change of REDIS_URL, there and back: A moves to Y before B does, and both return to X."""
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    await a.hits(ada)
    for number, target in enumerate((second, first, second)):
        name = f"Ada {number}"
        for last, mover in enumerate((a, b)):
            mover.redis.move_to(target.redis_url)
            mover.redis.cut()
            if not last:
                await mover.believes_no_more()
            name += "!"
            await mover.rename(ada, name)
            assert [await a.name(ada), await b.name(ada)] == [name, name]
        await answers_as_it_should(a, ada, name)
        await answers_as_it_should(b, ada, name)
        await eventually(lambda: takes_views(a))
        await eventually(lambda: takes_views(b))


async def test_views_accepted_in_the_former_redis_are_flushed(
    new_instance: NewInstance, first: Endpoints, second: Endpoints, sql: asyncpg.Connection
) -> None:
    """A accepts views in X, and nothing is flushed yet · B, alone on Y, is believed once A is gone
    A comes back on X: it accepts no views, and flushes those that it accepted before
    """
    a = await new_instance(endpoints=first)
    async with a.postgres.holding("INSERT INTO applied") as held:
        assert await takes_views(a)
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        a.postgres.refuse()
        b = await new_instance(endpoints=second)
        await eventually(lambda: takes_views(b))
    a.postgres.heal()

    async def both() -> bool:
        return bool(await sql.fetchval("SELECT views FROM page_views WHERE page = 'home'") == 2)

    async def nothing_is_at_risk() -> bool:
        return not a.resources.page_views.receipts.amount

    await eventually(both)
    await a.believes_no_more()
    assert not await takes_views(a)
    await eventually(nothing_is_at_risk)


async def test_the_next_poll_detects_a_redis_that_went_back_without_a_restart(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """SWAPDB removes the values · A commits the new row, and invalidates where nothing is · SWAPDB brings them back
    R on A or B would hit the old value until its TTL expires
    """
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    await b.hits(ada)
    epoch = await sql.fetchval(EPOCH)
    async with Redis.from_url(first.redis_url, protocol=2) as redis:
        await redis.swapdb(0, 1)

        async def told_anew() -> bool:
            return await redis.hget("epoch", "epoch") is not None

        await eventually(told_anew)
        await a.rename(ada, "Ada King")
        await a.settles()
        for instance in (a, b):
            await instance.polls()
        before = [instance.redis.count("^BEAT ") for instance in (a, b)]
        finding = [asyncio.create_task(beats_until_it_doubts(instance)) for instance in (a, b)]
        await redis.swapdb(0, 1)
        assert b"Lovelace" in (await redis.get(f"users:{{{ada}}}") or b"")

    async def next_epoch() -> bool:
        return bool(await sql.fetchval(EPOCH) > epoch)

    # One beat that was in flight, and those of the poll that detects it, which asks twice.
    assert all(after - beats <= 3 for after, beats in zip(await asyncio.gather(*finding), before, strict=True))
    await eventually(next_epoch)
    for instance in (a, b):
        await answers_as_it_should(instance, ada, "Ada King")


@pytest.mark.usefixtures("unbounded_trust")
async def test_a_redis_that_went_back_is_not_believed_even_before_postgres_answers(
    new_instance: NewInstance, ada: int, first: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SWAPDB there and back, and a new row in between · A detects it by its beat, B by the record that A has voided
    Postgres does not answer their next query yet: R on A or B would hit the old value until it does
    """
    monkeypatch.setattr("app.coherence.relay.PATIENCE", AGES)
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    async with Redis.from_url(first.redis_url, protocol=2) as redis:
        await a.hits(ada)
        await redis.swapdb(0, 1)
        for instance in (a, b):
            await instance.polls()
        await a.rename(ada, "Ada King")
        await a.settles()
        async with AsyncExitStack() as held:
            beats = [await held.enter_async_context(instance.redis.holding("^BEAT ")) for instance in (a, b)]
            for beat in beats:
                await asyncio.wait_for(beat.arrived.wait(), PATIENCE)
            await redis.swapdb(0, 1)
            for instance, beat in zip((a, b), beats, strict=True):
                look = await held.enter_async_context(instance.postgres.holding(LOOKS))
                beat.release()
                await asyncio.wait_for(look.arrived.wait(), PATIENCE)
                assert await instance.name(ada) == "Ada King"


async def test_a_new_instance_does_not_believe_a_redis_whose_record_another_one_has_voided(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """SWAPDB there and back, and a new row in between: A detects it, and stalls before it can tell Postgres
    B starts: it misses no beat, and all that it finds would fit: R on B would hit the old value
    """
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    async with Redis.from_url(first.redis_url, protocol=2) as redis:
        await redis.swapdb(0, 1)
        await a.polls()
        await a.rename(ada, "Ada King")
        await a.settles()
        # That was more than a minute ago: an instance that joins the epoch does not tell Redis of it again.
        await sql.execute("DELETE FROM outbox")
        async with a.postgres.holding("^UPDATE epochs SET claim") as held:
            await redis.swapdb(0, 1)
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            b = await new_instance(endpoints=first)
            await answers_as_it_should(b, ada, "Ada King")


async def test_a_redis_that_was_emptied_is_still_believed(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """FLUSHALL also removes the record, but a missing value is only a miss: two instances write the record again."""
    a, b = await new_instance(endpoints=first), await new_instance(endpoints=first)
    await b.hits(ada)
    epoch = await sql.fetchval(EPOCH)
    async with Redis.from_url(first.redis_url, protocol=2) as redis:
        for _ in range(3):
            await redis.flushall()
            for instance in (a, b):
                await answers_as_it_should(instance, ada, "Ada Lovelace")
    assert await sql.fetchval(EPOCH) == epoch


async def test_a_redis_emptied_again_while_its_record_is_written_is_still_believed(
    new_instance: NewInstance, ada: int, first: Endpoints
) -> None:
    """FLUSHALL · A writes its epoch into Redis again · FLUSHALL · A polls: the record that it just wrote is gone"""
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    losses = a.trust.losses
    async with Redis.from_url(first.redis_url, protocol=2) as redis, a.redis.holding_replies("^TELL ") as told:
        await redis.flushall()
        await asyncio.wait_for(told.arrived.wait(), PATIENCE)
        await redis.flushall()
        told.release()
        await a.polls()
    await a.hits(ada)
    assert a.trust.losses == losses


async def test_data_of_another_deployment_in_the_same_redis_is_neither_believed_nor_flushed(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    """A and B share a Redis, and each has its own database: B would answer A's rows, and count A's views as its own."""
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    async with fresh_database(first.database_url) as database_url:
        await asyncio.to_thread(migrate, database_url)
        others = await asyncpg.connect(database_url)
        await others.execute("ALTER TABLE users ALTER COLUMN id RESTART WITH 1")
        await others.execute(
            "INSERT INTO users (id, name, email) OVERRIDING SYSTEM VALUE VALUES ($1, 'Eve', 'e@x.y')", ada
        )
        b = await new_instance(endpoints=Endpoints(first.redis_url, database_url))
        assert await b.name(ada) == "Eve"
        assert not await takes_views(b)
        with pytest.raises(CacheUnavailable, match="another deployment: set FOURWAYS_PREFIX, or name another Redis"):
            await b.resources.inventory.put("CUP", Setting(30))
        async with a.postgres.holding("INSERT INTO applied") as held:
            for _ in range(20):
                assert await takes_views(a)
            await asyncio.wait_for(held.arrived.wait(), PATIENCE)
            await b.polls()
            assert await others.fetchval("SELECT count(*) FROM page_views") == 0
        # Its Postgres falls silent: now it only knows Redis, and still knows to whom that belongs.
        b.postgres.silence()
        for _ in range(3):
            await b.polls()
            assert not await takes_views(b)
        b.postgres.heal()
        await others.close()
        assert await a.name(ada) == "Ada Lovelace"
        await a.hits(ada)


async def test_two_deployments_with_prefixes_share_a_redis(
    new_instance: NewInstance, ada: int, first: Endpoints, sql: asyncpg.Connection
) -> None:
    a = await new_instance(endpoints=first)
    await a.hits(ada)
    async with fresh_database(first.database_url) as database_url:
        await asyncio.to_thread(migrate, database_url)
        b = await new_instance(endpoints=Endpoints(first.redis_url, database_url), prefix="other:")
        assert await b.name(ada) is None
        assert await takes_views(b)
        assert (await b.resources.page_views.get("home")).amount == 1
        assert (await a.resources.page_views.get("home")).amount == 0
        await b.believes()
    async with Redis.from_url(first.redis_url, protocol=2) as redis:
        names = set(await redis.keys("other:*"))
    assert names >= {b"other:epoch", b"other:views:{0}"}
