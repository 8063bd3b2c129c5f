"""No read that starts after a write was answered returns older data, whatever was in flight."""

import asyncio

import asyncpg

from app.users.models import NewUser
from tests.users.conftest import GatedUserStore, NewInstance

ADA = NewUser(name="Ada Lovelace", email="ada@example.com")


async def test_a_slow_reader_does_not_bring_the_old_row_back(new_instance: NewInstance, store: GatedUserStore) -> None:
    """R misses, reads the old row, and stalls
                                        W commits the new row, invalidates, and answers
    R fills the old row: every read until its TTL ends would get it
    """
    users = new_instance()
    ada = await users.create(ADA)
    store.hold()
    slow = asyncio.create_task(users.get(ada.id))
    await store.read.wait()

    changed = await users.change(ada.id, {"name": "Ada King"}, None)

    store.open.set()
    assert (await slow).version == ada.version
    assert (await users.get(ada.id)).version == changed.version
    assert (await users.get(ada.id)).version == changed.version


async def test_a_slow_reader_does_not_hide_a_row_that_was_just_inserted(
    new_instance: NewInstance, store: GatedUserStore, sql: asyncpg.Connection
) -> None:
    """R misses, finds no row, and stalls
                                        W inserts the row, commits, invalidates, and answers
    R fills "there is no such row"
    """
    users = new_instance()
    # The id of the next user. A reader asks for it too early.
    next_id = 1 + await sql.fetchval("SELECT nextval('users_id_seq')")
    store.hold()
    slow = asyncio.create_task(users.get(next_id))
    await store.read.wait()

    created = await users.create(ADA)
    assert created.id == next_id

    store.open.set()
    assert (await slow).value is None
    assert (await users.get(next_id)).version == created.version


async def test_a_reader_does_not_join_a_load_that_is_older_than_a_write_it_knows_of(
    new_instance: NewInstance, store: GatedUserStore
) -> None:
    """In one process:

    R1 misses, reads the old row, and stalls
                                        W commits the new row, invalidates, and answers
                                        R2, which knows W's answer, misses; it must not join R1's load
    """
    users = new_instance()
    ada = await users.create(ADA)
    store.hold()
    first = asyncio.create_task(users.get(ada.id))
    await store.read.wait()

    changed = await users.change(ada.id, {"name": "Ada King"}, None)

    store.read.clear()
    second = asyncio.create_task(users.get(ada.id))
    await store.read.wait()
    store.open.set()
    assert (await second).version == changed.version
    assert (await first).version == ada.version
    assert store.queries == 2


async def test_a_reader_does_not_wait_for_another_process_to_load_an_older_row(
    new_instance: NewInstance, store: GatedUserStore
) -> None:
    """Across two processes:

    R1 in A gets the lease, reads the old row, and stalls
                                        W in B commits the new row, invalidates, and answers
    R1 fills                            R2 in B misses; A's lease is void, so it loads by itself
    """
    a, b = new_instance(), new_instance()
    ada = await a.create(ADA)
    store.hold()
    first = asyncio.create_task(a.get(ada.id))
    await store.read.wait()

    changed = await b.change(ada.id, {"name": "Ada King"}, None)

    store.read.clear()
    second = asyncio.create_task(b.get(ada.id))
    await store.read.wait()
    store.open.set()
    assert (await second).version == changed.version
    assert (await first).version == ada.version
    assert (await a.get(ada.id)).version == changed.version
    assert (await b.get(ada.id)).version == changed.version


async def test_all_readers_of_a_just_deleted_user_cost_one_query(
    new_instance: NewInstance, store: GatedUserStore
) -> None:
    instances = [new_instance() for _ in range(3)]
    ada = await instances[0].create(ADA)
    await asyncio.gather(*(users.get(ada.id) for users in instances))
    await instances[1].delete(ada.id, None)
    store.queries = 0
    readings = await asyncio.gather(*(users.get(ada.id) for users in instances for _ in range(100)))
    assert {reading.payload for reading in readings} == {None}
    assert store.queries == 1
