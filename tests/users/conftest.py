"""Users over a real Redis and a real Postgres, with a gate behind the query."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from datetime import timedelta

import pytest

from app.caching import Cache, CacheAside, Lifetimes, Region
from app.database import Database
from app.users.models import User
from app.users.service import Users
from app.users.store import UserStore
from tests.settled import settled

LIFETIMES = Lifetimes(fresh=timedelta(minutes=5), stale=timedelta(minutes=5), absent=timedelta(seconds=30))


class GatedUserStore(UserStore):
    """A store whose reads stop after the database's answer until the gate opens, as on a slow network."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.queries = 0
        self.read, self.open = asyncio.Event(), asyncio.Event()
        self.open.set()

    def hold(self) -> None:
        """Closes the gate. `read` is set when the next read has its answer."""
        self.read.clear()
        self.open.clear()

    async def get(self, user_id: int) -> User | None:
        self.queries += 1
        user = await super().get(user_id)
        self.read.set()
        await self.open.wait()
        return user


NewInstance = Callable[[], Users]


@pytest.fixture
async def store(database: Database) -> AsyncIterator[GatedUserStore]:
    """The store, with its gate open."""
    store = GatedUserStore(database)
    yield store
    store.open.set()


@pytest.fixture
async def new_instance(opened: Cache, store: GatedUserStore) -> AsyncIterator[NewInstance]:
    """Creates instances of the service. Like processes, they share the stores, but nothing in memory."""
    async with AsyncExitStack() as stack:

        def new() -> Users:
            region: Region[int, User] = Region(
                opened,
                "users",
                User,
                lifetimes=LIFETIMES,
                settled=settled,
            )
            stack.push_async_exit(region)
            return Users(CacheAside(region), store)

        yield new
        store.open.set()
