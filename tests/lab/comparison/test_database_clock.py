"""The offset of the database's clock, as the lab measures it."""

from app.lab.comparison.database_clock import database_clock
from app.lab.comparison.pool import Pool


async def test_the_databases_clock_is_known_to_within_half_a_round_trip(pool: Pool) -> None:
    first, second = await database_clock(pool), await database_clock(pool)
    assert abs(first[0] - second[0]) <= first[1] + second[1] + 0.001
    assert 0 < first[1] < 1
