"""What an endpoint works on: one of the open resources.

    CachedUsers = Annotated[Users, Depends(Resource(lambda open_: open_.users))]

It is async: FastAPI would run a plain function in a thread, at ten times the price. And it asks no other dependency:
that would cost each call that goes the whole way as much again. The direct way reads from the annotation of an endpoint
which resource it works on.
"""

from collections.abc import Callable
from typing import Any

from fastapi import Request

from app.wiring import Resources


class Resource:
    """A dependency: what `of` picks out of all that is open."""

    def __init__(self, of: Callable[[Resources], Any]) -> None:
        self.of = of

    async def __call__(self, request: Request) -> Any:
        return self.of(request.app.state.resources)
