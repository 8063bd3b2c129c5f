"""Errors as `application/problem+json` (RFC 9457): what went wrong, in a sentence with the value.

A refused input is never echoed as a whole: it may be huge, or not even be text that JSON can carry.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.routing import Match

from app.caching import CacheUnavailable, LoadTimeout
from app.errors import Conflict, DatabaseUnavailable, NotFound, PreconditionFailed

logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")

STATUSES: Mapping[type[Exception], tuple[int, str]] = {
    NotFound: (404, "not-found"),
    Conflict: (409, "conflict"),
    PreconditionFailed: (412, "precondition-failed"),
    DatabaseUnavailable: (503, "database-unavailable"),
    CacheUnavailable: (503, "cache-unavailable"),
    LoadTimeout: (503, "load-timeout"),
}
"""Which status an error has, and the type by which a client tells it from others with that status."""

FORMS = {
    "email": "must look like name@example.com",
    "name": "must not contain a NUL character",
    "description": "must not contain a NUL character",
    "price": "must be a decimal number as text, like 12.50: up to 10 digits, and up to 4 behind the point",
    "sku": "must not contain control characters, nor begin or end with a blank",
}
"""What a pattern means, in words."""


class Refusal(BaseModel):
    """One thing that is wrong with a request."""

    where: str = Field(examples=["body.email"])
    what: str = Field(examples=["must look like name@example.com"])


class Problem(BaseModel):
    """An error, as RFC 9457 has it."""

    type: str = Field(description="What kind of error this is, for programs.", examples=["not-found"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field(description="What went wrong, for people.", examples=["There is no user 7."])
    errors: list[Refusal] | None = Field(None, description="What is wrong with the request, part by part.")


DESCRIPTIONS = {
    400: "The request cannot be read: broken JSON, text that is not UTF-8, a malformed header.",
    404: "There is no such thing.",
    409: "Somebody else has it already.",
    412: "The row is in another version than `If-Match` names.",
    413: "The body is larger than 4 MiB.",
    415: "The body is not declared as JSON.",
    422: "The request can be read, and is not allowed.",
    503: "A store does not answer; `Retry-After` says when to come back.",
}


def documented(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The OpenAPI description of the problems that a call can answer."""
    schema = {"schema": {"$ref": "#/components/schemas/Problem"}}
    return {status: {"description": DESCRIPTIONS[status], "content": {MEDIA_TYPE: schema}} for status in statuses}


def problem(
    status: int, kind: str, detail: str, *, headers: Mapping[str, str] | None = None, **more: Any
) -> JSONResponse:
    """The answer to a request that failed."""
    content = {"type": kind, "title": HTTPStatus(status).phrase, "status": status, "detail": detail, **more}
    return JSONResponse(content, status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def install(app: FastAPI) -> None:
    """Makes a problem of every error that can leave a route."""
    for error in STATUSES:
        app.add_exception_handler(error, _known)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _unknown)


async def _known(request: Request, error: Exception) -> JSONResponse:
    status, kind = STATUSES[type(error)]
    if status == 503:
        logger.warning("%s %s: %s", request.method, request.url.path, error)
        return problem(status, kind, str(error), headers={"Retry-After": "1"})
    return problem(status, kind, str(error))


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    details = error.errors()
    if any(detail["type"] == "json_invalid" for detail in details):
        return problem(400, "unreadable", f"The body is not JSON: {details[0]['ctx']['error']}.")
    errors = [{"where": ".".join(map(_plain, detail["loc"])), "what": _what(detail)} for detail in details]
    return problem(
        422, "invalid", "; ".join(f"{one['where']} {one['what']}" for one in errors[:5]) + ".", errors=errors
    )


def _what(detail: Mapping[str, Any]) -> str:
    if detail["type"] == "string_pattern_mismatch":
        name = next((str(part) for part in reversed(detail["loc"]) if str(part) in FORMS), "")
        return FORMS.get(name, "does not have the right form")
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return _plain(message[0].lower() + message[1:])


def _plain(part: Any) -> str:
    # A field's name comes from the client, and may be long, or hold half of a surrogate pair, which is not text.
    return str(part)[:100].encode(errors="replace").decode()


async def _http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    headers, detail = dict(error.headers or {}), str(error.detail)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        detail = f"{request.url.path} does not take {request.method}, but {headers['Allow']}."
    elif error.status_code == 404:
        detail = f"There is nothing at {request.url.path}."
    elif error.status_code == 413:
        detail = "The body is larger than 4 MiB."
    elif error.status_code == 400 and detail == "There was an error parsing the body":
        detail = "The body cannot be read: it is not UTF-8, or is nested too deeply."
    kind = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
    return problem(error.status_code, kind, detail, headers=headers)


def _allowed(request: Request) -> list[str]:
    # The router names the methods of the first route that has this path; there may be several routes.
    def takes(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.routes)

    allowed = [method for method in METHODS if takes(method)]
    return [*allowed, "HEAD"] if "GET" in allowed else allowed


async def _unknown(request: Request, error: Exception) -> JSONResponse:
    # Starlette raises it again behind this answer, so that the server logs it with its traceback.
    return problem(500, "internal-error", "Something went wrong that nobody expected; the log has it.")
