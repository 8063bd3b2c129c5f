"""The same services without this library: what one would write in a few lines, and what other libraries offer.

Each is its own FastAPI application, run by uvicorn as ours is. REDIS_URL and DATABASE_URL name the stores.
"""
