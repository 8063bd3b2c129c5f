"""The same services without this library: what one would write in a few lines, and what other libraries offer.

Each is a FastAPI application of its own, run by uvicorn as ours is. REDIS_URL and DATABASE_URL name the stores.
"""
