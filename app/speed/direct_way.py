"""The direct way from a request to its endpoint, for requests that contain nothing but a key or a list of keys.

    the whole way     a request, three exit stacks, the router, dependencies, validation, the endpoint, a response
    the direct way    the key, the endpoint, a response: a third of the work, and most of what a hit costs

Documentation, errors and endpoint are the same on both ways. Any request with more in it goes the whole way: a body, a
precondition, an idempotency key, another parameter, an invalid key. The direct way is a pure ASGI middleware, and the
innermost one, so other middleware, such as CORS or a login, still applies.

What can go wrong: an endpoint that reads another header would not get it on the direct way, so `direct` refuses such an
endpoint. A route or a router with dependencies, such as a login, goes the whole way.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar, get_type_hints

from fastapi import FastAPI, Response
from fastapi.params import Depends, Query
from fastapi.routing import APIRoute
from pydantic import TypeAdapter, ValidationError
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.header_fields import header_fields
from app.speed.resource import Resource

D = TypeVar("D")
E = TypeVar("E", bound=Callable[..., Any])

TELLING = frozenset({b"if-match", b"if-none-match", b"idempotency-key", b"transfer-encoding", b"expect"})
"""The headers that send a request the whole way, as a body does."""
UNASKED = frozenset({"expected", "idempotency_key", "body"})
"""The parameters that an endpoint may have besides its key and its resource: they come from those headers or the body.
"""


@dataclass(frozen=True, slots=True)
class Direct:
    """What the direct way needs to know about an endpoint."""

    key: str
    type_: TypeAdapter[Any]
    argument: str
    """The parameter that takes the resource."""
    resource: Resource
    in_query: bool

    def given(self, scope: Scope, path: Mapping[str, Any]) -> Any:
        """Returns the key as it was sent, or all values under its name in the query. Returns None if the query has
        other parameters or must be decoded."""
        if not self.in_query:
            return path[self.key]
        query: bytes = scope["query_string"]
        name, parts = self.key + "=", query.decode("latin-1").split("&")
        if b"%" in query or b"+" in query or not all(part.startswith(name) for part in parts):
            return None
        return [part.removeprefix(name) for part in parts]


WAYS: dict[Callable[..., Any], Direct] = {}
UNNEEDED: set[object] = set()
"""The dependencies, or their classes, that read only the body and the headers in `TELLING`."""


def direct(endpoint: E) -> E:
    """Marks an endpoint that may be called directly: with its key, validated by its annotation, and the `Resource`
    that it works on. The endpoint must return a response. If the key is a list in the query, one value per occurrence,
    all other query parameters must have defaults.

    Raises ValueError for an endpoint with parameters that the direct way cannot supply.
    """
    types = get_type_hints(endpoint, include_extras=True)
    parameters = list(inspect.signature(endpoint).parameters)
    resources = {
        name: said.dependency
        for name in parameters
        for said in _said(types[name])
        if isinstance(said, Depends) and isinstance(said.dependency, Resource)
    }
    if len(resources) != 1:
        raise ValueError(f"{endpoint.__name__} works on {len(resources)} resources, and the direct way knows one.")
    ((argument, resource),) = resources.items()
    key, *others = (name for name in parameters if name != argument)
    in_query = _is_of_query(types[key])
    more = [name for name in others if name not in UNASKED and not (in_query and _is_of_query(types[name]))]
    if more:
        raise ValueError(f"{endpoint.__name__} asks for more than the direct way can tell: {', '.join(more)}.")
    WAYS[endpoint] = Direct(key, TypeAdapter(types[key]), argument, resource, in_query)
    return endpoint


def unneeded(dependency: D) -> D:
    """Marks a dependency, or a class of dependencies, that has nothing to check on the direct way."""
    UNNEEDED.add(dependency)
    return dependency


class DirectWay:
    """Answers requests that can be answered directly, and passes all others to the wrapped application.

    `routes` are the application's routes, in matching order.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        # Keyed by method and first path segment, so that few patterns are left to match. Routes that go the whole way
        # are listed too: they shadow the routes after them.
        self._routes: dict[tuple[str, str], list[tuple[Route, Direct | None]]] = {}
        for route in routes:
            # A mounted application, another router, or a route with its own matching: it is unknown what it leaves to
            # the routes after it.
            if not isinstance(route, Route) or type(route).matches not in (Route.matches, APIRoute.matches):
                break
            if not route.methods or "{" in _first(route.path):
                break
            for method in route.methods:
                self._routes.setdefault((method, _first(route.path)), []).append((route, _way(route)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self._found(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        endpoint, arguments = found
        try:
            response: Response = await endpoint(**arguments)
        except Exception as error:  # noqa: BLE001  # Raised again where the application's handlers see it.
            await _failed(error, scope["app"])(scope, receive, send)
        else:
            await response(scope, receive, send)

    def _found(self, scope: Scope) -> tuple[Callable[..., Any], dict[str, Any]] | None:
        """Returns the endpoint of a request and its arguments, if it may be called directly."""
        # Does what `Route.matches` does, except for mounts and root paths. That saves a twentieth of a hit.
        path: str = scope["path"]
        for route, way in self._routes.get((scope["method"], _first(path)), ()):
            match = route.path_regex.match(path)
            if match is None:
                continue
            if way is None or scope.get("root_path") or _tells_more(scope):
                return None
            named = {name: route.param_convertors[name].convert(value) for name, value in match.groupdict().items()}
            given = way.given(scope, named)
            if given is None:
                return None
            try:
                key = way.type_.validate_python(given)
            except ValidationError:
                return None  # The whole way reports what is wrong.
            # A router sets these, and handlers and middleware read them.
            scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, named
            return route.endpoint, {way.key: key, way.argument: way.resource.of(scope["app"].state.resources)}
        return None


def _way(route: Route) -> Direct | None:
    """Returns how to call the route's endpoint directly, if all its dependencies are marked `unneeded`."""
    free = type(route) is APIRoute and all(_is_ours(dependency) for dependency in route.dependencies)
    return WAYS.get(route.endpoint) if free else None


def _is_ours(dependency: Depends) -> bool:
    return dependency.dependency in UNNEEDED or type(dependency.dependency) in UNNEEDED


def _first(path: str) -> str:
    return path[: path.find("/", 1) + 1 or None]


def _failed(error: Exception, app: FastAPI) -> ASGIApp:
    """Returns an application that handles `error` as on the whole way: with an answer, or a log entry of the server."""

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    known = {kind: handler for kind, handler in app.exception_handlers.items() if kind not in (500, Exception)}
    return ExceptionMiddleware(fails, known)


def _said(annotation: Any) -> Sequence[Any]:
    """Returns the metadata of an annotation, besides the type."""
    said: Sequence[Any] = getattr(annotation, "__metadata__", ())
    return said


def _is_of_query(annotation: Any) -> bool:
    return any(isinstance(said, Query) for said in _said(annotation))


def _tells_more(scope: Scope) -> bool:
    headers = header_fields(scope)
    return not TELLING.isdisjoint(headers) or headers.get(b"content-length", b"0") != b"0"
