"""Write-behind as usually described: one MULTI for each view, with the counter and a stream entry."""

import os

from fastapi import FastAPI
from redis.asyncio import Redis

redis = Redis.from_url(os.environ["REDIS_URL"])
app = FastAPI()


@app.post("/page-views/{page:path}", status_code=202)
async def count(page: str) -> dict[str, str | int]:
    """Sends INCR and XADD together."""
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.incr(f"multi:{page}")
        pipeline.xadd("multi-stream", {"page": page})
        views, _entry = await pipeline.execute()
    return {"page": page, "views": views}
