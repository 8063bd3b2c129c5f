"""Request lines with more than a path: authorities and versions."""

from collections.abc import AsyncIterator

import pytest

from app.embedded import Endpoints
from tests.conversations.conversation import conversation
from tests.service import FOURWAYS, Service, serving

NO_HTTP = "The request cannot be read as HTTP."
OTHER = "HTTP/1.1 is spoken here, and not that version."
LOCALHOST, EVIL = b"Host: localhost\r\n", b"Host: evil.example\r\n"
H2C = b"Connection: Upgrade\r\nUpgrade: h2c\r\n"
NO = "This service does not answer to {}: if it should, name it in FOURWAYS_ALLOWED_HOSTS."


@pytest.fixture(scope="module")
async def careful(stores: Endpoints) -> AsyncIterator[Service]:
    """A service that answers only to localhost and to addresses."""
    async with serving(stores.redis_url, stores.database_url, command=FOURWAYS, FOURWAYS_ALLOWED_HOSTS="") as service:
        yield service


@pytest.mark.parametrize("fields", [LOCALHOST, LOCALHOST + H2C], ids=["plain", "upgrade"])
@pytest.mark.parametrize(
    ("target", "status"),
    [
        (b"http://127.0.0.1", 200), (b"http://localhost/", 200), (b"HTTP://LOCALHOST:8000/users?limit=1", 200),
        (b"http://[::1]:8000?x=1", 200), (b"https://localhost/users/0", 422),
        (b"http://localhost/products/http://x", 404),
    ],
)  # fmt: skip
async def test_an_absolute_target_is_treated_like_its_path(
    careful: Service, target: bytes, status: int, fields: bytes
) -> None:
    async with conversation(careful) as client:
        await client.say(b"GET %b HTTP/1.1\r\n%b\r\nGET /health/live HTTP/1.1\r\n%b\r\n" % (target, fields, LOCALHOST))
        assert [answer.status for answer in await client.answers(2)] == [status, 200]


@pytest.mark.parametrize(
    ("line", "fields", "says"),
    [
        (b"GET http://evil.example/users/1 HTTP/1.1", LOCALHOST, NO.format("evil.example")),
        (b"GET http://evil.example HTTP/1.1", LOCALHOST, NO.format("evil.example")),
        (b"GET http://evil.example/users/1 HTTP/1.1", LOCALHOST + H2C, NO.format("evil.example")),
        (b"POST http://evil.example/page-views/evil HTTP/1.1", LOCALHOST, NO.format("evil.example")),
        (b"GET http://localhost@evil.example/users HTTP/1.1", LOCALHOST, NO.format("localhost@evil.example")),
        (b"GET http://evil.example?http://localhost/ HTTP/1.1", LOCALHOST, NO.format("evil.example")),
        (b"GET http://evil.example/users/1 HTTP/1.0", b"", NO.format("evil.example")),
        (b"GET http://evil.example/users/1 HTTP/1.0", LOCALHOST, NO.format("evil.example")),
        (b"GET http://localhost/users HTTP/1.1", b"", "There is no Host in the request."),
        (b"GET http://localhost/users HTTP/1.1", LOCALHOST * 2, "There is more than one Host in the request."),
        (b"GET http://localhost/users HTTP/1.0", LOCALHOST * 2, "There is more than one Host in the request."),
    ],
)  # fmt: skip
async def test_the_authority_of_an_absolute_target_is_checked(
    careful: Service, line: bytes, fields: bytes, says: str
) -> None:
    async with conversation(careful) as client:
        await client.say(line + b"\r\n" + fields + b"\r\n")
        answer = await client.answer()
        assert (answer.status, answer.json()["type"], answer.json()["detail"]) == (400, "unknown-host", says)


async def test_the_host_field_is_ignored_when_the_target_has_an_authority(careful: Service) -> None:
    """RFC 9112, section 3.2.2. This also holds for a page whose Origin matches the ignored Host."""
    async with conversation(careful) as client:
        await client.say(b"GET http://localhost/users HTTP/1.1\r\n" + EVIL + b"\r\n")
        await client.say(
            b"POST http://localhost/page-views/lines HTTP/1.1\r\nOrigin: http://evil.example\r\n" + EVIL + b"\r\n"
        )
        assert [answer.status for answer in await client.answers(2)] == [200, 403]


@pytest.mark.parametrize("target", [b"ftp://localhost/users", b"http:///users", b"http://", b"users"])
async def test_an_invalid_target_is_refused(careful: Service, target: bytes) -> None:
    async with conversation(careful) as client:
        await client.say(b"GET %b HTTP/1.1\r\n%b\r\n" % (target, LOCALHOST))
        assert await client.refusal() == (400, NO_HTTP)


@pytest.mark.parametrize("version", [b"1.2", b"1.9"])
async def test_a_later_minor_version_is_answered_like_http_1_1(careful: Service, version: bytes) -> None:
    """This includes its body, its Host, and the next request (RFC 9110, section 2.5)."""
    later = b"POST /page-views/later HTTP/%b\r\n" % version
    body = b'Content-Type: application/json\r\nContent-Length: 12\r\n\r\n{"count": 5}'
    async with conversation(careful) as client:
        for fields in (LOCALHOST, LOCALHOST + H2C):
            await client.say(later + fields + body)
            answer = await client.answer()
            assert (answer.status, answer.headers.get("connection")) == (202, None)
        await client.say(later + b"\r\n")
        assert (await client.answer()).json()["detail"] == "There is no Host in the request."


@pytest.mark.parametrize(
    "line", [b"GET / HTTP/2.0", b"HEAD / HTTP/3.0", b"GET / HTTP/0.9", b"GET /", b"GET http://localhost/ HTTP/9.9"]
)
async def test_another_major_version_is_refused(careful: Service, line: bytes) -> None:
    async with conversation(careful) as client:
        await client.say(line + b"\r\n" + LOCALHOST + b"\r\n")
        if line.startswith(b"HEAD"):
            assert (await client.answer("HEAD")).status == 505
        else:
            assert await client.refusal() == (505, OTHER)


async def test_an_http_1_0_client_is_answered_and_its_connection_closed(careful: Service) -> None:
    async with conversation(careful) as client:
        await client.say(b"GET /health/live HTTP/1.0\r\n\r\n")
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"], await client.rest()) == (200, "close", b"")


async def test_white_space_around_a_host_is_ignored(careful: Service) -> None:
    async with conversation(careful) as client:
        await client.say(b"GET /health/live HTTP/1.1\r\nHost:\t localhost\t \r\n\r\n")
        assert [answer.status for answer in await client.answers(1)] == [200]
