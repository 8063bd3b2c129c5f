"""A route that calls its endpoint directly, where a request has nothing in it but a key, or a list of keys.

    the whole way     a request object, two exit stacks, dependencies, validation, the endpoint, a response object
    the direct way    the key, the endpoint, a response: a third of the work, and most of what a hit costs

Router, documentation, errors and endpoint are the same on both ways. Whatever has more to say goes the whole way: a
body, a precondition, an idempotency key, another parameter, a key that is not valid.

What can go wrong: an endpoint that reads another header would not see it here. So `direct` refuses one.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from fastapi import Response
from fastapi.params import Query
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
    argument: str
    """The one that takes the resource."""
    resource: Callable[[Resources], Any]
    in_query: bool

    def given(self, scope: Scope) -> Any:
        """The key as it was sent, or all that stand under its name in the query; None if that says something else, or
        has to be decoded."""
        if not self.in_query:
            return scope["path_params"][self.key]
        query: bytes = scope["query_string"]
        name, parts = self.key + "=", query.decode("latin-1").split("&")
        if b"%" in query or b"+" in query or not all(part.startswith(name) for part in parts):
            return None
        return [part.removeprefix(name) for part in parts]


LAST = 2

WAYS: dict[Callable[..., Any], Direct] = {}


def direct(resource: Callable[[Resources], Any], *, in_query: bool = False) -> Callable[[E], E]:
    """Marks an endpoint that may be called directly: with its key, by the rules that its annotation has, and with a
    resource. It has to answer a response. `in_query` says that its key is a list, one for each time that the query
    names it; whatever else the query may tell has a default."""

    def mark(endpoint: E) -> E:
        key, argument, *others = inspect.signature(endpoint).parameters
        types = get_type_hints(endpoint, include_extras=True)
        if in_query:
            key, argument = argument, key  # It has a default, and so stands behind the resource.
            others = [other for other in others if not _is_of_query(types[other])]
        if not UNASKED.issuperset(others):
            raise ValueError(f"{endpoint.__name__} asks for more than the direct way can tell: {', '.join(others)}.")
        WAYS[endpoint] = Direct(key, TypeAdapter(types[key]), argument, resource, in_query)
        return endpoint

    return mark


class DirectRoute(APIRoute):
    """A route whose endpoint may be marked as `direct`."""

    @property
    def place(self) -> int:
        """Where it is to stand in a router, which holds a request against one route after the other: hits first."""
        way = WAYS.get(self.endpoint)
        return LAST if way is None else int(way.in_query)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request whose path is this route's."""
        way = WAYS.get(self.endpoint)
        given = None
        if way is not None and scope["method"] in (self.methods or ()) and not _tells_more(scope):
            given = way.given(scope)
        if way is None or given is None:
            await super().handle(scope, receive, send)
            return
        try:
            key = way.type_.validate_python(given)
        except ValidationError:
            await super().handle(scope, receive, send)  # It says what is wrong.
            return
        response: Response = await self.endpoint(
            **{way.key: key, way.argument: way.resource(scope["app"].state.resources)}
        )
        await response(scope, receive, send)


def _is_of_query(annotation: Any) -> bool:
    return any(isinstance(said, Query) for said in getattr(annotation, "__metadata__", ()))


def _tells_more(scope: Scope) -> bool:
    return any(name in TELLING or (name == b"content-length" and value != b"0") for name, value in scope["headers"])
