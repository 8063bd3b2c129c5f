"""The dependency that gives an endpoint one of the open resources.

    CachedUsers = Annotated[Users, Depends(Resource(lambda open_: open_.users))]

It is async, because FastAPI would run a plain function in a thread, at ten times the cost. It depends on no other
dependency, which would double its cost on the whole way. The direct way reads an endpoint's resource from its
annotation.
"""

from collections.abc import Callable
from typing import Any

from fastapi import Request

from app.wiring import Resources


class Resource:
    """A dependency that returns what `of` picks from the open resources."""

    def __init__(self, of: Callable[[Resources], Any]) -> None:
        self.of = of

    async def __call__(self, request: Request) -> Any:
        return self.of(request.app.state.resources)
