"""The epoch that a statement reports, and the tags that it compares."""

from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from app.coherence.epochs import Epochs
from app.database import Database, open_database
from app.embedded import Endpoints
from app.errors import PreconditionFailed
from app.poller import open_poller
from app.row_tag import Expected, row_tag
from app.users.models import NewUser
from app.users.store import UserStore
from tests.migrated_database import migrated_database

ADA = NewUser(name="Ada", email="ada@example.com")
TOKEN, ANOTHER = "3f9c2a10b4d5e6f7", "00000000000000ff"


@pytest.fixture
async def fresh_url(endpoints: Endpoints) -> AsyncIterator[str]:
    """The address of a database in which no epoch has begun."""
    async with migrated_database(endpoints.database_url) as url:
        yield url


@pytest.fixture
async def fresh(fresh_url: str) -> AsyncIterator[Database]:
    """That database."""
    async with open_database(
        fresh_url, connections=2, timeout=timedelta(seconds=20), counted=lambda resource: None
    ) as database:
        yield database


@pytest.fixture
async def epochs(fresh_url: str, fresh: Database) -> AsyncIterator[Epochs]:
    """Its epochs."""
    async with open_poller(
        fresh_url, resources=1, timeout=timedelta(seconds=20), counted=lambda resource: None
    ) as poller:
        yield Epochs(fresh, poller)


async def test_a_row_has_the_newest_epoch_and_none_before_the_first(fresh: Database, epochs: Epochs) -> None:
    users = UserStore(fresh)
    ada = await users.insert(ADA)
    assert ada.epoch is None
    await epochs.first(TOKEN, "run", (await epochs.look()).history)
    read, changed = await users.get(ada.id), await users.update(ada.id, {"name": "Ada King"}, None)
    assert read is not None
    assert (read.epoch, changed.epoch) == (TOKEN, TOKEN)


async def test_the_epoch_that_came_with_a_dump_does_not_count(fresh: Database, epochs: Epochs) -> None:
    """R reads version 5 · the database is restored, with the epochs of the dump; W's change is version 5 again ·
    R's change of version 5 arrives before anybody has begun the next epoch, and would overwrite W's change
    """
    users = UserStore(fresh)
    await epochs.first(TOKEN, "run", (await epochs.look()).history + "0")
    ada = await users.insert(ADA)
    assert ada.epoch is None
    expected = Expected(frozenset({row_tag(ada.version, TOKEN)}))
    for change in (users.update(ada.id, {"name": "Bo"}, expected), users.delete(ada.id, expected)):
        with pytest.raises(PreconditionFailed, match="names a version of another epoch"):
            await change
    assert await users.get(ada.id) == ada


async def test_no_tag_matches_a_row_that_has_none(fresh: Database) -> None:
    """Before the first epoch, a row has no tag: it matches neither If-Match nor If-None-Match."""
    users = UserStore(fresh)
    ada = await users.insert(ADA)
    tag = frozenset({row_tag(ada.version, TOKEN)})
    with pytest.raises(PreconditionFailed):
        await users.update(ada.id, {"name": "Bo"}, Expected(tags=tag))
    assert (await users.update(ada.id, {"name": "Bo"}, Expected(others=tag))).name == "Bo"
    await users.delete(ada.id, Expected(there=True, others=tag))


def test_a_refusal_gives_the_current_version_and_the_reason_for_the_mismatch() -> None:
    def refusal(*tags: str, weak: str = "") -> str | None:
        refused = Expected(frozenset(tags), frozenset({weak})).refusal("User 1", 8, TOKEN)
        return None if refused is None else str(refused)

    assert refusal(f"8-{TOKEN}", f"8-{ANOTHER}") is None
    assert (
        refusal()
        == refusal("8")
        == refusal(f"7-{TOKEN}", f"8-{ANOTHER}")
        == ("User 1 is in version 8, which If-Match does not name.")
    )
    assert refusal(f"8-{ANOTHER}") == (
        "User 1 is in version 8, and If-Match names a version of another epoch: a store was restored or replaced since."
    )
    assert refusal("x", weak=f"8-{TOKEN}") == (
        f'User 1 is in version 8, which If-Match names with a weak tag, W/"8-{TOKEN}", and a weak one never matches. '
        "Probably a proxy has weakened it when it compressed the answer: read again with `Accept-Encoding: identity`, "
        "and send the tag of that answer; or let the proxy not compress."
    )
