"""Every view that was answered with 202 is counted exactly once, whatever dies. A view that was answered with an error
is counted once or not at all.

Each seed is a separate storm on separate pages: eight clients view pages, one or many at a time, with and without an
Idempotency-Key, two read the totals, three worker processes answer, and faults are injected meanwhile (`storm.py`).

What is promised of totals during a storm:

- While Redis keeps what it has confirmed, a total is never less than what was answered or told before, by any worker to
  any client, and never more than what was sent.
- When Redis has lost something, a total may lack it until the process that accepted it has noticed (it checks each
  second) and accepted it again. The total is never less than what Postgres had before, and never more than what was
  sent. The test prints for how long something was lacking.
- A call with an Idempotency-Key that is repeated after Redis has lost the key may count twice.

With AOF `everysec`, `kill -9` of Redis alone may lose what it has confirmed: it belongs to the storms of loss.
"""

import random
import time
from collections.abc import AsyncIterator

import pytest

from tests.eventually import eventually
from tests.faults.postgres_wire import PostgresWire
from tests.faults.redis_wire import RedisWire
from tests.faults.stores import Stores
from tests.histories.exactly_once.application import Application
from tests.histories.exactly_once.books import Books
from tests.histories.exactly_once.crowd import enough, settled, visiting
from tests.histories.exactly_once.ends import carried, stored
from tests.histories.exactly_once.storm import Storm
from tests.topologies.topology import seeded

SEEDS = {
    "redis-direct": range(36),
    "redis-pooled": range(99, 119),
    "sentinel-direct": range(200, 210),
    "sentinel-pooled": range(300, 310),
}
SAMPLE = {
    "redis-direct": (1, 8, 13),
    # Postgres crashes, and does not answer a COMMIT.
    "redis-pooled": (118,),
}
HASTY = {"FOURWAYS_REDIS_TIMEOUT": "0.25", "FOURWAYS_DATABASE_TIMEOUT": "1"}
"""Shorter than the faults, so that timeouts expire in the middle of them."""
ENOUGH, ANSWERED = 1000, 100
"""A storm that has counted fewer views than this, or has answered fewer calls, proves little."""


@pytest.fixture(scope="module")
def past() -> list[Books]:
    """The books of the rounds that are over."""
    return []


@pytest.fixture(scope="module")
async def application(redis_wire: RedisWire, postgres_wire: PostgresWire) -> AsyncIterator[Application]:
    """The application, which reaches its stores only through wires."""
    async with Application.running(
        redis_wire.url, postgres_wire.url, HASTY, app="tests.histories.exactly_once.hurried:app"
    ) as application:
        yield application


@pytest.mark.parametrize(("topology", "seed"), seeded(SEEDS, SAMPLE), indirect=["topology"], scope="package")
async def test_each_view_is_counted_exactly_once_whatever_dies(
    stores: Stores,
    redis_wire: RedisWire,
    postgres_wire: PostgresWire,
    application: Application,
    past: list[Books],
    capsys: pytest.CaptureFixture[str],
    seed: int,
) -> None:
    randomness, books, loses = random.Random(seed), Books(), seed % 2 == 1
    storm = Storm(
        stores, redis_wire, postgres_wire, application, books, random.Random(randomness.random()), loses=loses
    )
    before = await application.told()
    began = time.monotonic()
    async with visiting(f"{seed}", application, stores.endpoints, books, randomness):
        await storm.strike()
        await eventually(lambda: enough(books, ENOUGH))
        struck = time.monotonic()
    took, found = await settled(application, stores.endpoints, books)
    recovered = 0
    if loses:
        recovered = (await application.told())["recovered"] - before["recovered"]
    elif not any(strike.fault == "all workers killed" for strike in storm.strikes):
        # These numbers are those of one supervisor.
        assert (await application.told())["recovered"] == before["recovered"], "Nothing was lost."
    with capsys.disabled():
        strikes = ", ".join(f"{strike.fault} ({strike.calls})" for strike in storm.strikes)
        doubtful = (books.sent - books.counted).total()
        counts = ", ".join(f"{number} {what}" for what, number in sorted(books.counts.items()))
        print(
            f"\nSeed {seed:2}: {strikes}: {books.counted.total():,} views answered, {doubtful} in doubt, {recovered}"
            f" taken on again; {counts}; whole {books.whole_after:.1f} s after a loss; {struck - began:.1f} s, settled"
            f" {took:.1f} s later",
            end="",
        )
    assert books.wrong == []
    assert books.check(found) == []
    assert (await application.told())["lost"] == 0
    past.append(books)
    _check_worth(books, storm)


async def test_nothing_is_counted_after_the_storms(stores: Stores, application: Application, past: list[Books]) -> None:
    """Views that Redis lost and a process accepted again, late answers, takeovers of entries: all of that is over."""
    await application.stop()
    assert await carried(stores.endpoints.redis_url)
    found = await stored(stores.endpoints.database_url)
    assert [wrong for books in past for wrong in books.check(found)] == []


def _check_worth(books: Books, storm: Storm) -> None:
    """A round proves nothing when few calls were answered, or nobody called while something was broken.

    The number of refusals means nothing: it grows with the time that a busy machine takes to start a server again.
    """
    assert books.counted.total() >= ENOUGH
    assert books.counts["answered"] >= ANSWERED, books.counts
    assert sum(strike.calls > 0 for strike in storm.strikes) >= len(storm.strikes) / 2, storm.strikes
