"""Transfer and content codings of a body. A service that ignored a coding would read other bytes than were meant."""

import gzip

import httpx
import pytest

from tests.routers.conftest import Contents
from tests.routers.wire import exchange
from tests.service import Service

JSON = b'{"count": 5}'
POST = b"POST /page-views/coded HTTP/1.1\r\nHost: fourways\r\nConnection: close\r\nContent-Type: application/json\r\n"
CHUNKS = b"\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(JSON), JSON)


@pytest.mark.parametrize(
    "coding", [b"gzip, chunked", b"Gzip ,chunked", b"gzip\r\nTransfer-Encoding: chunked", b"x;y=1, gzip, chunked"]
)
async def test_another_transfer_coding_gets_501_and_nothing_is_done(service: Service, coding: bytes) -> None:
    answer = await exchange(service, POST + b"Transfer-Encoding: " + coding + b"\r\n" + CHUNKS)
    assert (answer.status, answer.headers["content-type"]) == (501, "application/problem+json")
    assert b"gzip." in answer.body
    async with service.client() as client:
        assert (await client.get("/page-views/coded")).json()["views"] == 0


@pytest.mark.parametrize("coding", [b"chunked", b"Chunked"])
async def test_a_chunked_body_is_read(service: Service, coding: bytes) -> None:
    answer = await exchange(service, POST + b"Transfer-Encoding: " + coding + b"\r\n" + CHUNKS)
    assert (answer.status, b'"views":5' in answer.body) == (202, True)


@pytest.mark.parametrize(
    ("method", "path", "coding"),
    [
        ("POST", "/page-views/coded", "gzip"),
        ("POST", "/users", "GZIP"),
        ("PATCH", "/users/1", "identity, gzip"),
        ("PUT", "/inventory/KETTLE-1", "gzip, identity"),
    ],
)
async def test_a_compressed_body_is_refused_and_the_answer_names_identity(
    client: httpx.AsyncClient, rows: Contents, method: str, path: str, coding: str
) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = await client.request(method, path, content=gzip.compress(JSON), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (415, "unsupported-media-type")
    assert answer.json()["detail"] == "The body must be sent as it is, and not with Content-Encoding: gzip."
    assert answer.headers["accept-encoding"] == "identity"


async def test_a_compressed_chunked_body_is_refused_too(service: Service) -> None:
    answer = await exchange(service, POST + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n" + CHUNKS)
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "identity")


@pytest.mark.parametrize("coding", ["Identity", "identity, ,identity"])
async def test_a_body_may_declare_the_identity_coding(client: httpx.AsyncClient, coding: str) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": coding}
    answer = await client.post("/page-views/coded", content=JSON, headers=headers)
    assert (answer.status_code, answer.json()["views"]) == (202, 5)


async def test_a_content_encoding_without_a_body_is_ignored(client: httpx.AsyncClient, rows: Contents) -> None:
    coded = {"Content-Encoding": "gzip"}
    assert (await client.post("/page-views/coded", headers=coded)).status_code == 202
    assert (await client.request("GET", "/users/1", content=b"unread", headers=coded)).status_code == 200
