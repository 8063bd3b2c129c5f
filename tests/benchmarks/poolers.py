"""What a pooler costs, and what it costs that each transaction brings its limits along. In the library: a user is read,
and changed, in Postgres. The processor time is that of the client, the pooler and Postgres together.

The last variant is what a pooler in session mode would permit: statements are prepared in the session, and nothing is
brought along.
"""

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import timedelta
from unittest.mock import patch
from urllib.parse import parse_qs, urlsplit

import psutil  # type: ignore[import-untyped]

from app.database import open_database
from app.users.models import NewUser
from app.users.store import UserStore
from tests.benchmarks.measurement import Result, Rounds, Sample, Variant, compared, interleave, rates
from tests.benchmarks.stage import Stage, on, processors
from tests.benchmarks.tasks import hammer, one_by_one
from tests.faults.pgbouncer import pgbouncer

QUESTION = "What does a pooler cost, and the limits of each transaction?"
DIRECT, SESSION, TRANSACTION = "no pooler", "PgBouncer, session mode", "PgBouncer, transaction mode"
PREPARED = "PgBouncer, session mode, as without a pooler"
WAYS = {DIRECT: None, SESSION: "session", TRANSACTION: "transaction", PREPARED: "session"}
TASKS = 16
ONE_READS, ONE_CHANGES, MANY_READ = "One client reads", "One client changes", f"{TASKS} clients read"

Call = Callable[[UserStore], Callable[[int], Awaitable[object]]]


async def measure(stage: Stage) -> Result:
    """Measures one client that reads, one that changes, and many that read."""
    async with AsyncExitStack() as stack:
        stores = {name: await stack.enter_async_context(_store(stage, name)) for name in WAYS}
        ada = await stores[DIRECT].insert(NewUser(name="Ada", email="ada@example.com"))
        numbers = itertools.count()

        def read(store: UserStore) -> Callable[[int], Awaitable[object]]:
            return store.get

        def change(store: UserStore) -> Callable[[int], Awaitable[object]]:
            return lambda user_id: store.update(user_id, {"name": f"Ada {next(numbers)}"}, None)

        async def measured(title: str, call: Call, tasks: int) -> Rounds:
            variants = [_variant(stage, name, call(store), ada.id, tasks) for name, store in stores.items()]
            return await interleave(variants, stage.size.rounds, lambda text: stage.report(f"{title}, {text}"))

        rounds = {
            ONE_READS: await measured(ONE_READS, read, 1),
            ONE_CHANGES: await measured(ONE_CHANGES, change, 1),
            MANY_READ: await measured(MANY_READ, read, TASKS),
        }
    return Result(
        "poolers",
        QUESTION,
        [],
        [compared(title, each, DIRECT) for title, each in rounds.items()],
        rates("Reads of one client, 1/s", rounds[ONE_READS]),
        rounds,
    )


@asynccontextmanager
async def _store(stage: Stage, name: str) -> AsyncIterator[UserStore]:
    """Yields a store whose connections are made this way."""
    mode, url = WAYS[name], stage.endpoints.database_url
    async with AsyncExitStack() as stack:
        if mode is not None:
            with on(processors()[1]):
                url = (await stack.enter_async_context(pgbouncer(url, mode))).url
        database = await stack.enter_async_context(
            open_database(url, connections=TASKS, timeout=timedelta(seconds=10), counted=lambda resource: None)
        )
        store = UserStore(database)
        with patch("app.connection.SHARED", "never") if name == PREPARED else nullcontext():
            await hammer(store.get, [1], lambda *_: True, tasks=TASKS, turn=timedelta(seconds=1))  # Connects.
        yield store


def _variant(stage: Stage, name: str, call: Callable[[int], Awaitable[object]], user_id: int, tasks: int) -> Variant:
    async def once(user_id: int) -> None:
        await call(user_id)

    async def turn() -> Sample:
        before = _cpu_of_servers(stage)
        if tasks > 1:
            sample = await hammer(call, [user_id], lambda _, user: user is not None, tasks=tasks, turn=stage.size.turn)
        else:
            sample = await one_by_one(once, [user_id], turn=stage.size.turn)
        assert sample.cpu is not None
        return replace(sample, cpu=sample.cpu + _cpu_of_servers(stage) - before)

    return Variant(name, turn)


def _cpu_of_servers(stage: Stage) -> timedelta:
    """Returns the processor time that Postgres and the poolers have used until now."""
    directory = parse_qs(urlsplit(stage.endpoints.database_url).query)["host"][0]
    used = 0.0
    for process in psutil.process_iter(["name", "cmdline", "cpu_times"]):
        told = process.info
        if told["name"] == "pgbouncer":
            used += told["cpu_times"].user + told["cpu_times"].system
        elif told["name"] == "postgres" and any(directory in word for word in told["cmdline"] or ()):
            for session in process.children():
                with suppress(psutil.NoSuchProcess):
                    times = session.cpu_times()
                    used += times.user + times.system
    return timedelta(seconds=used)
