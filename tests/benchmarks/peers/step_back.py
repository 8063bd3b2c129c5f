"""Our own service with one step of its design taken back, which STEP names: what is that step worth?"""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext

from fastapi import FastAPI

import app.main as service
from app.caching.batching import Batching, K, R
from app.routers import dead_letters, inventory, operations, page_views, products, users
from app.routers.direct_route import WAYS
from app.settings import read_settings


def _by_include_router(app: FastAPI) -> None:
    """Routers in the router, as FastAPI's documentation has it."""
    modules = (users, products, inventory, page_views, operations, dead_letters)
    flat = [route for module in modules for route in module.router.routes]
    app.router.routes[:] = [route for route in app.router.routes if route not in flat]
    for module in modules:
        app.include_router(module.router)


async def _ask_alone(batching: Batching[K, R], key: K) -> R:
    found: Sequence[R] = await batching._call([key])
    return found[0]


def _each_hit_alone() -> None:
    setattr(Batching, "ask_here", _ask_alone)  # noqa: B010  # mypy knows it as a method.


def _garbage_as_it_comes() -> None:
    setattr(service, "_settled_garbage", nullcontext)  # noqa: B010


def _all() -> None:
    WAYS.clear()
    _each_hit_alone()
    _garbage_as_it_comes()


STEPS: Mapping[str, Callable[[], None]] = {
    "none": lambda: None,
    "direct": WAYS.clear,
    "routers": lambda: None,
    "garbage": _garbage_as_it_comes,
    "batching": _each_hit_alone,
    "all": _all,
}
"""How each is taken back."""

STEP = os.environ["STEP"]
STEPS[STEP]()
app = service.create_app(read_settings())
if STEP in ("routers", "all"):
    _by_include_router(app)
