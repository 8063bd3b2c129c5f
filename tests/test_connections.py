"""The limit on connections of one process."""

import asyncio
import resource
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta

import pytest

from app.connections import AT_ONCE, Connections, allow_descriptors
from app.settings import Settings


class Client:
    """A connection that is only counted."""

    ended = False

    def look(self, now: float, tick: float) -> None:
        """Nothing takes too long."""

    def abort(self) -> None:
        self.ended = True


@pytest.fixture
def descriptors() -> Iterator[tuple[int, int]]:
    """The soft and the hard limit of descriptors. They are restored at the end."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    yield before
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_the_descriptor_limit_is_raised_to_what_the_connections_need(descriptors: tuple[int, int]) -> None:
    _, hard = descriptors
    resource.setrlimit(resource.RLIMIT_NOFILE, (500, hard))
    allow_descriptors(Settings(_env_file=None, connections=600))
    assert 600 < resource.getrlimit(resource.RLIMIT_NOFILE)[0] <= 800
    allow_descriptors(Settings(_env_file=None, connections=10))
    assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] > 600


async def test_the_connection_that_waits_longest_for_its_client_is_closed_and_busy_ones_stay() -> None:
    connections = Connections(Settings(_env_file=None, connections=3))
    first, second, third, fourth, fifth = clients = [Client() for _ in range(5)]
    assert all(connections.admit(client) for client in clients[:3])
    connections.is_busy(first)
    assert connections.admit(fourth)
    assert [client.ended for client in clients] == [False, True, False, False, False]
    connections.is_busy(third)
    connections.is_busy(fourth)
    assert not connections.admit(fifth)
    connections.owes(first)
    assert connections.admit(fifth)
    assert [client.ended for client in (first, third, fourth, fifth)] == [True, False, False, False]
    connections.owes(second)  # It has already ended: it neither needs nor makes room.
    connections.is_busy(fifth)
    assert not connections.admit(Client())


async def test_only_a_few_refused_connections_may_linger() -> None:
    connections = Connections(Settings(_env_file=None, connections=1))
    inside, *outside = [Client() for _ in range(101)]
    assert connections.admit(inside)
    connections.is_busy(inside)
    assert not any(connections.admit(client) for client in outside)
    lingering = [client for client in outside if connections.may_linger(client)]
    assert 0 < len(lingering) < 50
    assert connections.may_linger(inside)
    connections.leave(lingering[0])
    assert connections.may_linger(outside[-1])


async def test_thousands_of_connections_are_checked_over_several_turns_of_the_loop() -> None:
    """If 3,000 connections expired in one tick, and each got its refusal at once, nobody else would be served
    meanwhile."""
    looked: dict[Client, int] = {}
    turn = 0

    class Looked(Client):
        def look(self, now: float, tick: float) -> None:
            looked.setdefault(self, turn)

    connections = Connections(Settings(_env_file=None, connections=4_000, header_timeout=timedelta(seconds=0.1)))
    clients = [Looked() for _ in range(450)]
    assert all(connections.admit(client) for client in clients)
    while len(looked) < len(clients):
        await asyncio.sleep(0)
        turn += 1
    assert max(Counter(looked.values()).values()) <= AT_ONCE
    for client in clients:
        connections.leave(client)
