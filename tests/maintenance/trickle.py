"""A client that sends one request after the other while instances come and go. Every answer must be a good one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import cycle
from typing import Any

from tests.keep_alive import Answer
from tests.maintenance.fleet import Member
from tests.outages.rows import PIECES, Rows, made

PAUSE = 0.02
"""Seconds between two requests."""


class Trickle:
    """Requests of each kind, to the instances in turn, as a load balancer would send them."""

    @classmethod
    @asynccontextmanager
    async def to(cls, members: list[Member]) -> AsyncIterator["Trickle"]:
        """Sends requests while the block lasts. Fails if one of them has failed, was old, or was not counted once."""
        trickle = cls(members, await made(members[0].connection, "row", 1))
        over = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(trickle._flow(over))
            yield trickle
            over.set()

    def __init__(self, members: list[Member], rows: Rows) -> None:
        self.sent = 0
        self._members, self._rows = list(members), rows
        self._turn = asyncio.Lock()
        self._names: dict[str, str] = {}
        """What each row was named last, by its path."""
        self._sold = 0
        self.viewed = 0
        """How many page views were accepted."""

    async def leave(self, member: Member) -> None:
        """Sends nothing more to this instance, and returns when it has answered everything."""
        async with self._turn:
            self._members.remove(member)

    def join(self, member: Member) -> None:
        """Sends requests to this instance, too."""
        self._members.append(member)

    async def goes_around(self) -> None:
        """Returns when requests of each kind were sent to the instances, and answered."""
        for member in self._members:
            async with self._turn:
                await self._ask_all(member)

    async def _flow(self, over: asyncio.Event) -> None:
        for number in cycle(range(1000)):
            if over.is_set():
                return
            async with self._turn:
                await self._ask_all(self._members[number % len(self._members)])
            await asyncio.sleep(PAUSE)

    async def _ask_all(self, member: Member) -> None:
        user, product, stock = self._rows.one_of_each
        for path in (user, product):
            if path in self._names:
                assert (await self._asked(member, "GET", path))["name"] == self._names[path]
            changed = await self._asked(member, "PATCH", path, {"name": f"Name {self.sent}"})
            self._names[path] = changed["name"]
            # Now it is cached, for whoever is asked next.
            assert (await self._asked(member, "GET", path))["name"] == changed["name"]
        sold = await self._asked(member, "POST", f"{stock}/adjustments", {"delta": -1})
        self._sold += 1
        assert (await self._asked(member, "GET", stock))["quantity"] == sold["quantity"] == PIECES - self._sold
        viewed = await self._asked(member, "POST", self._rows.page, {"count": 1})
        self.viewed += 1
        assert viewed["views"] == self.viewed

    async def _asked(self, member: Member, method: str, path: str, body: object = None) -> Any:
        answer: Answer = await member.connection.ask(path, method=method, body=body)
        self.sent += 1
        assert answer.status in (200, 202), (method, path, answer)
        return answer.json()
