"""A proxy in front of a server that can do to a connection what networks and crashes do.

    application  →  Wire  →  Redis or Postgres

Faults apply to existing and to new connections, until `heal`. Faults with a pattern for commands or statements (a
regular expression, or a function) apply to one moment of one test: `holding`, `holding_replies`, `drop_reply`,
`cut_after`.

When a client disconnects, what it sent before still reaches the server, however late: only `cut` and `refuse` lose it.
"""

import asyncio
import socket
import tempfile
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Self

from tests.faults.conversation import Conversation
from tests.faults.end import End
from tests.faults.held import Held
from tests.faults.lost import Lost
from tests.faults.matching import Pattern, matching
from tests.faults.message import Message
from tests.faults.passage import Passage

Upstream = str | tuple[str, int]
"""A unix socket, or a host and port."""
CROWD = 1000
"""How many clients may try to connect at the same time."""


class Wire(ABC):
    """An async context manager; `url` leads through it to the server at `upstream`, a unix socket or a host and port.

    It listens on a unix socket.
    """

    url: str

    def __init__(self, upstream: Upstream, name: str) -> None:
        self.is_silent = False
        self.lateness = 0.0
        self._upstream = upstream
        self._name = name
        self._refuses = False
        self._passages: set[Passage] = set()
        self._passed: Counter[str] = Counter()
        self._command_gates: list[Held] = []
        self._answer_gates: list[Held] = []
        self._losses: list[Lost] = []
        self._stack = AsyncExitStack()

    @abstractmethod
    def _url_through(self, path: Path) -> str:
        """Returns the URL of the server when it is reached through this unix socket."""

    @abstractmethod
    def _conversation(self) -> Conversation:
        """Returns what parses a new connection."""

    async def __aenter__(self) -> Self:
        self._directory = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="wire-")))
        with socket.socket(socket.AF_UNIX) as nobody:
            nobody.bind(str(self._directory / "closed"))
        self._server = await asyncio.get_running_loop().create_unix_server(
            self._accepted, self._directory / "open", backlog=CROWD
        )
        self._lead_to("open")
        self.url = self._url_through(self._directory / self._name)
        return self

    async def __aexit__(self, *_: object) -> None:
        self.refuse()
        self._server.close()
        await asyncio.gather(*(passage.ended.wait() for passage in self._passages))
        await self._stack.aclose()

    @property
    def connections(self) -> int:
        """Number of connections that clients have open."""
        return sum(1 for passage in self._passages if not passage.client.lost)

    def move(self, upstream: Upstream) -> None:
        """Makes new connections lead to `upstream` from now on. Existing connections live on."""
        self._upstream = upstream

    def refuse(self) -> None:
        """Cuts all connections, and refuses new ones like a port on which nobody listens."""
        self._refuses = True
        self._lead_to("closed")
        self.cut()

    def silence(self) -> None:
        """Keeps connections open, and accepts new ones, but lets nothing pass until healed. Then everything arrives."""
        self.is_silent = True

    def delay(self, seconds: float) -> None:
        """Delays everything that passes, in either direction."""
        self.lateness = seconds
        self._advance()

    def cut(self) -> None:
        """Ends all existing connections, with everything in flight."""
        for passage in self._passages:
            passage.cut()

    def heal(self) -> None:
        """Ends refusal, silence and delay."""
        self._refuses = self.is_silent = False
        self._lead_to("open")
        self.delay(0)

    def count(self, pattern: Pattern) -> int:
        """Returns how many matching commands or statements were passed to the server so far."""
        matches = matching(pattern)
        return sum(times for text, times in self._passed.items() if matches(text))

    def holding(self, pattern: Pattern) -> AbstractAsyncContextManager[Held]:
        """Holds whatever matches, and all after it on its connection, until it is released, or the block ends."""
        return self._holding(self._command_gates, pattern)

    def holding_replies(self, pattern: Pattern) -> AbstractAsyncContextManager[Held]:
        """Lets whatever matches be executed, and holds the answer as `holding` does."""
        return self._holding(self._answer_gates, pattern)

    def drop_reply(self, pattern: Pattern) -> Lost:
        """Drops the next answer to whatever matches, and all after it on its connection, like a lost packet."""
        return self._losing(Lost(pattern, cuts=False))

    def cut_after(self, pattern: Pattern) -> Lost:
        """Cuts the connection on which a match is executed next, instead of answering."""
        return self._losing(Lost(pattern, cuts=True))

    async def connect(self, end: End, to: Upstream | None) -> None:
        """Connects this end to the server, or to another one."""
        loop, upstream = asyncio.get_running_loop(), to or self._upstream
        if isinstance(upstream, str):
            await loop.create_unix_connection(lambda: end, upstream)
        else:
            await loop.create_connection(lambda: end, *upstream)

    def forget(self, passage: Passage) -> None:
        """Forgets a connection that is over."""
        self._passages.discard(passage)

    def halts_command(self, passage: Passage, message: Message) -> bool:
        """Whether this must not reach the server yet. If it may, it is counted."""
        if _any_halts(self._command_gates, message):
            return True
        if message.counted is not None:
            self._passed[message.counted] += 1
        return False

    def halts_answer(self, passage: Passage, message: Message) -> bool:
        """Whether this must not reach the client yet, or never."""
        if _any_halts(self._answer_gates, message):
            return True
        for lost in self._losses:
            if lost.waits_for(message.texts):
                self._losses.remove(lost)
                lost.dropped.set()
                if lost.cuts:
                    passage.cut()
                else:
                    passage.mute()
                return True
        return False

    def waits_for_answer(self, texts: list[str]) -> bool:
        """Whether something is to happen to the answer to these."""
        return any(held.waits_for(texts) for held in self._answer_gates) or any(
            lost.waits_for(texts) for lost in self._losses
        )

    @asynccontextmanager
    async def _holding(self, gates: list[Held], pattern: Pattern) -> AsyncIterator[Held]:
        held = Held(pattern, self._advance)
        gates.append(held)
        try:
            yield held
        finally:
            gates.remove(held)
            held.release()

    def _losing(self, lost: Lost) -> Lost:
        self._losses.append(lost)
        return lost

    def _advance(self) -> None:
        for passage in self._passages:
            passage.client.advance()
            passage.server.advance()

    def _accepted(self, to: Upstream | None = None) -> asyncio.Protocol:
        passage = Passage(self, self._conversation(), to)
        self._passages.add(passage)
        if self._refuses:  # It connected before the refusal.
            passage.cut()
        return passage.client

    def _lead_to(self, name: str) -> None:
        # A link is replaced atomically. Binding the socket again would leave a moment without any, in which a client
        # gets another error.
        link = self._directory / "link"
        link.symlink_to(name)
        link.replace(self._directory / self._name)


def _any_halts(gates: list[Held], message: Message) -> bool:
    # All gates are asked: each must know what has arrived.
    return bool([gate for gate in gates if gate.halts(message.texts)])
