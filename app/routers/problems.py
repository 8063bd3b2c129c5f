"""Errors as `application/problem+json` (RFC 9457): what went wrong, in a sentence with the value.

A refused input is never echoed in full: it may be huge, or a secret, or text that JSON cannot represent.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.availability import misfit
from app.caching import (
    BacklogFull,
    Behind,
    CacheUnavailable,
    KeysFull,
    KeyUnreadable,
    KeyWorn,
    LoadTimeout,
    NotDone,
    Overloaded,
    TargetUnavailable,
    TotalOverflow,
    Unreadable,
)
from app.errors import (
    Conflict,
    DatabaseUnavailable,
    KeyReused,
    NotFound,
    OtherHistory,
    OutcomeUnknown,
    OutOfStock,
    PreconditionFailed,
    StandbyMet,
    TookTooLong,
    TooMuch,
    UnreadableRow,
    Unrepresentable,
)
from app.header_fields import header_fields
from app.request_id import request_id, sent_id
from app.routers.cache_control import UnkeptJSON
from app.routers.examples import EXAMPLES
from app.routers.letting_go import letting_go
from app.routers.refusals import Refusal, refusals, short

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

STATUSES: Mapping[type[Exception], tuple[int, str]] = {
    NotFound: (404, "not-found"),
    Conflict: (409, "conflict"),
    PreconditionFailed: (412, "precondition-failed"),
    OutOfStock: (409, "out-of-stock"),
    TooMuch: (422, "too-much"),
    KeyReused: (422, "key-reused"),
    UnreadableRow: (500, "unreadable-row"),
    Unreadable: (500, "unreadable-row"),
    DatabaseUnavailable: (503, "database-unavailable"),
    TookTooLong: (503, "database-unavailable"),
    StandbyMet: (503, "database-unavailable"),
    OtherHistory: (503, "database-unavailable"),
    OutcomeUnknown: (503, "outcome-unknown"),
    NotDone: (503, "database-unavailable"),
    TargetUnavailable: (503, "database-unavailable"),
    CacheUnavailable: (503, "cache-unavailable"),
    LoadTimeout: (503, "load-timeout"),
    Overloaded: (503, "overloaded"),
    BacklogFull: (503, "backlog-full"),
    KeysFull: (503, "keys-full"),
    KeyWorn: (422, "key-worn"),
    KeyUnreadable: (500, "unreadable-key"),
    Unrepresentable: (422, "invalid"),
    Behind: (503, "behind"),
    TotalOverflow: (422, "too-much"),
}
"""The status of each error, and the type that distinguishes it from others with that status."""

TITLES = {413: "Content Too Large", 414: "URI Too Long", 422: "Unprocessable Content"}
"""The names in RFC 9110 of statuses for which `http.HTTPStatus` had older ones before Python 3.13."""


class Problem(BaseModel):
    """An error, as RFC 9457 defines it."""

    type: str = Field(description="What kind of error this is, for programs.", examples=["not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What went wrong, for people.", examples=["There is no user 7."])
    errors: list[Refusal] | None = Field(None, description="What is wrong with the request, part by part.")
    available: int | None = Field(None, description="How many pieces there are, when there are too few.")
    requested: int | None = Field(None, description="How many pieces were to be taken, when there are too few.")
    request_id: str | None = Field(None, description="For a 5xx: what its lines in the log of the service begin with.")


Responses = dict[int | str, dict[str, Any]]
"""What OpenAPI says about the answers of a call, by status."""
NAMED: Responses = {304: {"description": "`If-None-Match` is `*`, and it is there."}}
"""The 304 answer to a read whose target has no tag."""


def documented(*statuses: int) -> Responses:
    """Returns what OpenAPI says about the problems of a call: these statuses, and those that any call can answer."""
    answers: Responses = {}
    for status in sorted({400, 408, 413, 414, 431, 501, 505, *statuses}):
        answers |= described(status, *EXAMPLES[status])
    return answers


def described(status: int, description: str, kind: str, detail: str, **more: Any) -> Responses:
    """Returns what OpenAPI says about one problem, for a call that describes it better than `documented` does."""
    example = _content(status, kind, detail) | more
    content = {"schema": {"$ref": "#/components/schemas/Problem"}, "example": example}
    answer: dict[str, Any] = {"description": description, "content": {MEDIA_TYPE: content}}
    if status == 503:
        answer["headers"] = {"Retry-After": {"required": True, "schema": {"type": "string", "examples": ["1"]}}}
    return {status: answer}


def problem(
    status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """Returns the answer to a failed request."""
    content = _content(status, kind, detail) | more
    if status >= 500 and (known := request_id()) is not None:
        content["request_id"] = known
    return UnkeptJSON(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def _content(status: int, kind: str, detail: str) -> dict[str, Any]:
    return {"type": kind, "title": _title(status), "status": status, "detail": detail}


def _title(status: int) -> str:
    return TITLES.get(status, HTTPStatus(status).phrase)


def install(app: FastAPI) -> None:
    """Installs handlers that turn every error of a route into a problem."""
    for error in STATUSES:
        app.add_exception_handler(error, letting_go(_known))
    app.add_exception_handler(RequestValidationError, letting_go(_invalid))
    app.add_exception_handler(HTTPException, letting_go(_http))
    app.add_exception_handler(DBAPIError, letting_go(_misfit))
    app.add_exception_handler(Exception, _unknown)


async def _known(request: Request, error: Exception) -> JSONResponse:
    status, kind = next(STATUSES[each] for each in type(error).__mro__ if each in STATUSES)
    if status == 500:
        logger.error("%s %r: %s", request.method, request.scope["path"], error)
    if status == 503:
        logger.warning("%s %r: %s", request.method, request.scope["path"], error)
        return problem(status, kind, str(error), headers={"Retry-After": "1"})
    if isinstance(error, OutOfStock):
        return problem(status, kind, str(error), available=error.available, requested=error.requested)
    return problem(status, kind, str(error))


async def _misfit(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, DBAPIError)
    if (why := misfit(error)) is None:
        raise error
    return problem(422, "invalid", f"Postgres says: {why}.")


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if details[0]["type"] == "json_invalid":
        position, what = details[0]["loc"][1], str(details[0]["ctx"]["error"]).removesuffix(" at")
        return problem(400, "unreadable", f"The body is not JSON: {what}, at character {position + 1}.")
    listed = refusals(details)
    more = f"; and {len(details) - len(listed):,} more" if len(details) > len(listed) else ""
    return problem(
        422,
        "invalid",
        "; ".join(f"{one.where} {one.what}" for one in listed) + more + ".",
        errors=[one.model_dump() for one in listed],
    )


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    headers, detail = dict(error.headers or {}), str(error.detail)
    if error.status_code == 304:
        return Response(status_code=304, headers=headers)
    path = short(request.scope["path"])
    if error.status_code == 503:
        logger.warning("%s %r: %s", request.method, path, detail)
    if error.status_code == 405:
        # A mounted application names its own methods, and has no routes to search here.
        headers["Allow"] = ", ".join(_allowed(request)) or headers.get("Allow", "")
        detail = f"{path} does not take {short(request.method)}, but {headers['Allow']}."
    elif error.status_code == 404:
        detail = f"There is nothing at {path}."
    elif error.status_code == 400 and error.__cause__ is not None:
        detail = f"The body cannot be read: {_unreadable(error.__cause__)}."
    kinds = {400: "unreadable", 503: "overloaded"}
    kind = kinds.get(error.status_code) or _title(error.status_code).lower().replace(" ", "-")
    return problem(error.status_code, kind, detail, headers=headers)


def _unreadable(cause: BaseException) -> str:
    # The errors of Python's JSON parser besides its own; FastAPI answers 400 to each of them without naming it.
    if isinstance(cause, RecursionError):
        return "it is nested too deeply"
    if isinstance(cause, UnicodeDecodeError):
        return "it is not UTF-8"
    return "a number in it has too many digits"


def _allowed(request: Request) -> list[str]:
    # The router names only the methods of the first route with this path, and there may be several.
    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    allowed = [method for method in METHODS if takes(method)]
    return [*allowed, "HEAD"] if "GET" in allowed else allowed


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises the error again after this answer, so the server logs it with its traceback.
    sent = sent_id(header_fields(request.scope))  # This is answered outside of `Envelope`.
    headers = {"X-Request-ID": sent.decode()} if sent else {}
    return problem(500, "internal-error", "An unexpected error occurred; the log has it.", headers=headers)
