"""Whatever a client sends, and however: each answer equals that of the whole way, and no other client suffers."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack

import asyncpg
import psutil  # type: ignore[import-untyped]
import pytest

from app.embedded import Endpoints
from app.main import create_app
from app.settings import Settings
from app.speed import direct_way
from tests.conversations.conversation import asks, conversation, in_chunks
from tests.conversations.talk import ASKS, COUNTED, Talk, Told, made_up, whole_way
from tests.eventually import eventually
from tests.in_process import client_of
from tests.keep_alive import Answer
from tests.service import REPOSITORY, Service

AT_ONCE = 8
MEMORY = 64 * 2**20
NOBODY_WAITS = 100
"""Milliseconds."""
DRIPPING, BLANK = in_chunks("/users", *[b" "] * 70_000), b"\r\n" * 1000
ENDLESS = 2_000_000
"""Bytes."""


@pytest.fixture
async def whole(
    service: Service, stores: Endpoints, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Mapping[int, Told]]:
    """The answers of the same application without connections, and without the direct way."""
    monkeypatch.setattr(direct_way, "WAYS", {})
    sql = await asyncpg.connect(stores.database_url)
    await sql.execute("INSERT INTO users (id, name, email) VALUES (1, 'Ada', 'ada@example.com') ON CONFLICT DO NOTHING")
    await sql.close()
    settings = Settings(_env_file=None, redis_url=stores.redis_url, database_url=stores.database_url)
    async with client_of(create_app(settings)) as client:
        await client.post("/products", json={"sku": "KETTLE-1", "name": "Kettle", "price": "1"})
        await client.put("/inventory/KETTLE-1", json={"quantity": 30})
        yield await whole_way(client)


async def carried_out(service: Service, seed: int, whole: Mapping[int, Told]) -> int:
    """Runs the talk of a seed, and compares the answers. Returns how many views were acknowledged."""
    talk = made_up(seed)
    async with conversation(service) as client:
        saying = asyncio.create_task(client.say(*talk.parts))
        try:
            if not talk.reads:
                await asyncio.sleep(0.01)
                return 0
            counted = 0
            for ask in talk.asks:
                answer = await client.answer(ASKS[ask].method if ask is not None else "POST")
                if ask is None:
                    assert answer.status == 202, (seed, answer)
                    counted += 1
                else:
                    assert told(answer) == whole[ask], (seed, ask)
            if talk.refusal is not None:
                assert (await client.refusal())[0] == talk.refusal, seed
            await asyncio.gather(saying, return_exceptions=True)  # After a refusal, the service need not read the rest.
            if talk.half_closes:
                client.say_all()
                assert await client.rest() == b"", seed
            return counted
        finally:
            saying.cancel()


def told(answer: Answer) -> Told:
    """Returns the parts of an answer that are compared."""
    return answer.status, answer.body, answer.headers.get("content-type"), answer.headers.get("etag")


async def all_carried_out(service: Service, seeds: range, whole: Mapping[int, Told]) -> None:
    """Runs these talks, several at once. Then checks that the views are at least those that were acknowledged, and at
    most those that were sent."""
    before = await seen(service)
    turns = asyncio.Semaphore(AT_ONCE)

    async def in_turn(seed: int) -> int:
        async with turns:
            return await carried_out(service, seed, whole)

    answered = sum(await asyncio.gather(*map(in_turn, seeds)))
    unread = sum(sum(ask is None for ask in talk.asks) for talk in map(made_up, seeds) if not talk.reads)
    assert answered <= await seen(service) - before <= answered + unread


async def seen(service: Service) -> int:
    """Returns the views so far."""
    async with conversation(service) as client:
        await client.say(asks(COUNTED))
        return int((await client.answer()).json()["views"])


async def test_a_sample_of_random_talk_is_answered_as_on_the_whole_way(
    service: Service, whole: Mapping[int, Told]
) -> None:
    process = psutil.Process(service.process.pid)
    before = process.num_fds()
    await all_carried_out(service, range(120), whole)

    async def all_have_left() -> bool:
        return bool(process.num_fds() <= before + 8)  # The pools of the stores may have grown.

    await eventually(all_have_left)


@pytest.mark.prove
@pytest.mark.timeout(600)
async def test_thousands_of_random_talks_are_answered_as_on_the_whole_way_and_delay_nobody(
    service: Service, whole: Mapping[int, Told], capsys: pytest.CaptureFixture[str]
) -> None:
    """Meanwhile, twenty clients send requests and never read, and ten send bodies in chunks of one byte, or only blank
    lines."""
    process = psutil.Process(service.process.pid)
    async with conversation(service) as first:
        await first.say(asks("/openapi.json"))  # The first request makes the document, which stays in memory.
        assert (await first.answer()).status == 200
    await all_carried_out(service, range(50), whole)
    idle = peak = process.memory_info().rss

    async def watched() -> None:
        nonlocal peak
        while True:
            peak = max(peak, process.memory_info().rss)
            await asyncio.sleep(0.1)

    async with AsyncExitStack() as stack:
        for request in (asks("/openapi.json"), asks("/users/1"), asks("/nowhere"), asks("/users/0"), DRIPPING, BLANK):
            for _ in range(5):
                mute = await stack.enter_async_context(conversation(service))
                stack.callback(asyncio.create_task(mute.say(request * (ENDLESS // len(request)))).cancel)
        stack.callback(asyncio.create_task(watched()).cancel)
        bystander = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.conversations.bystander", service.url.rpartition(":")[2], str(process.pid),
            cwd=REPOSITORY, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        await all_carried_out(service, range(1000, 4000), whole)
        said, _ = await bystander.communicate(b"")
    waits: list[tuple[float, float]] = json.loads(said)
    longest, work = max(wait for wait, _ in waits), sorted(work for _, work in waits)
    with capsys.disabled():
        print(
            f"\n3,000 talks: {(peak - idle) / 2**20:.1f} MiB more than idle; {len(waits)} waits, at most "
            f"{longest:.0f} ms, and {work[-1]:.0f} ms of the server's work; p99 {work[len(work) * 99 // 100]:.0f} ms"
        )
    assert peak - idle < MEMORY
    assert work[-1] <= NOBODY_WAITS


def test_a_seed_always_gives_the_same_talk() -> None:
    talks: list[Talk] = [made_up(seed) for seed in range(300)]
    assert talks == [made_up(seed) for seed in range(300)]
    assert {talk.refusal for talk in talks} == {None, 400, 414, 431}
    assert {talk.half_closes for talk in talks} == {talk.reads for talk in talks} == {True, False}
