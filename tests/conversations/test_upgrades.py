"""Upgrades are ignored: the request is answered as it would be without its Upgrade."""

import pytest

from tests.conversations.conversation import asks, conversation, in_chunks, views
from tests.service import Service

H2C = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA")
WEBSOCKET = (
    b"Connection: keep-alive, Upgrade", b"Upgrade: websocket",
    b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)  # fmt: skip
OTHER = (b"Connection: upgrade", b"Upgrade: TLS/1.0, nothing/7")
UPGRADES = pytest.mark.parametrize("fields", [H2C, WEBSOCKET, OTHER], ids=["h2c", "websocket", "other"])


@UPGRADES
async def test_an_upgrade_is_ignored_and_the_next_request_is_answered(
    service: Service, fields: tuple[bytes, ...]
) -> None:
    """`curl --http2` and Java's HttpClient send such a first request."""
    page = f"upgrade-{len(fields)}-{len(fields[1])}"
    async with conversation(service) as client:
        await client.say(views(page, 5, *fields))
        first = await client.answer()
        await client.say(asks(f"/page-views/{page}"))
        assert (first.status, first.json()["views"]) == (202, 5)
        assert (await client.answer()).json()["views"] == 5


@UPGRADES
async def test_an_upgrade_is_ignored_wherever_the_request_is_split(service: Service, fields: tuple[bytes, ...]) -> None:
    """The same bytes also contain a second request."""
    whole = views(f"cut-{len(fields)}-{len(fields[1])}", 5, *fields) + asks()
    for parts in ([whole], [whole[at : at + 1] for at in range(len(whole))], [whole[:100], whole[100:]]):
        async with conversation(service) as client:
            await client.say(*parts)
            assert [answer.status for answer in await client.answers(2)] == [202, 404]


async def test_an_upgrade_with_a_chunked_body_is_ignored_too(service: Service) -> None:
    fields = b"".join(b"%b\r\n" % field for field in H2C)
    async with conversation(service) as client:
        await client.say(in_chunks("/page-views/chunked", b'{"cou', b'nt": 5}', fields=fields) + asks())
        first, second = await client.answers(2)
        assert (first.json()["views"], second.status) == (5, 404)


async def test_the_limits_hold_for_a_head_with_an_upgrade_too(service: Service) -> None:
    async with conversation(service) as client:
        await client.say(asks("/", *H2C, b"X: " + b"x" * 40_000))
        assert (await client.refusal())[0] == 431


@pytest.mark.parametrize("body", [b"", b"abc"])
async def test_a_tunnel_is_refused_and_the_next_request_is_answered(service: Service, body: bytes) -> None:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    async with conversation(service) as client:
        await client.say(
            b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com\r\n" + length + b"\r\n" + body + asks()
        )
        refused, answered = await client.answers(2)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, POST, PUT, PATCH, DELETE, HEAD")
    assert refused.headers["content-type"] == "application/problem+json"
    assert answered.status == 404
