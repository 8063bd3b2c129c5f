"""Users in Postgres: SQL only. A method is one transaction, committed when it returns."""

from sqlalchemy import bindparam, delete, func, insert, select, true, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from app.availability import constraint
from app.database import Database, Row
from app.errors import Conflict, DatabaseUnavailable, NotFound, UnreadableRow
from app.look import Look
from app.readable import readable, refused, unreadable
from app.row_tag import EPOCH, Expected
from app.users.models import NewUser, User, UserChanges, users

COLUMNS = (
    users.c.id,
    users.c.name,
    users.c.email,
    users.c.version,
    readable(users.c.created_at),
    readable(users.c.updated_at),
    EPOCH,
)

GET = Look(select(*COLUMNS).where(users.c.id == bindparam("id")))
PAGE = Look(select(*COLUMNS).where(users.c.id > bindparam("after")).order_by(users.c.id).limit(bindparam("limit")))
VERSION = Look(select(users.c.version, EPOCH).where(users.c.id == bindparam("id")))


class UserStore:
    """Reads and writes users. Every method raises DatabaseUnavailable when Postgres does not answer in time."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, user_id: int) -> User | None:
        """Returns the user, or None if there is none. Raises UnreadableRow."""
        rows = await self._database.look("users", GET, {"id": user_id})
        return _user(rows[0]) if rows else None

    async def page(self, *, after: int, limit: int) -> list[User | UnreadableRow]:
        """Returns at most `limit` users with ids above `after`, in the order of their ids, with UnreadableRow in place
        of a row that cannot be read."""
        rows = await self._database.look("users", PAGE, {"after": after, "limit": limit})
        return [unreadable(row, "User", row["id"]) or User(**row) for row in rows]

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

    async def update(self, user_id: int, changes: UserChanges, expected: Expected | None) -> User:
        """Changes a user, if it has one of the `expected` tags. None accepts any.

        Raises NotFound, PreconditionFailed, UnreadableRow, and Conflict when the new email is taken.
        """
        as_expected = true() if expected is None else expected.holds(users.c.version)
        statement = update(users).where(users.c.id == user_id, as_expected).values(**changes).returning(*COLUMNS)
        try:
            async with self._database.writing("users") as connection:
                while (row := await self._database.change(connection, statement)) is None:
                    await self._refuse(connection, user_id, expected)
                return _user(row)
        except IntegrityError as error:
            raise refused(error, "User", user_id) or _conflict(error, changes.get("email")) from error

    async def delete(self, user_id: int, expected: Expected | None) -> int:
        """Removes a user. Returns the version of the removal. Raises NotFound and PreconditionFailed."""
        as_expected = true() if expected is None else expected.holds(users.c.version)
        # The trigger has just drawn this version from the sequence, in this session.
        version = func.currval("row_version").label("version")
        statement = delete(users).where(users.c.id == user_id, as_expected).returning(version, EPOCH)
        async with self._database.writing("users") as connection:
            while (row := await self._database.change(connection, statement)) is None:
                await self._refuse(connection, user_id, expected)
            return int(row["version"])

    async def _refuse(self, connection: AsyncConnection, user_id: int, expected: Expected | None) -> None:
        """Raises the reason why no row matched. Returns if one exists by now, deleted and created again meanwhile."""
        rows = await self._database.look_on(connection, VERSION, {"id": user_id})
        if not rows:
            raise NotFound(f"There is no user {user_id}.")
        if expected is not None and (refusal := expected.refusal(f"User {user_id}", **rows[0])) is not None:
            raise refusal


def _user(row: Row) -> User:
    if (why := unreadable(row, "User", row["id"])) is not None:
        raise why
    return User(**row)


def _conflict(error: IntegrityError, email: str | None) -> Exception:
    if constraint(error) == "uq_users_email":
        return Conflict(f"The email {email} is taken.")
    # A row was given this id by hand, ahead of the sequence. The next id may be free.
    return DatabaseUnavailable(f"The user could not be saved ({constraint(error)}); try again.")
