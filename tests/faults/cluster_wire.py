"""A proxy in front of all nodes of a cluster: wherever the nodes say that a slot is, it leads through here."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Self

import hiredis

from app.caching.redis_url import read_redis_url
from tests.faults.conversation import Conversation
from tests.faults.door import Door
from tests.faults.message import Message
from tests.faults.redis_wire import RedisWire

HOST = "127.0.0.1"


class ClusterWire(RedisWire):
    """A wire to the cluster at `redis_url`, for one client. What happens to it happens to the ways to all nodes."""

    def __init__(self, redis_url: str) -> None:
        self._seeds = [port for _host, port in read_redis_url(redis_url)["nodes"]]
        super().__init__(f"redis://{HOST}:{self._seeds[0]}")
        self._doors: dict[int, Door] = {}

    async def __aenter__(self) -> Self:
        self._stack.push_async_callback(self._close)
        for port in self._seeds:
            await self._teach(f"redis://{HOST}:{port}")
        await super().__aenter__()
        self.url = f"redis+cluster://{','.join(f'{HOST}:{self._door_to(port)}' for port in self._seeds)}"
        return self

    def move_to(self, redis_url: str) -> None:
        """Is impossible."""
        raise AssertionError("The nodes of a cluster say themselves where they are.")

    def _door_to(self, port: int) -> int:
        """Returns the port here that leads to the node at `port` there."""
        if port not in self._doors:
            self._doors[port] = Door(partial(self._accepted, (HOST, port)))
            if not self._refuses:
                self._doors[port].open()
        return self._doors[port].port

    def _lead_to(self, name: str) -> None:
        super()._lead_to(name)
        for door in self._doors.values():
            if name == "open":
                door.open()
            else:
                door.shut()

    def _conversation(self) -> Conversation:
        return _Led(super()._conversation(), self._door_to)

    async def _close(self) -> None:
        for door in self._doors.values():
            await door.close()


class _Led:
    """A conversation with a node, in whose answers other nodes are where `door_to` says."""

    def __init__(self, conversation: Conversation, door_to: Callable[[int], int]) -> None:
        self._conversation, self._door_to = conversation, door_to

    def asked(self, data: bytes) -> Iterable[Message]:
        return self._conversation.asked(data)

    def answered(self, data: bytes) -> Iterator[Message]:
        for message in self._conversation.answered(data):
            if message.raw.startswith((b"-MOVED ", b"-ASK ")):
                words, _, port = message.raw.strip().rpartition(b":")
                yield replace(message, raw=b"%s:%d\r\n" % (words, self._door_to(int(port))))
            elif message.raw.startswith(b"*") and [text.upper() for text in message.texts] == ["CLUSTER SLOTS"]:
                yield replace(message, raw=self._slots(message.raw))
            else:
                yield message

    def _slots(self, raw: bytes) -> bytes:
        reader = hiredis.Reader()
        reader.feed(raw)
        ranges = reader.gets()
        for _first, _last, *nodes in ranges:
            for node in nodes:
                node[1] = self._door_to(node[1])
        return _packed(ranges)


def _packed(answer: Any) -> bytes:
    """Returns an answer as Redis writes it."""
    if isinstance(answer, list):
        return b"*%d\r\n%s" % (len(answer), b"".join(map(_packed, answer)))
    return b":%d\r\n" % answer if isinstance(answer, int) else b"$%d\r\n%s\r\n" % (len(answer), answer)
