"""All calls of one tick become one call."""

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any

import pytest

from app.caching.batching import LARGEST, Batching
from app.caching.errors import Unreadable
from tests.eventually import PATIENCE


class Doubling:
    """Answers twice each key, and records the keys of each call."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.called = asyncio.Event()
        self.gate = asyncio.Event()

    async def __call__(self, keys: Sequence[int]) -> Sequence[int]:
        self.calls.append(list(keys))
        self.called.set()
        await self.gate.wait()
        if 13 in keys:
            raise OSError("13 is not allowed.")
        return [2 * key for key in keys]


@pytest.fixture
def doubling() -> Doubling:
    """A call that answers once its gate is open."""
    return Doubling()


async def test_the_questions_of_one_tick_are_one_call(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)
    doubling.gate.set()
    assert await asyncio.gather(*(batching.ask(key) for key in (3, 1, 2))) == [6, 2, 4]
    assert doubling.calls == [[3, 1, 2]]


async def test_equal_questions_are_asked_once(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)
    doubling.gate.set()
    assert await asyncio.gather(*(batching.ask(7) for _ in range(100))) == [14] * 100
    assert doubling.calls == [[7]]


async def test_a_question_is_never_answered_by_a_call_sent_before_it(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)
    first = batching.ask(7)
    await doubling.called.wait()
    second = batching.ask(7)
    doubling.gate.set()
    assert [await first, await second] == [14, 14]
    assert doubling.calls == [[7], [7]]


async def test_a_batch_is_split_into_calls_of_at_most_the_largest_size(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)
    doubling.gate.set()
    await asyncio.gather(*(batching.ask(key) for key in range(20, 20 + LARGEST + 1)))
    assert [len(keys) for keys in doubling.calls] == [LARGEST, 1]


async def test_a_failed_call_fails_all_its_questions_and_no_others(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)
    doubling.gate.set()
    answers = await asyncio.gather(*(batching.ask(key) for key in (12, 13)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["13 is not allowed."] * 2
    assert await batching.ask(12) == 24


async def test_a_cancelled_caller_does_not_cancel_the_others(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)

    async def ask() -> int:
        return await batching.ask(7)

    gone, stays = asyncio.create_task(ask()), asyncio.create_task(ask())
    await doubling.called.wait()
    gone.cancel()
    doubling.gate.set()
    assert await stays == 14
    assert gone.cancelled()


async def test_a_caller_that_was_alone_last_time_asks_without_a_task(doubling: Doubling) -> None:
    started: list[asyncio.Task[None]] = []

    def start(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        started.append(asyncio.create_task(work))
        return started[-1]

    batching = Batching(doubling, start)
    doubling.gate.set()
    assert [await batching.ask_here(7), await batching.ask_here(7), await batching.ask_here(8)] == [14, 14, 16]
    assert (doubling.calls, len(started)) == ([[7], [7], [8]], 1)
    doubling.gate.clear()
    doubling.called.clear()
    # A caller that comes while another one's call is in flight joins a batch.
    alone, *others = [asyncio.ensure_future(batching.ask_here(key)) for key in (1, 2, 3)]
    await doubling.called.wait()
    doubling.gate.set()
    assert await asyncio.gather(alone, *others) == [2, 4, 6]
    assert (doubling.calls[3:], len(started)) == ([[1], [2, 3]], 2)


async def test_a_caller_that_asks_alone_can_be_cancelled(doubling: Doubling) -> None:
    batching = Batching(doubling, asyncio.create_task)
    doubling.gate.set()
    await batching.ask_here(7)
    doubling.gate.clear()
    doubling.called.clear()
    gone = asyncio.ensure_future(batching.ask_here(7))
    await doubling.called.wait()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    doubling.gate.set()
    assert await batching.ask_here(8) == 16


@pytest.mark.parametrize("readers", [1, 2])
async def test_an_error_in_the_count_reaches_all_callers(doubling: Doubling, readers: int) -> None:
    """A hit cannot be counted · all callers get the error, and none waits forever"""

    def count(answers: Sequence[int], callers: Sequence[int]) -> None:
        raise ValueError("It cannot be counted.")

    batching = Batching(doubling, asyncio.create_task, count)
    doubling.gate.set()
    for _ in range(2):
        questions = [batching.ask_here(7) for _ in range(readers)]
        told = await asyncio.wait_for(asyncio.gather(*questions, return_exceptions=True), PATIENCE)
        assert [str(error) for error in told] == ["It cannot be counted."] * readers


async def test_a_key_that_cannot_be_asked_for_fails_only_its_own_callers() -> None:
    """For example, a name that is not valid UTF-8 fails while a command is packed."""
    calls: list[list[int]] = []

    async def call(keys: Sequence[int]) -> Sequence[int]:
        calls.append(list(keys))
        if 5 in keys:
            raise ValueError("5 cannot be asked for.")
        return [key * 10 for key in keys]

    asked = Batching(call, asyncio.create_task)
    answers = await asyncio.gather(*map(asked.ask, range(8)), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["0", "10", "20", "30", "40", "5 cannot be asked for.", "60", "70"]
    assert len(calls) == 7, "By halves."


async def test_an_unreadable_result_is_raised_for_its_own_key_only() -> None:
    async def call(keys: Sequence[int]) -> Sequence[int | Unreadable]:
        return [Unreadable("It is torn.") if key == 1 else key for key in keys]

    asked: Batching[int, int] = Batching(call, asyncio.create_task)
    answers = await asyncio.gather(*map(asked.ask, [0, 1, 1, 2]), return_exceptions=True)
    assert [str(answer) for answer in answers] == ["0", "It is torn.", "It is torn.", "2"]
    for _ in range(3):  # From the second one on, the caller asks alone.
        with pytest.raises(Unreadable):
            await asked.ask_here(1)
