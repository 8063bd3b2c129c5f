"""The traffic between a strategy and Redis, counted at its connections, whatever the command.

A round trip is one thing sent and waited for; a pipeline or a script is one. Bytes are those of the protocol in both
directions, without TCP's and TLS' own.

What can go wrong: this uses redis-py's internals. The tests would fail if those changed.
"""

from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis


@dataclass(slots=True)
class Traffic:
    """The traffic so far."""

    round_trips: int = 0
    bytes: int = 0

    def meter(self, redis: Redis) -> None:
        """Counts what passes over the connections that this client will open."""
        pool: Any = redis.connection_pool
        pool.connection_class = _metered(pool.connection_class, self)


def _metered(kind: type[Any], traffic: Traffic) -> type[Any]:
    class Metered(kind):  # type: ignore[misc]  # which one it is, the address says
        """A connection that counts."""

        async def _connect(self) -> None:
            await super()._connect()
            hear = self._reader.feed_data

            def heard(data: bytes) -> None:
                traffic.bytes += len(data)
                hear(data)

            self._reader.feed_data = heard

        async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
            words = [command] if isinstance(command, bytes | str) else list(command)
            traffic.round_trips += 1
            traffic.bytes += sum(map(len, words))
            await super().send_packed_command(words, check_health)

    return Metered
