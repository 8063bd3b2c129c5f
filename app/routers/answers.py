"""Answers: a reading becomes the bytes as they are stored, with the headers that say how it came.

ETag            "<version>"
Cache-Status    cache-aside; hit; ttl=271 | read-through; fwd=miss; stored | … (RFC 9211, the strategy is the cache)
"""

import re
from datetime import timedelta
from typing import Annotated, Any

from fastapi import Depends, Header, HTTPException, Request, Response

from app.caching import Outcome, Reading
from app.routers.problems import problem

# An entity tag (RFC 9110, section 8.8.3), weak or not, and what may stand between two of them.
TAG = re.compile(r'\s*(W/)?"([\x21\x23-\x7e\x80-\xff]*)"\s*(?:,|$)')


def answer(reading: Reading[Any], strategy: str, *, missing: str, if_none_match: list[str] | None) -> Response:
    """200 with the stored bytes, 304 when the client has this version, 404 with the sentence `missing`."""
    headers = {"Cache-Status": cache_status(reading, strategy)}
    if reading.payload is None:
        return problem(404, "not-found", missing, headers=headers)
    headers["ETag"] = f'"{reading.version}"'
    # Here the comparison is weak: W/"7" names the same version.
    if if_none_match is not None and (
        _any(if_none_match) or str(reading.version) in (tag for _weak, tag in _tags(if_none_match))
    ):
        return Response(status_code=304, headers=headers)
    return Response(reading.payload, headers=headers, media_type="application/json")


def cache_status(reading: Reading[Any], strategy: str) -> str:
    """How the reading came about."""
    ttl = int(reading.ttl // timedelta(seconds=1))
    match reading.outcome:
        case Outcome.HIT:
            return f"{strategy}; hit; ttl={ttl}"
        case Outcome.STALE:
            return f"{strategy}; hit; ttl={ttl}; detail=stale-if-error"
        case Outcome.COLLAPSED:
            return f"{strategy}; fwd=miss; collapsed"
        case Outcome.BYPASSED:
            return f"{strategy}; fwd=bypass; detail=cache-unavailable"
        case Outcome.MISS:
            return f"{strategy}; fwd=miss; stored" if reading.stored else f"{strategy}; fwd=miss"


def written(value: Any, *, status: int = 200, location: str | None = None) -> Response:
    """The row as the database has it now."""
    headers = {"ETag": f'"{value.version}"'}
    if location is not None:
        headers["Location"] = location
    return Response(value.model_dump_json(), status, headers=headers, media_type="application/json")


def _tags(lines: list[str]) -> list[tuple[bool, str]]:
    text, tags, at = ",".join(lines), [], 0
    while at < len(text):
        match = TAG.match(text, at)
        if match is None:
            raise HTTPException(400, 'A precondition must be "*" or a list of entity tags, like "7" or "7", "8".')
        tags.append((match[1] is not None, match[2]))
        at = match.end()
    return tags


def _any(lines: list[str]) -> bool:
    return [line.strip() for line in lines] == ["*"]


async def _expected(
    if_match: Annotated[
        list[str] | None, Header(description='Only if the row is in one of these versions: `"7"`, a list, or `*`.')
    ] = None,
) -> frozenset[int] | None:
    if if_match is None or _any(if_match):
        return None
    # A weak tag never matches here, nor does one that is not a version as we write it.
    numbers = (tag for weak, tag in _tags(if_match) if not weak and re.fullmatch(r"[1-9][0-9]{0,18}", tag))
    return frozenset(number for number in map(int, numbers) if number < 2**63)


Expected = Annotated[frozenset[int] | None, Depends(_expected)]
"""The versions that If-Match names, None for any."""

IfNoneMatch = Annotated[
    list[str] | None, Header(description='Answer 304 if the row is in one of these versions: `"7"`, a list, or `*`.')
]


async def _json_only(request: Request) -> None:
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    is_json = content_type == "application/json" or (
        content_type.startswith("application/") and content_type.endswith("+json")
    )
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if has_body and not is_json:
        raise HTTPException(415, f"The body must be declared as application/json, not as {content_type or 'nothing'}.")


JsonOnly = Depends(_json_only)
"""Refuses a body of another type with 415."""
