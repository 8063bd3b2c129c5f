"""Answers: a reading becomes the bytes as they are stored, with the headers that say how it came.

ETag            "<version>-<epoch>", opaque to a client; none where nobody knows which epoch it is
Cache-Status    cache-aside; hit; ttl=271 | read-through; fwd=miss; stored | … (RFC 9211, the strategy is the cache)
"""

import re
from collections.abc import Sequence
from json import detect_encoding
from typing import Annotated, Any

from fastapi import Depends, Header, HTTPException, Request, Response
from pydantic import WithJsonSchema

from app.caching import Outcome, Reading
from app.routers.problems import Responses, problem
from app.routers.refusals import short
from app.row_tag import Expected as ExpectedTags
from app.row_tag import row_tag

# One element of a list, with the comma or the end behind it: an entity tag, weak or not, or nothing at all (RFC 9110,
# sections 8.8.3 and 5.6.1). No two repetitions meet in it, so a long line of blanks costs no more than its length.
ELEMENT = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*)?(?:,|\Z)')
MALFORMED = 'A precondition must be * or a list of entity tags in double quotes, like "7" or "7", "8".'
MOST_TAGS = 100
TOO_MANY = f"A precondition may name at most {MOST_TAGS} entity tags, and not {{:,}}."


def header(description: str, example: str) -> dict[str, Any]:
    """What OpenAPI says of a header that is always there."""
    return {"description": description, "required": True, "schema": {"type": "string", "examples": [example]}}


TAG = '"7-3f9c2a10b4d5e6f7"'
ETAG = {
    "ETag": header("Names this content of the row, for preconditions. There is none while stores change.", TAG)
    | {"required": False}
}
CACHE_STATUS = {"Cache-Status": header("How the answer came: RFC 9211.", "cache-aside; hit; ttl=271")}
LOCATION = {"Location": header("Where it is.", "/users/1001")}

READ: Responses = {
    200: {"description": "The row, from the cache or from the database.", "headers": ETAG | CACHE_STATUS},
    304: {"description": "You have this version.", "headers": ETAG | CACHE_STATUS},
}
CREATED: Responses = {201: {"description": "The row as it is in the database.", "headers": ETAG | LOCATION}}
CHANGED: Responses = {200: {"description": "The row as it is in the database.", "headers": ETAG}}
"""What OpenAPI says of the answers below."""


def answer(reading: Reading[Any], strategy: str, *, missing: str, if_none_match: list[str] | None) -> Response:
    """200 with the stored bytes, 304 when the client has this version, 404 with the sentence `missing`."""
    status = cache_status(reading, strategy)
    if reading.payload is None:
        return problem(404, "not-found", missing, headers={"Cache-Status": status})
    tag = None if reading.epoch is None else row_tag(reading.version, reading.epoch)
    headers = [(b"cache-status", status.encode())]
    if tag is not None:
        headers.append((b"etag", b'"%b"' % tag.encode()))
    if if_none_match is not None and matches(if_none_match, tag):
        response = Response(status_code=304)
        response.raw_headers = headers
        return response
    return Json(reading.payload, headers=headers)


class Json(Response):
    """JSON that is sent as it is. Starlette's own response takes longer to write its headers than a hit to be found."""

    def __init__(self, body: bytes, status: int = 200, headers: Sequence[tuple[bytes, bytes]] = ()) -> None:
        self.status_code, self.body, self.background = status, body, None
        length, kind = (b"content-length", b"%d" % len(body)), (b"content-type", b"application/json")
        self.raw_headers = [*headers, length, kind]


def cache_status(reading: Reading[Any], strategy: str) -> str:
    """How the reading came about."""
    ttl = int(reading.ttl_ms // 1000)
    match reading.outcome:
        case Outcome.HIT:
            # While the database does not answer, nobody can say whether somebody else has changed the row meanwhile.
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


def matches(if_none_match: list[str], etag: str | None) -> bool:
    """Whether If-None-Match names this tag; None is named by * only. The comparison is weak: W/"7" names "7"."""
    return _any(if_none_match) or etag in [tag for _weak, tag in _tags(if_none_match)]


def written(value: Any, *, status: int = 200, location: str | None = None) -> Response:
    """The row as the database has it now."""
    headers = {} if value.epoch is None else {"ETag": f'"{row_tag(value.version, value.epoch)}"'}
    if location is not None:
        headers["Location"] = location
    return Response(value.model_dump_json(), status, headers=headers, media_type="application/json")


def _tags(lines: list[str]) -> list[tuple[bool, str]]:
    text, tags, at = ",".join(lines), [], 0
    # A tag may have commas in it, but not so many. Millions of elements, looked at one by one, would hold up everyone.
    if (commas := text.count(",")) >= 10 * MOST_TAGS:
        raise HTTPException(400, TOO_MANY.format(commas + 1))
    while at < len(text):
        match = ELEMENT.match(text, at)
        if match is None:
            raise HTTPException(400, MALFORMED)
        if match[2] is not None:
            tags.append((match[1] is not None, match[2]))
        at = match.end()
    if not tags:
        raise HTTPException(400, MALFORMED)
    if len(tags) > MOST_TAGS:
        raise HTTPException(400, TOO_MANY.format(len(tags)))
    return tags


def _any(lines: list[str]) -> bool:
    return [line.strip() for line in lines] == ["*"]


TAGS = WithJsonSchema(
    {
        "type": "string",
        "pattern": r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$',
        "examples": [TAG, f'{TAG}, "8-3f9c2a10b4d5e6f7"', "*"],
    }
)
"""One header for OpenAPI, though several with one name are read as one list."""


async def _expected(
    if_match: Annotated[
        list[str] | None, TAGS, Header(description="Only if the row is in one of these versions.")
    ] = None,
) -> ExpectedTags | None:
    if if_match is None or _any(if_match):
        return None
    tags = _tags(if_match)
    return ExpectedTags(frozenset(tag for weak, tag in tags if not weak), frozenset(tag for weak, tag in tags if weak))


Expected = Annotated[ExpectedTags | None, Depends(_expected)]
"""The tags that If-Match names, None for any."""

IfNoneMatch = Annotated[
    list[str] | None, TAGS, Header(description="Answer 304 if the row is in one of these versions.")
]


async def _json_only(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )
    body = await request.body()
    if body and not is_json:
        declared = f"not as {short(content_type)}" if content_type else "and there is no Content-Type"
        raise HTTPException(415, f"The body must be declared as application/json, {declared}.")
    # Python's reader also takes UTF-16 and UTF-32; JSON that is sent to somebody is UTF-8 (RFC 8259, section 8.1).
    if not detect_encoding(body).startswith("utf-8"):
        raise HTTPException(400, "The body cannot be read: it is not UTF-8.")


JsonOnly = Depends(_json_only)
"""Refuses a body of another type with 415, and of another encoding with 400."""
