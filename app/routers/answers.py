"""Answers: sends a reading's bytes as stored, with the headers that say where it came from.

ETag            "<version>-<epoch>", opaque to a client; absent if the epoch is unknown
Cache-Control   no-cache: caches revalidate each time, which the ETag makes cheap
Cache-Status    cache-aside; hit; ttl=271 | read-through; fwd=miss; stored | … (RFC 9211, the strategy is the cache)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from json import detect_encoding
from typing import Any

from fastapi import Depends, HTTPException, Request, Response

from app.caching import Outcome, Reading
from app.routers.preconditions import TAG, refuse_preconditions
from app.routers.problems import Responses, problem
from app.routers.refusals import short
from app.row_tag import Expected, row_tag
from app.speed.direct_way import unneeded


def header(description: str, example: str) -> dict[str, Any]:
    """Returns the OpenAPI entry of a header that is always present."""
    return {"description": description, "required": True, "schema": {"type": "string", "examples": [example]}}


ETAG = {
    "ETag": header("Names this content of the row, for preconditions. There is none while stores change.", TAG)
    | {"required": False}
}
CACHE_STATUS = {"Cache-Status": header("How the answer came: RFC 9211.", "cache-aside; hit; ttl=271")}
KEPT = {"Cache-Control": header("That it is to be asked for anew each time: RFC 9111.", "no-cache")}
LOCATION = {"Location": header("Where it is.", "/users/1001")}

READ: Responses = {
    200: {"description": "The row, from the cache or from the database.", "headers": ETAG | CACHE_STATUS | KEPT},
    304: {"description": "You have this version.", "headers": ETAG | CACHE_STATUS | KEPT},
}
CREATED: Responses = {201: {"description": "The row as it is in the database.", "headers": ETAG | LOCATION | KEPT}}
CHANGED: Responses = {200: {"description": "The row as it is in the database.", "headers": ETAG | KEPT}}
"""What OpenAPI says about the answers below."""


@dataclass(frozen=True, slots=True)
class Kind:
    """How answers name the rows of a resource. The braces stand for a row's key."""

    strategy: str
    row: str
    missing: str
    kept: tuple[bytes, bytes]
    """The Cache-Control header of an answer."""


def answer(reading: Reading[Any], kind: Kind, key: object, expected: Expected | None) -> Response:
    """Returns 200 with the stored bytes, 304 if the client has this version, 404 if there is no such row.

    Raises PreconditionFailed.
    """
    status = cache_status(reading, kind.strategy)
    if reading.payload is None:
        return problem(404, "not-found", kind.missing.format(key), headers={"Cache-Status": status})
    headers, tag = [(b"cache-status", status.encode()), kind.kept], None
    if reading.epoch is not None:
        tag = row_tag(reading.version, reading.epoch)
        headers.append((b"etag", f'"{tag}"'.encode()))
    if expected is not None:
        so = f"{kind.row.format(key)} is in version {reading.version}"
        if (mismatch := expected.mismatch(so, tag)) is not None:
            raise mismatch
        if expected.known(tag):
            return bare(304, *headers)
    return Json(reading.payload, headers=headers)


class Json(Response):
    """JSON sent as it is. Starlette's own response takes longer to build its headers than a cache hit takes."""

    def __init__(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.status_code, self.body, self.background = status, body, None
        length, kind = (b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")
        self.raw_headers = [*headers, length, kind]


def cache_status(reading: Reading[Any], strategy: str) -> str:
    """Returns the Cache-Status header of a reading."""
    ttl = int(reading.ttl_ms // 1000)
    match reading.outcome:
        case Outcome.HIT:
            # While the database does not answer, it is unknown whether another client has changed the row.
            return f"{strategy}; hit; ttl={ttl}" + ("" if reading.verified else "; detail=unverified")
        case Outcome.STALE:
            return f"{strategy}; hit; ttl={ttl}; detail=stale-if-error"
        case Outcome.COLLAPSED:
            return f"{strategy}; fwd=miss; collapsed"
        case Outcome.LOCKED:
            return f"{strategy}; fwd=bypass; detail=locked"
        case Outcome.BYPASSED:
            return f"{strategy}; fwd=bypass; detail=cache-unavailable"
        case Outcome.MISS:
            return f"{strategy}; fwd=miss; stored" if reading.stored else f"{strategy}; fwd=miss"


def written(value: Any, kind: Kind, *, status: int = 200, location: str | None = None) -> Response:
    """Returns an answer with the row as the database has it after a write."""
    headers = [kind.kept]
    if value.epoch is not None:
        headers.append((b"etag", b'"%b"' % row_tag(value.version, value.epoch).encode()))
    if location is not None:
        headers.append((b"location", location.encode()))
    return Json(value.model_dump_json().encode(), status, headers)


def bare(status: int, *headers: tuple[bytes, bytes]) -> Response:
    """Returns an answer without a body."""
    response = Response(status_code=status)
    response.raw_headers = list(headers)
    return response


@unneeded
async def _json_only(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )
    body = await request.body()
    if body and not is_json:
        declared = f"not as {short(content_type)}" if content_type else "and there is no Content-Type"
        raise HTTPException(415, f"The body must be declared as application/json, {declared}.")
    # Python's JSON parser also accepts UTF-16 and UTF-32, but exchanged JSON must be UTF-8 (RFC 8259, section 8.1).
    if not detect_encoding(body).startswith("utf-8"):
        raise HTTPException(400, "The body cannot be read: it is not UTF-8.")


@unneeded
async def _unconditional_json(request: Request) -> None:
    await _json_only(request)
    refuse_preconditions(request)


JsonOnly = Depends(_json_only)
"""Refuses a body of another type with 415, and one of another encoding with 400."""
UnconditionalJson = Depends(_unconditional_json)
"""Does what `JsonOnly` does, and refuses preconditions. One dependency, because each adds a twentieth to the cost of a
view with a body."""
