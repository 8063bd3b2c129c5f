"""Requests that are refused before they reach the application: each gets a problem, in its turn, and then its
connection is closed."""

import pytest

from tests.conversations.conversation import asks, conversation, in_chunks
from tests.service import Service

URL = "The URL is longer than 65,536 bytes."
FIELDS = "The header fields are longer than 32,768 bytes together."
COUNT = "There are 101 header fields, and 100 are allowed."
NO_HTTP = "The request cannot be read as HTTP."
HALF = b"GET / HTTP/1.1\r\nHost: fourways\r\n"
BODY = in_chunks("/page-views/heads", b"{}", end=b"")

REFUSED = {
    "url": (asks("/" + "x" * 65_536), 414, URL),
    "url-endless": (b"GET /" + b"x" * 80_000, 414, URL),
    "field": (asks("/", b"X: " + b"x" * 32_768), 431, FIELDS),
    "field-endless": (HALF + b"X: " + b"x" * 50_000, 431, FIELDS),
    "name-endless": (HALF + b"x" * 50_000, 431, FIELDS),
    "fields": (asks("/", *[b"X: " + b"x" * 400] * 90), 431, FIELDS),
    "many-fields": (asks("/", *[b"X: 1"] * 100), 431, COUNT),
    "empty-fields-endless": (HALF + b"X:\r\n" * 10_000, 431, FIELDS),
    "trailer": (BODY + b"0\r\nX: " + b"x" * 60_000, 431, FIELDS),
    "extension": (BODY + b"2;x=" + b"x" * 60_000, 431, FIELDS),
    "no-http": (b"NONSENSE\r\n\r\n", 400, NO_HTTP),
    "http-2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, NO_HTTP),
    "chunk": (BODY + b"zz\r\n", 400, NO_HTTP),
}


@pytest.mark.parametrize(("sent", "status", "says"), REFUSED.values(), ids=REFUSED)
async def test_a_bad_head_is_refused_with_a_sentence(service: Service, sent: bytes, status: int, says: str) -> None:
    async with conversation(service) as client:
        await client.say(sent)
        assert await client.refusal() == (status, says)


@pytest.mark.parametrize(("sent", "status", "says"), REFUSED.values(), ids=REFUSED)
async def test_a_client_that_keeps_sending_can_still_read_the_refusal(
    service: Service, sent: bytes, status: int, says: str
) -> None:
    """A close with unread bytes would be a reset, which would discard the refusal."""
    async with conversation(service) as client:
        await client.say(asks() * 3 + sent, b"x" * 100_000)
        assert [answer.status for answer in await client.answers(3)] == [404] * 3
        assert await client.refusal() == (status, says)


async def test_bytes_that_are_not_http_are_refused_with_a_body_after_a_head_request(service: Service) -> None:
    """The parser still has the method of the HEAD request."""
    async with conversation(service) as client:
        await client.say(asks("/products/NONE", method="HEAD") + b"NONSENSE\r\n\r\n")
        assert (await client.answer("HEAD")).status == 404
        assert await client.refusal() == (400, NO_HTTP)


async def test_a_request_just_below_the_limits_is_answered(service: Service) -> None:
    async with conversation(service) as client:
        await client.say(asks("/" + "x" * 60_000, *[b"X: " + b"x" * 320] * 98))
        assert (await client.answer()).status == 404


async def test_a_body_that_is_too_large_is_refused_and_the_next_request_answered(service: Service) -> None:
    for sent in (in_chunks("/users", *[b" " * 1000] * 70), asks("/users", method="POST", body=b" " * 70_000)):
        async with conversation(service) as client:
            await client.say(sent + asks())
            refused, answered = await client.answers(2)
            assert (refused.status, answered.status) == (413, 404)


@pytest.mark.parametrize("cut", [False, True], ids=["whole", "cut"])
@pytest.mark.parametrize("trailer", [b"If-Match: *", b"Origin: http://evil.example", b"Host: evil.example"])
async def test_a_trailer_is_not_treated_as_a_header_field(service: Service, trailer: bytes, cut: bool) -> None:
    head = b"POST /page-views/trailers HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    rest = b"0\r\n%b\r\n\r\n" % trailer
    async with conversation(service) as client:
        await client.say(*([head, rest] if cut else [head + rest]))
        assert (await client.answer()).status == 202
