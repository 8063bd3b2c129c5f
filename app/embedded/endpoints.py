"""Where the embedded pair can be reached, as the two URLs that `REDIS_URL` and `DATABASE_URL` would hold."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of the running pair: for redis-py, and for asyncpg, SQLAlchemy or psql."""

    redis_url: str
    database_url: str
