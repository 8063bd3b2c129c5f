"""Users, cached beside the database: the application brings the query of a read, and the statement of a write.

read    ask the cache; on a miss our own query asks the database
write   write to the database, which commits, and then invalidate: in one call, which cannot forget
"""

from app.caching import CacheAside, Reading
from app.errors import UnreadableRow
from app.row_tag import Expected
from app.users.models import NewUser, User, UserChanges
from app.users.store import UserStore


class Users:
    """What can be done with users. Raises what the store and the cache raise."""

    def __init__(self, cache: CacheAside[int, User], store: UserStore) -> None:
        self._cache = cache
        self._store = store

    async def get(self, user_id: int) -> Reading[User]:
        """A user, or the knowledge that there is none."""
        return await self._cache.get(user_id, self._store.get)

    async def page(self, *, after: int, limit: int) -> list[User | UnreadableRow]:
        """Users in the order of their ids, from the database: a page is not one key."""
        return await self._store.page(after=after, limit=limit)

    async def create(self, new: NewUser) -> User:
        """Adds a user. It invalidates, too: that there was no such user may be cached."""
        return await self._cache.write(self._store.insert(new), lambda user: {user.id: user.version})

    async def change(self, user_id: int, changes: UserChanges, expected: Expected | None) -> User:
        """Changes a user."""
        return await self._cache.write(
            self._store.update(user_id, changes, expected), lambda user: {user_id: user.version}
        )

    async def delete(self, user_id: int, expected: Expected | None) -> None:
        """Removes a user."""
        await self._cache.write(self._store.delete(user_id, expected), lambda version: {user_id: version})
