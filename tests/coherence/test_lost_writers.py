"""The caches learn of a change even if its writer, or its caller, goes away between COMMIT and invalidation."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from app.caching import Outcome
from app.embedded import Endpoints
from app.inventory.models import Setting
from app.products.models import NewProduct
from tests.coherence.conftest import ADA, TAKES, Instance, NewInstance
from tests.eventually import PATIENCE, eventually
from tests.keyed import keyed, kill
from tests.service import serving
from tests.topologies.ways import Ways

ADAS = 1001
"""The first id."""

Write = Callable[[Instance], Coroutine[Any, Any, object]]

POT = NewProduct(sku="POT", name="Pot", price="24.50")

WRITES: dict[str, tuple[str, Write]] = {
    "a user is changed": (f"users:{{{ADAS}}}", lambda a: a.users.change(ADAS, {"name": "Ada King"}, None)),
    "a user is removed": (f"users:{{{ADAS}}}", lambda a: a.users.delete(ADAS, None)),
    "a user is created": (
        f"users:{{{ADAS + 1}}}",
        lambda a: a.users.create(ADA.model_copy(update={"email": "2@example.com"})),
    ),
    "a product is changed": ("products:{CUP}", lambda a: a.products.change("CUP", {"price": "7.00"}, None)),
    "a product is removed": ("products:{CUP}", lambda a: a.products.delete("CUP", None)),
    "a product is created": ("products:{POT}", lambda a: a.products.create(POT)),
    "stock is set": ("stock:{CUP}", lambda a: a.resources.inventory.put("CUP", Setting(29))),
}
"""For each write: the key of the value that is cached before it, and the call."""


@pytest.mark.parametrize("moment", ["its COMMIT is not answered yet", "Redis is not told yet"])
@pytest.mark.parametrize("what", WRITES)
async def test_a_write_completes_although_its_caller_is_cancelled(
    unbounded_trust: None,
    new_instance: NewInstance,
    ada: int,
    cup: str,
    hand: Redis,
    sql: asyncpg.Connection,
    what: str,
    moment: str,
) -> None:
    """W commits, and its caller goes away (the task is cancelled)
    W must invalidate, or fill: the relay cannot do it here, nor renew trust
    """
    key, write = WRITES[what]
    assert ada == ADAS
    a = await new_instance()
    await a.believes()
    await a.resources.inventory.put("CUP", Setting(30))

    async def all_are_cached() -> bool:
        await asyncio.gather(*(a.users.get(user_id) for user_id in (ada, ada + 1)))
        await a.products.get_many(["CUP", "POT"])
        await a.quantity("CUP")
        return await hand.exists(*(key for key, _write in WRITES.values())) == len(WRITES)

    await eventually(all_are_cached)
    await a.settles()
    before = await hand.get(key)
    async with AsyncExitStack() as stack:
        relay = await stack.enter_async_context(a.postgres.holding(TAKES))
        await sql.execute("INSERT INTO stock (sku, quantity) VALUES ('POT', 1)")
        await asyncio.wait_for(relay.arrived.wait(), PATIENCE)
        if moment == "Redis is not told yet":
            held = await stack.enter_async_context(a.redis.holding("^(INVALIDATE|FILL)"))
        else:
            held = await stack.enter_async_context(a.postgres.holding_replies("^COMMIT"))
        client = asyncio.create_task(write(a))
        arrival = asyncio.create_task(held.arrived.wait())
        await asyncio.wait({client, arrival}, timeout=PATIENCE, return_when=asyncio.FIRST_COMPLETED)
        assert arrival.done(), client
        client.cancel()
        with pytest.raises(asyncio.CancelledError):
            await client
        held.release()

        async def is_told() -> bool:
            now = await hand.get(key)
            return b'"quantity":29' in (now or b"") if key.startswith("stock") else now is None

        assert before is not None
        await eventually(is_told)


async def test_a_process_killed_between_commit_and_invalidation_leaves_no_old_value(
    endpoints: Endpoints,
    named: Endpoints,
    ways: Ways,
    new_instance: NewInstance,
    ada: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """A is a separate process:

    A commits the new row, and is killed (SIGKILL) before Redis hears of it
                                        B hits the old value, until its relay has delivered the change
    """
    b = await new_instance()
    await b.hits(ada)
    async with (
        ways.redis(endpoints.redis_url) as wire,
        serving(wire.url, named.database_url, FOURWAYS_REDIS_TIMEOUT="10") as service,
        keyed(service, 1) as (writer,),
        wire.holding("^INVALIDATE") as held,
        b.postgres.holding(TAKES) as relay,
    ):
        await writer.send(f"/users/{ada}", method="PATCH", body={"name": "Ada King"})
        await asyncio.wait_for(held.arrived.wait(), PATIENCE)
        await kill(service)
        died = time.monotonic()
        relay.release()

        async def shows() -> bool:
            reading = await b.users.get(ada)
            assert reading.value is not None
            return reading.value.name == "Ada King" and reading.outcome is Outcome.HIT

        await eventually(shows)
        with capsys.disabled():
            print(
                f"\nKilled between COMMIT and invalidation: repaired {(time.monotonic() - died) * 1000:.0f} ms later."
            )
