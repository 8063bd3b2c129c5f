"""The addresses of the embedded servers: the URLs that `REDIS_URL` and `DATABASE_URL` would have."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Endpoints:
    """The URLs of the running servers: for redis-py, and for asyncpg, SQLAlchemy or psql."""

    redis_url: str
    database_url: str
