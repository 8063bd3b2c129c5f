"""A Redis client. Each of its commands is a step of a schedule.

    GET …          parks at the gate, and is sent when its turn comes
    BLOCK 1000     is removed: what the command would wait for comes in another schedule, or never

What can go wrong: pipelines bypass the gate.
"""

import re
from collections.abc import Mapping
from typing import Any

from redis.asyncio import ConnectionPool, Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from app.lab.races.gate import Gate

PREFIX = "races:"
"""The prefix of the keys of all explorations."""
LONGEST = 28
SHARD = re.compile(r"\{(\d)\}")


class SteppedRedis(Redis):
    """The client of one actor. `names` maps scripts' digests to their names. Of the keys with a number in braces only
    those of `shard` are steps: the others are touched by one actor at a time. `used` collects all keys that are named:
    finding them later would mean scanning a whole Redis, which may be somebody's."""

    def __init__(
        self,
        pool: ConnectionPool,
        gate: Gate,
        actor: int,
        *,
        prefix: str,
        names: Mapping[str, str],
        shard: int | None,
        used: set[str],
    ) -> None:
        super().__init__(connection_pool=pool)
        self._gate, self._actor, self._prefix, self._names, self._shard = gate, actor, prefix, names, shard
        self._used = used

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Sends a command when its turn comes."""
        sent = _without_waiting(args)
        self._used.update(word for word in map(_str, sent) if word.startswith(self._prefix))

        async def send() -> Any:
            return await super(SteppedRedis, self).execute_command(*sent, **options)  # type: ignore[no-untyped-call]

        if self._concerns_nobody(sent):
            return await self._gate.bypass(self._actor, send)
        return await self._gate.step(
            self._actor,
            self._text(sent),
            send,
            lambda: RedisConnectionError("The answer of Redis is lost."),
            show=lambda answer: "" if sent[0] == "XADD" else _shown(answer),
        )

    def _concerns_nobody(self, args: tuple[Any, ...]) -> bool:
        shards = {found for arg in args for found in SHARD.findall(_str(arg))}
        return bool(shards) and self._shard is not None and str(self._shard) not in shards

    def _text(self, args: tuple[Any, ...]) -> str:
        command, *words = map(_str, args)
        if command in ("EVALSHA", "EVAL"):
            return self._names.get(words[0], "a script")
        if command in ("XADD", "XREADGROUP", "XGROUP CREATE", "XAUTOCLAIM"):
            return command
        short = (word.replace(f"{self._prefix}:", "") for word in words)
        return " ".join([command, *(word if len(word) <= LONGEST else "…" for word in short)])


def _without_waiting(args: tuple[Any, ...]) -> tuple[Any, ...]:
    if args[0] == "XREADGROUP" and b"BLOCK" in args:
        place = args.index(b"BLOCK")
        return args[:place] + args[place + 2 :]
    if args[0] == "XAUTOCLAIM":
        # The flusher that holds an entry may have stalled for any length of time.
        return (*args[:4], 0, *args[5:])
    return args


def _str(word: Any) -> str:
    return word.decode(errors="replace") if isinstance(word, bytes) else str(word)


def _shown(answer: Any) -> str:
    if answer is None:
        return "nothing"
    if isinstance(answer, bytes | str) and len(answer) <= LONGEST:
        return "" if answer in ("OK", b"OK") else _str(answer)
    if isinstance(answer, bool) or not isinstance(answer, int | list):
        return ""
    if isinstance(answer, int):
        return str(answer)
    if not answer or answer == [None]:
        return "nothing"
    if len(answer) == 1 and isinstance(answer[0], bytes):  # One key; only the JSON is of interest.
        return _str(answer[0]).split(" ", 6)[-1][:LONGEST]
    # The result of lookup is its second word; the first is the time.
    if len(answer) == 2 and isinstance(answer[1], list) and answer[1] and answer[1][0] in (b"lease", b"wait", b"entry"):
        return _str(answer[1][0])
    return ""
