"""Uvicorn whose workers begin with other people's modules imported: `python -m tests.forking app.main:app --workers 3`.

Uvicorn starts each worker as a new Python, which imports for two seconds, most of it what is not ours. Here they are
forked from a process that has imported that once. Our own modules each of them imports by itself, as always: some look
at what process they are in. How workers start otherwise is in `test_serve.py` and `test_serving.py`.
"""

import multiprocessing

import uvicorn
from uvicorn import _subprocess

NOT_OURS = [
    "asyncpg",
    "fastapi",
    "httptools",
    "pydantic_settings",
    "redis.asyncio",
    "sqlalchemy.dialects.postgresql.asyncpg",
    "sqlalchemy.ext.asyncio",
    "uvicorn",
    "uvloop",
]
"""Without prometheus_client, which decides when it is imported how to count: see `app.metrics`."""

if __name__ == "__main__":
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(NOT_OURS)
    _subprocess.spawn = forking  # type: ignore[assignment]
    uvicorn.main()
