"""A Redis client for a cluster: each command goes to the node that owns the slot of its first key (`sending.py`).

What can go wrong: what a node answers as an error is raised as redis-py does, and so is the error of a connection.
`CacheUnavailable` is raised where nothing was sent, and where a repetition for a second did not help.
"""

from datetime import timedelta
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import ClusterDownError, TryAgainError

from ..cluster import Answer, Call, Cluster
from ..cluster.call import packed
from ..cluster.slot_map import slot_of
from ..errors import REDIS_DOWN, AnotherRun, CacheUnavailable
from ..words import code
from .scripts import ASKED, ATTEMPTS, sources


class ClusterRedis(Redis):
    """A client of all nodes, with a connection of each node's own pool for each command. With `drains`, nodes are also
    asked that may not be written to."""

    def __init__(self, cluster: Cluster, *, drains: bool) -> None:
        super().__init__()  # Its own connections are never made.
        self._sending = cluster.sending(ASKED, drains=drains)

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends a command, and returns its answer as redis-py does. The keys of a command share a slot."""
        # A node that has forgotten a script is sent it again at once.
        script = sources().get(args[1]) if args[0] == "EVALSHA" else None
        waits = timedelta(milliseconds=int(args[args.index(b"BLOCK") + 1]) if b"BLOCK" in args else 0)
        call = Call(slot_of(_key(args)), packed(args), args, script, waits)
        answer = await self._sent(call)
        if isinstance(answer, CacheUnavailable):
            error = answer.__cause__
            waited = isinstance(error, TryAgainError | ClusterDownError)
            raise error if isinstance(error, REDIS_DOWN) and not waited else answer
        parse = answer.node.cache.redis.response_callbacks.get(args[0])
        return answer.reply if parse is None else parse(answer.reply, **options)

    async def _sent(self, call: Call) -> Answer | CacheUnavailable:
        attempts = 0
        while True:
            attempts += 1
            (answer,) = await self._sending.send([call], believed=False, persistent=True)
            demoted = isinstance(answer, CacheUnavailable) and _is_demoted(answer.__cause__)
            if not demoted or attempts == ATTEMPTS:
                return answer


def _key(args: tuple[Any, ...]) -> str | bytes:
    """Returns the first key of a command."""
    place = 3 if args[0] in ("EVALSHA", "EVAL") else args.index(b"STREAMS") + 1 if args[0] == "XREADGROUP" else 1
    key: str | bytes = args[place]
    return key


def _is_demoted(error: BaseException | None) -> bool:
    """Whether a node did not execute a command because it has become a replica: it ended its wait for entries, or a new
    connection has found that out. It knows the new primary."""
    return isinstance(error, AnotherRun) or code(error) == "UNBLOCKED"
