"""Pipelined requests, and clients that half-close."""

import asyncio
import socket
from urllib.parse import urlsplit

import psutil  # type: ignore[import-untyped]
import pytest

from tests.conversations.conversation import asks, conversation, in_chunks, views
from tests.eventually import eventually
from tests.keep_alive import KeepAlive
from tests.service import Service

MEMORY = 64 * 2**20
LOOKS = 50


async def test_a_pipeline_is_answered_in_order(service: Service) -> None:
    """Hundreds of requests, some with bodies, arrive in one write."""
    async with conversation(service) as client:
        await client.say(b"".join(views("order", 1) + asks(f"/products/{number}") for number in range(200)))
        for number in range(200):
            counted, missing = await client.answers(2)
            assert (counted.status, counted.json()["views"]) == (202, number + 1)
            assert missing.json()["detail"] == f"There is no product {number}."


async def test_the_body_of_a_pipelined_request_is_read_in_its_turn(service: Service) -> None:
    """A body and the head after it are parsed · the following bytes wait · they are the rest of the second request"""
    async with conversation(service) as client:
        await client.say(views("bodies", 1) * 200)
        assert [answer.json()["views"] for answer in await client.answers(200)] == list(range(1, 201))


async def test_a_pipeline_gets_the_same_answers_wherever_it_is_split(service: Service) -> None:
    whole = asks() + in_chunks("/page-views/cut", b'{"count"', b": 2}") + views("cut", 3) * 2 + asks("/users/0")
    for at in range(1, len(whole)):
        async with conversation(service) as client:
            await client.say(whole[:at], whole[at:])
            assert [answer.status for answer in await client.answers(5)] == [404, 202, 202, 202, 422]


@pytest.mark.parametrize("request_", [asks("/openapi.json"), views("never", 1)], ids=["reads", "writes"])
async def test_clients_that_never_read_their_answers_do_not_fill_the_memory(service: Service, request_: bytes) -> None:
    """Each client sends until the service reads no more: not a byte while another client is answered fifty times.

    A service that continued to read behind a request in flight would buffer all requests.
    """
    process, where = psutil.Process(service.process.pid), urlsplit(service.url)
    lines = [socket.create_connection((where.hostname or "", where.port or 0)) for _ in range(20)]
    other = await KeepAlive.to(service.url)
    calm, rest = 0, memoryview(request_ * (2**21 // len(request_)))
    left = dict.fromkeys(lines, rest)
    await other.ask("/products/NONE")
    before = process.memory_info().rss
    for line in lines:
        line.setblocking(False)
    while calm < LOOKS and any(left.values()):
        calm += 1
        for line in lines:
            try:
                sent = line.send(left[line][:65_536])
            except BlockingIOError:
                continue
            left[line], calm = left[line][sent:], 0
        assert (await other.ask("/products/NONE")).status == 404
        assert process.memory_info().rss - before < MEMORY
    for line in lines:
        line.close()
    await other.close()


async def test_a_half_closing_client_is_answered_and_then_the_connection_is_closed(service: Service) -> None:
    async with conversation(service) as client:
        await client.say(asks())
        client.say_all()
        assert (await client.answer()).status == 404
        assert await client.rest() == b""


async def test_a_half_closing_client_gets_all_answers_of_its_pipeline(service: Service) -> None:
    async with conversation(service) as client:
        await client.say(asks() * 20 + views("said-all", 5) + asks("/page-views/said-all"))
        client.say_all()
        *missing, counted, read = await client.answers(22)
        assert {answer.status for answer in missing} == {404}
        assert counted.json()["views"] == read.json()["views"] == 5
        assert await client.rest() == b""


@pytest.mark.parametrize("at", [3, 40, -5])
async def test_an_aborted_request_is_not_carried_out_and_leaves_nothing_behind(service: Service, at: int) -> None:
    """The request ends in its head or in its body, after a request that is answered."""
    process = psutil.Process(service.process.pid)
    before = process.num_fds()
    for _ in range(20):
        async with conversation(service) as client:
            await client.say(asks() + views("broken", 5)[:at])
            client.say_all()
            assert (await client.answer()).status == 404
            assert await client.rest() == b""

    async def is_gone() -> bool:
        return bool(process.num_fds() <= before)

    await eventually(is_gone)
    async with conversation(service) as client:
        await client.say(asks("/page-views/broken"))
        assert (await client.answer()).json()["views"] == 0


async def test_a_slow_reader_gets_all_answers(service: Service) -> None:
    """The client begins to read only when the answers have filled the buffers of both sides."""
    async with conversation(service) as client:
        count = 100
        saying = asyncio.create_task(client.say(asks("/openapi.json") * count))
        first = await client.answer()
        for _ in range(count - 1):
            assert (await client.answer()).body == first.body
        await saying
