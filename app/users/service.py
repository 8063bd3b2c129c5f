"""Users, with the cache beside the database. The application supplies the query of a read and the statement of a write.

read    ask the cache; on a miss, the application's query asks the database
write   write to the database, which commits, then invalidate: one call does both, so neither can be forgotten
"""

from app.caching import CacheAside, Reading
from app.errors import UnreadableRow
from app.row_tag import Expected
from app.users.models import NewUser, User, UserChanges
from app.users.store import UserStore


class Users:
    """The operations on users. They raise what the store and the cache raise."""

    def __init__(self, cache: CacheAside[int, User], store: UserStore) -> None:
        self._cache = cache
        self._store = store

    async def get(self, user_id: int) -> Reading[User]:
        """Returns a reading of a user, which may say that there is none."""
        return await self._cache.get(user_id, self._store.get)

    async def page(self, *, after: int, limit: int) -> list[User | UnreadableRow]:
        """Returns users in the order of their ids, from the database: a page is no single key to cache under."""
        return await self._store.page(after=after, limit=limit)

    async def create(self, new: NewUser) -> User:
        """Adds a user. Also invalidates, because the absence of the user may be cached."""
        return await self._cache.write(self._store.insert(new), lambda user: {user.id: user.version})

    async def change(self, user_id: int, changes: UserChanges, expected: Expected | None) -> User:
        """Changes a user."""
        return await self._cache.write(
            self._store.update(user_id, changes, expected), lambda user: {user_id: user.version}
        )

    async def delete(self, user_id: int, expected: Expected | None) -> None:
        """Removes a user."""
        await self._cache.write(self._store.delete(user_id, expected), lambda version: {user_id: version})
