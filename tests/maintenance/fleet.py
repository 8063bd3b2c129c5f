"""Two instances behind a load balancer, which are replaced one by one."""

import asyncio
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from app.embedded import Endpoints
from tests.eventually import eventually
from tests.keyed import Keyed
from tests.outages.instance import PATIENT
from tests.service import Service, serving

PYTHON = (sys.executable,)


class Member:
    """An instance, and a connection to it."""

    def __init__(self, service: Service, connection: Keyed, stack: AsyncExitStack) -> None:
        self.service, self.connection = service, connection
        self._stack = stack

    @classmethod
    async def started(cls, stores: Endpoints, program: Sequence[str]) -> Self:
        """Starts an instance on these stores, and returns it when it is ready."""
        async with AsyncExitStack() as stack:
            service = await stack.enter_async_context(
                serving(stores.redis_url, stores.database_url, workers=1, program=program, **PATIENT)
            )
            connection = await Keyed.to(service.url)
            stack.push_async_callback(connection.close)
            return cls(service, connection, stack.pop_all())

    async def stop(self) -> None:
        """Stops it by SIGTERM, and returns when it has ended."""
        await self._stack.aclose()

    async def drained(self) -> None:
        """Returns when its Redis has no view that is not in Postgres."""

        async def is_drained() -> bool:
            answer = await self.connection.ask("/write-behind")
            return answer.status == 200 and bool(answer.json()["backlog"] == 0)

        await eventually(is_drained)


class Fleet:
    """The instances that run now."""

    @classmethod
    @asynccontextmanager
    async def of(cls, number: int, stores: Endpoints, program: Sequence[str] = PYTHON) -> AsyncIterator[Self]:
        """Starts `number` instances on these stores. Those that run when the block ends are stopped."""
        fleet = cls()
        try:
            await asyncio.gather(*(fleet.start(stores, program) for _ in range(number)))
            yield fleet
        finally:
            await asyncio.gather(*(fleet.end(member) for member in fleet.members))

    def __init__(self) -> None:
        self.members: list[Member] = []

    async def start(self, stores: Endpoints, program: Sequence[str] = PYTHON) -> Member:
        """Starts one more, and returns it when it is ready."""
        member = await Member.started(stores, program)
        self.members.append(member)
        return member

    async def end(self, member: Member) -> None:
        """Stops one of them."""
        self.members.remove(member)
        await member.stop()
