"""Users in Postgres: SQL only. A method is one transaction, committed when it returns."""

from sqlalchemy import bindparam, delete, func, insert, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import constraint
from app.database import Database
from app.errors import Conflict, DatabaseUnavailable, NotFound, PreconditionFailed
from app.look import Look
from app.users.models import NewUser, User, UserChanges, users

COLUMNS = (users.c.id, users.c.name, users.c.email, users.c.version, users.c.created_at, users.c.updated_at)

GET = Look(select(*COLUMNS).where(users.c.id == bindparam("id")))
PAGE = Look(select(*COLUMNS).where(users.c.id > bindparam("after")).order_by(users.c.id).limit(bindparam("limit")))
VERSION = Look(select(users.c.version).where(users.c.id == bindparam("id")))


class UserStore:
    """Reads and writes users. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: int) -> User | None:
        """The user, None when there is none."""
        rows = await self._database.look("users", GET, {"id": user_id})
        return User(**rows[0]) if rows else None

    async def page(self, *, after: int, limit: int) -> list[User]:
        """At most `limit` users with ids above `after`, in the order of their ids."""
        return [User(**row) for row in await self._database.look("users", PAGE, {"after": after, "limit": limit})]

    async def insert(self, new: NewUser) -> User:
        """Adds a user. Raises Conflict when the email is taken."""
        statement = insert(users).values(**new.model_dump()).returning(*COLUMNS)
        try:
            async with self._database.writing("users") as connection:
                row = await self._database.change(connection, statement)
                assert row is not None, "An INSERT that answers no row has raised."
                return User(**row)
        except IntegrityError as error:
            raise _conflict(error, new.email) from error

    async def update(self, user_id: int, changes: UserChanges, expected: frozenset[int] | None) -> User:
        """Changes a user, if it is in one of the `expected` versions (None: in any).

        Raises NotFound, PreconditionFailed, and Conflict when the new email is taken.
        """
        in_version = true() if expected is None else users.c.version.in_(expected)
        statement = update(users).where(users.c.id == user_id, in_version).values(**changes).returning(*COLUMNS)
        try:
            async with self._database.writing("users") as connection:
                while (row := await self._database.change(connection, statement)) is None:
                    await self._refuse(connection, user_id, expected)
                return User(**row)
        except IntegrityError as error:
            raise _conflict(error, changes.get("email")) from error

    async def delete(self, user_id: int, expected: frozenset[int] | None) -> int:
        """Removes a user, and answers the version of the removal. Raises NotFound and PreconditionFailed."""
        in_version = true() if expected is None else users.c.version.in_(expected)
        # A trigger has drawn the version just before, in this session.
        version = func.currval("row_version").label("version")
        statement = delete(users).where(users.c.id == user_id, in_version).returning(version)
        async with self._database.writing("users") as connection:
            while (row := await self._database.change(connection, statement)) is None:
                await self._refuse(connection, user_id, expected)
            return int(row["version"])

    async def _refuse(self, connection: AsyncConnection, user_id: int, expected: frozenset[int] | None) -> None:
        """Says why no row was found; returns when one is there by now, deleted and created again meanwhile."""
        rows = await self._database.look_on(connection, VERSION, {"id": user_id})
        if not rows:
            raise NotFound(f"There is no user {user_id}.")
        version = rows[0]["version"]
        if expected is not None and version not in expected:
            raise PreconditionFailed(f"User {user_id} is in version {version}, which If-Match does not name.")


def _conflict(error: IntegrityError, email: str | None) -> Exception:
    if constraint(error) == "uq_users_email":
        return Conflict(f"The email {email} is taken.")
    # Somebody has given a row this id by hand, ahead of the sequence; the next id may be free.
    return DatabaseUnavailable(f"The user could not be saved ({constraint(error)}); try again.")
