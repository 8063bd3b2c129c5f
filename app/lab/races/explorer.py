"""Explores a case: runs one order after another, on real stores, until one fails or none is left to try.

    explore     opens the stores, and searches (`search.py`) on a stage (`stage.py`), in a thread

The thread has its own event loop, whose time passes only on command: a poll costs nothing, and a seed takes the same
turns each time. A search bounded by `budget` may end earlier on a slower machine; one bounded by `most` is the same
everywhere.

What can go wrong: a schedule in which a process waits forever is given up, and counted.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from datetime import timedelta

import asyncpg

from app.caching import open_redis
from app.database_url import DatabaseUrl
from app.lab.races.cases import Case
from app.lab.races.idle_loop import IdleLoop
from app.lab.races.schema import schema
from app.lab.races.search import Progress, Result, Search
from app.lab.races.stage import Stage
from app.lab.races.stepped_redis import PREFIX

TIMEOUT = timedelta(seconds=10)


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
    """Runs at most `most` schedules of a case, for no longer than `budget`.

    A case that should fail ends with the level on which all its anomalies have been found. `report` is called in the
    caller's loop after each schedule. Raises OSError, RedisError and asyncpg's errors when a store is not available.
    """
    loop, stop = asyncio.get_running_loop(), threading.Event()

    def reported(progress: Progress) -> None:
        loop.call_soon_threadsafe(report, progress)

    def run() -> Result:
        search = Search(case, budget=budget, most=most, seed=seed, report=reported, stop=stop)
        with asyncio.Runner(loop_factory=IdleLoop) as runner, _quiet():
            return runner.run(_explore(case, redis_url, database_url, search))

    thread = asyncio.ensure_future(asyncio.to_thread(run))
    try:
        return await asyncio.shield(thread)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait({thread})
        raise


async def _explore(case: Case, redis_url: str, database_url: str, search: Search) -> Result:
    async with AsyncExitStack() as stack:
        name = await stack.enter_async_context(schema(database_url))
        stores = []
        for _process in range(len(case.actors) + 1):
            redis = await stack.enter_async_context(open_redis(redis_url, timeout=TIMEOUT, connections=4))
            connection = await asyncpg.connect(
                **DatabaseUrl.read(database_url).attempts()[0],
                server_settings={"search_path": name, "synchronous_commit": "off"},
            )
            stack.push_async_callback(connection.close)
            stores.append((redis, connection))
        stage = Stage(case, stores, f"{PREFIX}{name}")
        await stage.prepare()
        stack.push_async_callback(stage.clear)
        return await search.run(stage)


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the library's warnings of faults: the schedules cause faults on purpose."""
    logger = logging.getLogger("app.caching")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)
