"""Our own service without one step of its design, named by STEP: what is that step worth?

It runs as a program, in the way of `fourways serve`, and listens on PORT.
"""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from functools import partial
from typing import cast

import uvicorn

import app.main as service
from app.caching.batching import Batching, K, R
from app.connections import Connections
from app.http_connection import HttpConnection
from app.settings import read_settings
from app.speed.direct_way import WAYS


async def _ask_alone(batching: Batching[K, R], key: K) -> R:
    found = cast("Sequence[R]", await batching._call([key]))
    return found[0]


def _each_hit_alone() -> None:
    setattr(Batching, "ask_here", _ask_alone)  # noqa: B010  # mypy knows it as a method.


def _garbage_as_it_comes() -> None:
    setattr(service, "settled_garbage", nullcontext)  # noqa: B010


def _all() -> None:
    WAYS.clear()
    _each_hit_alone()
    _garbage_as_it_comes()


STEPS: Mapping[str, Callable[[], None]] = {
    "none": lambda: None,
    "writes": lambda: None,
    "direct": WAYS.clear,
    "garbage": _garbage_as_it_comes,
    "batching": _each_hit_alone,
    "all": _all,
}
"""How each step is taken back."""


def main() -> None:
    """Serves until SIGTERM."""
    step = os.environ["STEP"]
    STEPS[step]()
    settings = read_settings()
    entrance = cast("type[asyncio.Protocol]", partial(HttpConnection, Connections(settings)))
    uvicorn.run(
        service.create_app(settings),
        port=int(os.environ["PORT"]),
        http="auto" if step in ("writes", "all") else entrance,
        proxy_headers=step == "all",
        access_log=False,
        log_level="warning",
    )


if __name__ == "__main__":
    main()
