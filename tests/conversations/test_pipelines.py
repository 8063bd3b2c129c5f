"""Requests that do not wait for answers, and clients that have said all."""

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


async def test_all_of_a_pipeline_is_answered_in_its_order(service: Service) -> None:
    """Hundreds in one write, with bodies between them."""
    async with conversation(service) as client:
        await client.say(b"".join(views("order", 1) + asks(f"/products/{number}") for number in range(200)))
        for number in range(200):
            counted, missing = await client.answers(2)
            assert (counted.status, counted.json()["views"]) == (202, number + 1)
            assert missing.json()["detail"] == f"There is no product {number}."


async def test_the_body_of_the_next_request_is_read_when_it_is_its_turn(service: Service) -> None:
    """One body and the head behind it are parsed · what follows waits · it is the rest of that request"""
    async with conversation(service) as client:
        await client.say(views("bodies", 1) * 200)
        assert [answer.json()["views"] for answer in await client.answers(200)] == list(range(1, 201))


async def test_a_pipeline_is_answered_alike_wherever_it_is_cut(service: Service) -> None:
    whole = asks() + in_chunks("/page-views/cut", b'{"count"', b": 2}") + views("cut", 3) * 2 + asks("/users/0")
    for at in range(1, len(whole)):
        async with conversation(service) as client:
            await client.say(whole[:at], whole[at:])
            assert [answer.status for answer in await client.answers(5)] == [404, 202, 202, 202, 422]


@pytest.mark.parametrize("request_", [asks("/openapi.json"), views("never", 1)], ids=["reads", "writes"])
async def test_clients_that_ask_and_never_read_do_not_fill_the_memory(service: Service, request_: bytes) -> None:
    """Each sends until nothing more is taken: while another client is answered fifty times, not a byte.

    Whoever reads on behind a request that is being answered keeps all of them.
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


async def test_who_has_said_all_is_answered_and_then_the_connection_ends(service: Service) -> None:
    async with conversation(service) as client:
        await client.say(asks())
        client.say_all()
        assert (await client.answer()).status == 404
        assert await client.rest() == b""


async def test_who_has_said_all_of_a_pipeline_gets_all_answers(service: Service) -> None:
    async with conversation(service) as client:
        await client.say(asks() * 20 + views("said-all", 5) + asks("/page-views/said-all"))
        client.say_all()
        *missing, counted, read = await client.answers(22)
        assert {answer.status for answer in missing} == {404}
        assert counted.json()["views"] == read.json()["views"] == 5
        assert await client.rest() == b""


@pytest.mark.parametrize("at", [3, 40, -5])
async def test_what_breaks_off_is_not_done_and_leaves_nothing(service: Service, at: int) -> None:
    """In its head, or in its body; behind a request that is answered."""
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


async def test_a_slow_reader_gets_everything(service: Service) -> None:
    """It reads only when the answers fill both sides' buffers."""
    async with conversation(service) as client:
        count = 100
        saying = asyncio.create_task(client.say(asks("/openapi.json") * count))
        first = await client.answer()
        for _ in range(count - 1):
            assert (await client.answer()).body == first.body
        await saying
