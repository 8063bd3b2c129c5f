"""A proxy in front of a Redis that a Sentinel names: the client learns of it there, and connects to its port."""

from typing import Self
from urllib.parse import parse_qsl

from tests.faults.door import Door
from tests.faults.redis_wire import RedisWire
from tests.faults.watched_redis import NAME, lone_sentinel

DEAF = [f"sentinel rename-command {NAME} {command} NOTHING" for command in ("INFO", "PUBLISH", "SUBSCRIBE")]
"""It asks only whether the port answers. Else it would find replicas that a test has made, and command them."""


class SentinelWire(RedisWire):
    """A wire to the Redis at `redis_url`; `url` names a Sentinel of its own. When the wire refuses or is silent, the
    Sentinel names it all the same: there is no replica."""

    def __init__(self, redis_url: str) -> None:
        super().__init__(redis_url)
        self._door = Door(self._accepted)

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._door.close)
        await super().__aenter__()
        sentinel = await self._stack.enter_async_context(lone_sentinel(self._door.port, *DEAF))
        login = self._parts.netloc.rpartition("@")[0]
        number = dict(parse_qsl(self._parts.query)).get("db", "0")
        self.url = f"redis+sentinel://{login}{'@' if login else ''}127.0.0.1:{sentinel.port}/{NAME}/{number}"
        return self

    def _lead_to(self, name: str) -> None:
        super()._lead_to(name)
        if name == "open":
            self._door.open()
        else:
            self._door.shut()
