"""A route that calls its endpoint directly, where a request has nothing in it but a key.

    the whole way     a request object, two exit stacks, dependencies, validation, the endpoint, a response object
    the direct way    the key, the endpoint, a response: a third of the work, and most of what a hit costs

Router, documentation, errors and endpoint are the same on both ways. Whatever has more to say goes the whole way: a
body, a precondition, an idempotency key, a key that is not valid.

What can go wrong: an endpoint that reads another header or the query would not see it here. So `direct` refuses one.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from fastapi import Response
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.types import Receive, Scope, Send

from app.wiring import Resources

E = TypeVar("E", bound=Callable[..., Any])

TELLING = frozenset({b"if-none-match", b"idempotency-key", b"transfer-encoding"})
"""A request with one of these headers, or with a body, goes the whole way."""
UNASKED = frozenset({"if_none_match", "idempotency_key", "body"})
"""What an endpoint may ask for besides its key and its resource: it is in those headers, or in the body."""


@dataclass(frozen=True, slots=True)
class Direct:
    """What the direct way needs to know of an endpoint."""

    key: str
    type_: TypeAdapter[Any]
    resource: Callable[[Resources], Any]


WAYS: dict[Callable[..., Any], Direct] = {}


def direct(resource: Callable[[Resources], Any]) -> Callable[[E], E]:
    """Marks an endpoint that may be called directly: with its key, by the rules that its annotation has, and with a
    resource. It has to answer a response."""

    def mark(endpoint: E) -> E:
        key, _resource, *others = inspect.signature(endpoint).parameters
        if not UNASKED.issuperset(others):
            raise ValueError(f"{endpoint.__name__} asks for more than the direct way can tell: {', '.join(others)}.")
        annotation = get_type_hints(endpoint, include_extras=True)[key]
        WAYS[endpoint] = Direct(key, TypeAdapter(annotation), resource)
        return endpoint

    return mark


class DirectRoute(APIRoute):
    """A route whose endpoint may be marked as `direct`."""

    @property
    def is_direct(self) -> bool:
        """Whether it is."""
        return self.endpoint in WAYS

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request whose path is this route's."""
        way = WAYS.get(self.endpoint)
        if way is None or scope["method"] not in (self.methods or ()) or _tells_more(scope):
            await super().handle(scope, receive, send)
            return
        try:
            key = way.type_.validate_python(scope["path_params"][way.key])
        except ValidationError:
            await super().handle(scope, receive, send)  # It says what is wrong.
            return
        response: Response = await self.endpoint(key, way.resource(scope["app"].state.resources))
        await response(scope, receive, send)


def _tells_more(scope: Scope) -> bool:
    return any(name in TELLING or (name == b"content-length" and value != b"0") for name, value in scope["headers"])
