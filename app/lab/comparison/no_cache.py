"""No cache at all: the baseline of the comparison."""

from contextlib import AbstractAsyncContextManager, nullcontext

from app.lab.strategy import Holds, Table


class NoCache:
    """A strategy whose every read and write goes to the database."""

    holds = Holds.VALUES

    def __init__(self, table: Table) -> None:
        self._table = table

    async def read(self, key: str) -> int | None:
        """Returns the row's value."""
        row = await self._table.load(key)
        return None if row is None else row.value

    async def write(self, key: str, value: int) -> None:
        """Sets the row's value."""
        await self._table.save(key, value)

    def running(self) -> AbstractAsyncContextManager[None]:
        """Nothing runs in the background."""
        return nullcontext()
