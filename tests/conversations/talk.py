"""Random requests on one connection, generated from a seed, and the expected answers.

There are good and bad requests in a row, bodies with a length or in chunks, upgrades, splits anywhere, and an end: a
half-close, none, or bytes that are no request. Each answer must equal that of the whole way: the application alone,
with one request at a time.
"""

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import httpx

from tests.conversations.conversation import JSON

UPGRADES = (
    b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAA\r\n",
    b"Upgrade: nothing/7\r\nConnection: keep-alive, Upgrade\r\n",
)
NO_REQUESTS = {400: b"NONSENSE\r\n\r\n", 431: b"GET / HTTP/1.1\r\nX: " + b"x" * 60_000, 414: b"GET /" + b"x" * 80_000}
COUNTED = "/page-views/counted"


@dataclass(frozen=True, slots=True)
class Ask:
    """A request, independent of how it is sent."""

    method: str
    target: str
    body: bytes | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


VIEW = Ask("POST", COUNTED, b'{"count": 1}')
TEXT = {"Content-Type": "text/plain"}
ASKS = (
    Ask("GET", "/users/1"), Ask("HEAD", "/users/1"), Ask("GET", "/products/KETTLE-1"),
    Ask("GET", "/inventory/KETTLE-1"),
    Ask("GET", "/products?sku=KETTLE-1&sku=NONE"), Ask("GET", "/users/1", fields={"If-None-Match": "*"}),
    Ask("GET", "/users/0"), Ask("GET", "/users/%FF"), Ask("GET", "/products/NONE"), Ask("GET", "/nowhere"),
    Ask("DELETE", "/health/live"), Ask("GET", "/page-views/unseen"), Ask("GET", "/users/1", b'{"body": "unread"}'),
    Ask("POST", "/users", b'{"name": '), Ask("POST", "/users", b'{"x": 1}'), Ask("POST", "/users", b"text", TEXT),
    Ask("POST", "/users", b" " * 70_000), Ask("POST", "/page-views", b'{"views": [{"page": ""}]}'),
    Ask("PATCH", "/users/1", b'{"name": "Other"}', {"If-Match": '"0"'}), Ask("POST", COUNTED, b'{"count": 0}'),
)  # fmt: skip

Told = tuple[int, bytes, str | None, str | None]
"""Status, body, type and tag of an answer."""


async def whole_way(client: httpx.AsyncClient) -> Mapping[int, Told]:
    """Returns the answer to each of `ASKS`, by its position."""
    answers: dict[int, Told] = {}
    for place, ask in enumerate(ASKS):
        fields = ({} if ask.body is None else {"Content-Type": "application/json"}) | dict(ask.fields)
        answer = await client.request(ask.method, ask.target, content=ask.body, headers=fields)
        content = b"" if ask.method == "HEAD" else answer.content
        answers[place] = answer.status_code, content, answer.headers.get("content-type"), answer.headers.get("etag")
    return answers


@dataclass(frozen=True, slots=True)
class Talk:
    """The requests of one connection, None for a view; the parts in which they are sent; and the end."""

    asks: Sequence[int | None]
    parts: Sequence[bytes]
    refusal: int | None
    half_closes: bool
    reads: bool


def made_up(seed: int) -> Talk:
    """Generates a talk. The same seed always gives the same talk."""
    chance = random.Random(seed)
    asks = [chance.choice([None, chance.randrange(len(ASKS))]) for _ in range(chance.randint(1, 8))]
    sent = b"".join(_spelled(VIEW if ask is None else ASKS[ask], chance) for ask in asks)
    refusal = chance.choice([None, None, None, *NO_REQUESTS])
    if refusal is not None:
        sent += NO_REQUESTS[refusal] + b"y" * chance.choice([0, 0, 200_000])
    if chance.random() < 0.15 and len(sent) < 3000:
        cuts = list(range(1, len(sent)))
    else:
        cuts = sorted(chance.randrange(len(sent)) for _ in range(chance.randint(0, 6)))
    parts = [sent[start:end] for start, end in zip([0, *cuts], [*cuts, len(sent)], strict=True)]
    return Talk(asks, parts, refusal, refusal is None and chance.random() < 0.4, chance.random() < 0.8)


def _spelled(ask: Ask, chance: random.Random) -> bytes:
    lines = [b"Host: fourways\r\n", *(f"{name}: {value}\r\n".encode() for name, value in ask.fields.items())]
    if ask.body is not None and "Content-Type" not in ask.fields:
        lines.append(JSON)
    if chance.random() < 0.25:
        lines.append(chance.choice(UPGRADES))
    body = ask.body or b""
    if body and chance.random() < 0.4:
        lines.append(b"Transfer-Encoding: chunked\r\n")
        cuts = sorted({0, len(body), *(chance.randrange(len(body)) for _ in range(chance.randint(0, 4)))})
        chunks = [body[start:end] for start, end in itertools.pairwise(cuts)]
        body = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    elif ask.body is not None:
        lines.append(b"Content-Length: %d\r\n" % len(body))
    chance.shuffle(lines)
    return f"{ask.method} {ask.target} HTTP/1.1\r\n".encode() + b"".join(lines) + b"\r\n" + body
