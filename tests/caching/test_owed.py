"""What is owed is owed to an entry in Redis, however its key is written."""

from app.caching.owed import Owed


class Invalidation:
    """It records how often it was made."""

    def __init__(self) -> None:
        self.made = 0

    async def __call__(self) -> None:
        self.made += 1


async def test_a_number_and_its_text_are_one_debt() -> None:
    """Redis has one entry for both: whoever reads it by either key must not get the old value."""
    owed, older, newer = Owed(), Invalidation(), Invalidation()
    owed.add("things", 1, 7, older)
    owed.add("things", "1", 8, newer)
    assert len(owed) == 1
    assert owed.includes("things", 1)
    assert owed.includes("things", "1")
    assert not owed.includes("things", 11)
    await owed.retry()
    assert (older.made, newer.made, len(owed)) == (0, 1, 0)
