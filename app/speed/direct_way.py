"""The direct way from a request to its endpoint, where it has nothing in it but a key, or a list of keys.

    the whole way     a request, three exit stacks, the router, dependencies, validation, the endpoint, a response
    the direct way    the key, the endpoint, a response: a third of the work, and most of what a hit costs

Documentation, errors and endpoint are the same on both ways. Whatever has more to say goes the whole way: a body, a
precondition, an idempotency key, another parameter, a key that is not valid. It is a pure ASGI middleware, and the
innermost one: what others add, such as CORS or a login, is around it.

What can go wrong: an endpoint that reads another header would not see it here, so `direct` refuses one. A route or a
router with dependencies, such as a login, goes the whole way.
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

from app.speed.resource import Resource

D = TypeVar("D")
E = TypeVar("E", bound=Callable[..., Any])

TELLING = frozenset({b"if-match", b"if-none-match", b"idempotency-key", b"transfer-encoding", b"expect"})
"""A request with one of these headers, or with a body, goes the whole way."""
UNASKED = frozenset({"expected", "idempotency_key", "body"})
"""What an endpoint may ask for besides its key and its resource: it is in those headers, or in the body."""


@dataclass(frozen=True, slots=True)
class Direct:
    """What the direct way needs to know of an endpoint."""

    key: str
    type_: TypeAdapter[Any]
    argument: str
    """The one that takes the resource."""
    resource: Resource
    in_query: bool

    def given(self, scope: Scope, path: Mapping[str, Any]) -> Any:
        """The key as it was sent, or all that stand under its name in the query; None if that says something else, or
        has to be decoded."""
        if not self.in_query:
            return path[self.key]
        query: bytes = scope["query_string"]
        name, parts = self.key + "=", query.decode("latin-1").split("&")
        if b"%" in query or b"+" in query or not all(part.startswith(name) for part in parts):
            return None
        return [part.removeprefix(name) for part in parts]


WAYS: dict[Callable[..., Any], Direct] = {}
UNNEEDED: set[object] = set()
"""The dependencies, or their classes, that look at nothing but a body and the headers of `TELLING`."""


def direct(endpoint: E) -> E:
    """Marks an endpoint that may be called directly: with its key, by the rules that its annotation has, and with the
    `Resource` that it works on. It has to answer a response. Where its key is a list in the query, one for each time
    that the query names it, whatever else the query may say has a default.

    Raises ValueError for an endpoint that asks for more than the direct way knows.
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
    """Marks a dependency, or a class of them, that has nothing to look at on the direct way."""
    UNNEEDED.add(dependency)
    return dependency


class DirectWay:
    """Answers what may be answered directly, and leaves the rest to the application that it wraps.

    `routes` are the application's own, in the order in which it matches them.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        # By method and the first part of the path: next to nothing is left to be held against a route's pattern. A
        # route that goes the whole way stands there, too: what it takes, none behind it gets.
        self._routes: dict[tuple[str, str], list[tuple[Route, Direct | None]]] = {}
        for route in routes:
            # Another application, or another router, or who matches otherwise: nobody can say what is left to those
            # behind it.
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
        except Exception as error:  # noqa: BLE001  # It is raised where the application's own handlers hear it.
            await _failed(error, scope["app"])(scope, receive, send)
        else:
            await response(scope, receive, send)

    def _found(self, scope: Scope) -> tuple[Callable[..., Any], dict[str, Any]] | None:
        """The endpoint of a request and its arguments, if it may be called directly."""
        # What `matches` does, without what it does for the routes of others and below a path: a twentieth of a hit.
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
                return None  # The whole way says what is wrong.
            # As a router does: handlers and middlewares read which route it was.
            scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, named
            return route.endpoint, {way.key: key, way.argument: way.resource.of(scope["app"].state.resources)}
        return None


def _way(route: Route) -> Direct | None:
    """How to call its endpoint directly, if nothing is done before it but to look at what is not sent on this way."""
    free = type(route) is APIRoute and all(_is_ours(dependency) for dependency in route.dependencies)
    return WAYS.get(route.endpoint) if free else None


def _is_ours(dependency: Depends) -> bool:
    return dependency.dependency in UNNEEDED or type(dependency.dependency) in UNNEEDED


def _first(path: str) -> str:
    return path[: path.find("/", 1) + 1 or None]


def _failed(error: Exception, app: FastAPI) -> ASGIApp:
    """What an endpoint on the whole way makes of an error: an answer, or a log entry of the server's."""

    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise error

    known = {kind: handler for kind, handler in app.exception_handlers.items() if kind not in (500, Exception)}
    return ExceptionMiddleware(fails, known)


def _said(annotation: Any) -> Sequence[Any]:
    """What an annotation says besides the type."""
    said: Sequence[Any] = getattr(annotation, "__metadata__", ())
    return said


def _is_of_query(annotation: Any) -> bool:
    return any(isinstance(said, Query) for said in _said(annotation))


def _tells_more(scope: Scope) -> bool:
    headers = dict(scope["headers"])
    return not TELLING.isdisjoint(headers) or headers.get(b"content-length", b"0") != b"0"
