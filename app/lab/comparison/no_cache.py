"""No cache at all: what the others are compared with."""

from contextlib import AbstractAsyncContextManager, nullcontext

from app.lab.strategy import Holds, Table


class NoCache:
    """Every read and every write asks the database."""

    holds = Holds.VALUES

    def __init__(self, table: Table) -> None:
        self._table = table

    async def read(self, key: str) -> int | None:
        """The row's value."""
        row = await self._table.load(key)
        return None if row is None else row.value

    async def write(self, key: str, value: int) -> None:
        """Sets it."""
        await self._table.save(key, value)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Nothing works behind it."""
        return nullcontext()
