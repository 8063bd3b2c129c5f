"""A primary and a replica of Redis, and three Sentinels that watch them: real processes on free ports.

Each side logs in with a user of its own: the Sentinels, the replica, and a client whose way to the Sentinels may be
cut. To switch a user off, and to end its connections, is a partition: the server lives on, and answers all others.
(Redis wants a password of everybody. Else whoever may not log in would go on as the default user.)
"""

import re
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Self

from redis.exceptions import RedisError

from tests.eventually import eventually
from tests.faults.redis_process import PASSWORD, RedisProcess
from tests.free_port import free_port
from tests.open_directory import open_directory

NAME = "primary"
"""The name under which the Sentinels monitor it."""
PATIENT, HASTY = 60_000, 1_000
"""Milliseconds after which a Sentinel takes a silent server for down: while none is to be down, and when one is. On a
busy machine a server that is well may be silent for a second."""


class WatchedRedis:
    """Two Redises and their Sentinels. `primary` is the first of the two, whichever is the primary now."""

    @classmethod
    @asynccontextmanager
    async def started(cls) -> AsyncIterator[Self]:
        """Runs them until the block ends. At its beginning, the Sentinels are ready to switch."""
        async with AsyncExitStack() as stack:
            directory = stack.enter_context(open_directory())
            ports = [free_port() for _ in range(5)]
            redises = []
            for port in ports[:2]:
                follows = [f"replicaof 127.0.0.1 {ports[0]}"] if port != ports[0] else []
                begun = RedisProcess.started(directory / str(port), port, [*DATA, *follows])
                redises.append(await stack.enter_async_context(begun))
            names = {port: secrets.token_hex(20) for port in ports[2:]}
            sentinels = []
            for port, name in names.items():
                others = [
                    f"sentinel known-sentinel {NAME} 127.0.0.1 {other} {its}"
                    for other, its in names.items()
                    if other != port
                ]
                # Known from the start: to find out all this takes them seconds.
                others.append(f"sentinel known-replica {NAME} 127.0.0.1 {ports[1]}")
                lines = [f"sentinel myid {name}", *_monitors(ports[0]), *others]
                begun = RedisProcess.started(directory / str(port), port, [USER, *lines], "--sentinel")
                sentinels.append(await stack.enter_async_context(begun))
            watched = cls(redises[0], redises[1], sentinels)
            await eventually(watched._is_ready)
            yield watched

    def __init__(self, primary: RedisProcess, replica: RedisProcess, sentinels: Sequence[RedisProcess]) -> None:
        self.primary, self.replica, self.sentinels = primary, replica, sentinels

    @property
    def url(self) -> str:
        """The URL that names the Sentinels."""
        return f"redis+sentinel://:{PASSWORD}@{self.hosts}/{NAME}"

    @property
    def primary_url(self) -> str:
        """The URL of the primary itself."""
        return f"redis://:{PASSWORD}@127.0.0.1:{self.primary.port}"

    @property
    def hosts(self) -> str:
        """Where the Sentinels are, with commas between."""
        return ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)

    @property
    def client_url(self) -> str:
        """The URL of the client that the Sentinels may cut off."""
        return f"{self.url}?sentinel_username=client&sentinel_password={PASSWORD}"

    async def switch(self, to: RedisProcess | None = None) -> None:
        """Has the Sentinels switch to the replica, or to another one, although the primary is well. That one stays a
        primary for seconds."""
        await eventually(self._switches)
        await eventually(lambda: self.all_name(to or self.replica))

    async def switched(self) -> None:
        """Returns when all Sentinels have noticed that the primary is down, and name the replica."""
        await self._notice_after(HASTY)
        await eventually(lambda: self.all_name(self.replica))
        await self._notice_after(PATIENT)

    async def part_from_primary(self) -> None:
        """Cuts the primary off from the Sentinels and from its replica. It lives on, and answers all others."""
        for user in ("sentinel", "replica"):
            await self.primary.cut_off(user)

    async def all_name(self, redis: RedisProcess) -> bool:
        """Whether all Sentinels name this Redis."""
        places = [await sentinel.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", NAME) for sentinel in self.sentinels]
        return all(int(place[1]) == redis.port for place in places)

    async def _notice_after(self, milliseconds: int) -> None:
        for sentinel in self.sentinels:
            await sentinel.ask("SENTINEL", "SET", NAME, "down-after-milliseconds", str(milliseconds))

    async def _switches(self) -> bool:
        try:
            return bool(await self.sentinels[0].ask("SENTINEL", "FAILOVER", NAME))
        except RedisError:  # It has not heard of a good replica for a while.
            return False

    async def _is_ready(self) -> bool:
        if not await self.replica.is_replica():
            return False
        for sentinel in self.sentinels:
            (replica,) = await sentinel.ask("SENTINEL", "REPLICAS", NAME)
            if dict(zip(replica[::2], replica[1::2], strict=True))[b"flags"] != b"slave":
                return False
            try:
                told = str(await sentinel.ask("SENTINEL", "CKQUORUM", NAME))
            except RedisError:
                return False
            if not re.search(r"\b3 usable", told):
                return False
        return True


@asynccontextmanager
async def lone_sentinel(port: int, *more: str) -> AsyncIterator[RedisProcess]:
    """Runs a Sentinel that knows no other, and whose login no Redis accepts: it hears nothing, and names this port.
    Its configuration has some `more` lines."""
    with open_directory() as directory:
        lines = [*more, *(line.replace(PASSWORD, "wrong") for line in _monitors(port))]
        async with RedisProcess.started(directory / "lone", free_port(), lines, "--sentinel") as sentinel:
            yield sentinel


USER = f"user client on >{PASSWORD} -@all +sentinel|master +sentinel|get-master-addr-by-name"
"""All that the service needs of a Sentinel."""
DATA = (
    "appendonly yes",
    'save ""',
    "repl-diskless-sync yes",
    "repl-diskless-sync-delay 0",
    f"requirepass {PASSWORD}",
    f"user sentinel on >{PASSWORD} ~* &* +@all",
    f"user replica on >{PASSWORD} ~* &* +@all",
    "masteruser replica",
    f"masterauth {PASSWORD}",
)


def _monitors(port: int) -> list[str]:
    return [
        f"sentinel monitor {NAME} 127.0.0.1 {port} 2",
        f"sentinel down-after-milliseconds {NAME} {PATIENT}",
        f"sentinel failover-timeout {NAME} 5000",
        f"sentinel auth-user {NAME} sentinel",
        f"sentinel auth-pass {NAME} {PASSWORD}",
    ]
