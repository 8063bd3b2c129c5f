"""A proxy in front of Postgres that sees each statement pass, and knows which answer belongs to which statement.

It reads the messages of protocol 3: a Parse names a statement, a Bind makes a portal of it, an Execute runs the portal;
a simple Query is all in one. The answer to everything up to a Sync, or to a Query, ends with ReadyForQuery. No client
asks for TLS on a unix socket.
"""

from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlencode, urlsplit, urlunsplit

from tests.faults.conversation import Conversation
from tests.faults.message import Message
from tests.faults.wire import Wire

SOCKET = ".s.PGSQL.{}"
PORT = 5432


class PostgresWire(Wire):
    """A wire to the Postgres at `database_url`, on a unix socket (`host=` in the query) or a host and port.

    A statement that matches `holding` waits at its Bind, and counts at its Execute.
    """

    round_trips = 0
    """How often a client has waited for Postgres: each Query, Sync or Flush asks for an answer."""

    def __init__(self, database_url: str) -> None:
        self._parts = urlsplit(database_url)
        query = {name: values[0] for name, values in parse_qs(self._parts.query).items()}
        self._query = {name: value for name, value in query.items() if name not in ("host", "port")}
        super().__init__(_upstream(database_url), SOCKET.format(PORT))

    async def move_to(self, database_url: str) -> None:
        """Makes new connections lead to another Postgres. They still ask for their original database."""
        self.move(_upstream(database_url))

    def _url_through(self, path: Path) -> str:
        login, at, _ = self._parts.netloc.rpartition("@")
        query = urlencode({**self._query, "host": path.parent}, safe="/")
        return urlunsplit(self._parts._replace(netloc=login + at, query=query))

    def _conversation(self) -> Conversation:
        return _Conversation(self.waits_for_answer, self._asked_for_answer)

    def _asked_for_answer(self) -> None:
        self.round_trips += 1


def _upstream(database_url: str) -> str | tuple[str, int]:
    parts = urlsplit(database_url)
    query = parse_qs(parts.query)
    host = parts.hostname or query.get("host", ["localhost"])[0]
    port = parts.port or int(query.get("port", [str(PORT)])[0])
    return str(Path(host) / SOCKET.format(port)) if host[0] == "/" else (host, port)


class _Conversation:
    """The client's questions are statements, by name. The server answers each startup, Query and Sync by a
    ReadyForQuery."""

    def __init__(self, awaited: Callable[[list[str]], bool], asked: Callable[[], None]) -> None:
        self._awaited, self._asks = awaited, asked
        self._questions, self._answers = bytearray(), bytearray()
        self._introduced = False
        self._read = 0
        """How many bytes of the answers were examined, and are kept until the rest has come."""
        self._statements: dict[bytes, str] = {}
        self._portals: dict[bytes, str] = {}
        self._unanswered: deque[list[str]] = deque([[]])
        """What was executed up to each expected ReadyForQuery; the last entry is not asked for yet."""

    def asked(self, data: bytes) -> Iterator[Message]:
        self._questions += data
        at = 0
        while end := _end(self._questions, at, kind=self._introduced):
            raw, at = bytes(self._questions[at:end]), end
            if self._introduced:
                yield self._question(raw)
            else:
                self._introduced = True
                self._unanswered.append([])
                yield Message(raw)
        del self._questions[:at]

    def answered(self, data: bytes) -> Iterator[Message]:
        buffer = self._answers
        buffer += data
        began, at = 0, self._read
        while end := _end(buffer, at, kind=True):
            ready, at = buffer[at] == ord("Z"), end
            if ready:
                yield Message(bytes(buffer[began:at]), self._unanswered.popleft())
                began = at
        # An answer that nobody waits for is passed on as it comes: it may be large, or ask the client for more.
        if at > began and not self._awaited(self._unanswered[0]):
            yield Message(bytes(buffer[began:at]))
            began = at
        del buffer[:began]
        self._read = at - began

    def _question(self, raw: bytes) -> Message:
        kind = raw[:1]
        if kind in b"QSH":
            self._asks()
        if kind == b"S":
            self._unanswered.append([])
        if kind not in b"PBEQ":
            return Message(raw)
        first, _, rest = raw[5:].partition(b"\0")
        if kind == b"P":
            self._statements[first] = rest.partition(b"\0")[0].decode(errors="backslashreplace")
            return Message(raw)
        if kind == b"B":
            # Held here and not at the Execute: Postgres takes the snapshot of a SELECT when it is bound.
            self._portals[first] = self._statements.get(rest.partition(b"\0")[0], "")
            return Message(raw, (self._portals[first],))
        statement = self._portals.get(first, "") if kind == b"E" else first.decode(errors="backslashreplace")
        self._unanswered[-1].append(statement)
        if kind == b"E":
            return Message(raw, counted=statement)
        self._unanswered.append([])
        return Message(raw, (statement,), counted=statement)


def _end(buffer: bytearray, at: int, *, kind: bool) -> int:
    """Returns the end of the message that begins at `at`, or 0 if incomplete. `kind`: a letter precedes its length."""
    length = at + kind
    if len(buffer) < length + 4:
        return 0
    end = length + int.from_bytes(buffer[length : length + 4])
    return end if end <= len(buffer) else 0
