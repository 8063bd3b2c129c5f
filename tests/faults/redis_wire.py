"""A proxy in front of Redis that sees each command pass, and knows which answer belongs to which command.

A pattern is matched with a command's words, separated by spaces: `^SET ` matches neither CLIENT SETNAME nor a value
that looks like a command. A script is matched by the name of its file: `^FILL 3 users:`, not EVALSHA and a digest.
"""

import hashlib
from collections import deque
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import hiredis
from redis.asyncio import Redis

from tests.faults.conversation import Conversation
from tests.faults.message import Message
from tests.faults.resp import Resp
from tests.faults.wire import Wire


class RedisWire(Wire):
    """A wire to the Redis at `redis_url`: redis:// or unix://."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url, self._parts = redis_url, urlsplit(redis_url)
        super().__init__(_upstream(redis_url), "redis.sock")
        folders = (files("app.caching.scripts"), files("app.caching.write_behind.scripts"))
        scripts = [each for folder in folders for each in folder.iterdir() if each.name.endswith(".lua")]
        self._sources = {Path(each.name).stem.upper(): each.read_bytes() for each in scripts}
        self._names = {hashlib.sha1(source).hexdigest().encode(): name for name, source in self._sources.items()}

    async def __aenter__(self) -> Self:
        await self._teach(self._redis_url)
        return await super().__aenter__()

    async def _teach(self, redis_url: str) -> None:
        """Loads our scripts. If Redis does not know one, the first EVALSHA does nothing, and is sent again: a test that
        holds or loses that one would depend on which tests ran before."""
        async with Redis.from_url(redis_url, protocol=2) as redis:
            for source in self._sources.values():
                await redis.script_load(source)

    def move_to(self, redis_url: str) -> None:
        """Makes new connections lead to another Redis."""
        self.move(_upstream(redis_url))

    def _url_through(self, path: Path) -> str:
        query = dict(parse_qsl(self._parts.query))
        if self._parts.scheme != "unix" and self._parts.path.strip("/"):
            query["db"] = self._parts.path.strip("/")
        login = f"{self._parts.netloc.rpartition('@')[0]}@" if "@" in self._parts.netloc else ""
        return f"unix://{login}{quote(str(path))}?{urlencode(query)}"

    def _conversation(self) -> Conversation:
        return _Conversation(self._names)


def _upstream(redis_url: str) -> str | tuple[str, int]:
    parts = urlsplit(redis_url)
    return unquote(parts.path) if parts.scheme == "unix" else (parts.hostname or "localhost", parts.port or 6379)


class _Conversation:
    """Matches answers to commands: Redis answers each command once, in order."""

    def __init__(self, names: Mapping[bytes, str]) -> None:
        self._names = names
        self._commands, self._replies = Resp(), Resp()
        self._words = hiredis.Reader()
        self._unanswered: deque[str] = deque()

    def asked(self, data: bytes) -> Iterator[Message]:
        for raw in self._commands.feed(data):
            self._words.feed(raw)
            text = self._text(self._words.gets())
            self._unanswered.append(text)
            yield Message(raw, (text,), counted=text)

    def answered(self, data: bytes) -> Iterator[Message]:
        for raw in self._replies.feed(data):
            if raw.startswith(b">"):
                yield Message(raw)  # A push message of RESP3, which nobody asked for.
                continue
            text = self._unanswered.popleft()
            # A script that Redis does not know was not executed.
            yield Message(raw, () if raw.startswith(b"-NOSCRIPT") else (text,))

    def _text(self, words: list[bytes]) -> str:
        said = [word.decode(errors="backslashreplace") for word in words]
        if said[0].upper() == "EVALSHA" and (name := self._names.get(words[1].lower())) is not None:
            said[:2] = [name]
        return " ".join(said)
