"""Preconditions: the state that the target of a request must be in (RFC 9110, section 13).

If-Match         412 unless the row is in one of these versions; `*`: unless there is a row
If-None-Match    304 to a read, 412 to a change, if the row is in one of these versions; `*`: if there is a row

If-Match is checked first, and preconditions only after everything that fails without them: a missing row is 404. A
change checks its condition in the statement itself. A target without a tag, like a page of a list, matches only `*`. A
view cannot be counted conditionally, because counting does not read the total: 422.

If-Modified-Since and If-Unmodified-Since are ignored, as RFC 9110 requires where no answer has a Last-Modified. Range
and If-Range are ignored, because no row is sent in parts.
"""

import re
from typing import Annotated, Any

from fastapi import Depends, Header, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from pydantic import WithJsonSchema

from app.errors import PreconditionFailed
from app.row_tag import Expected
from app.speed.direct_way import unneeded

# One element of a list, with the comma or the end after it: an entity tag, weak or not, or nothing at all (RFC 9110,
# sections 8.8.3 and 5.6.1). No two repetitions are adjacent in it, so matching a long line of blanks takes linear time.
ELEMENT = re.compile(r'[ \t]*(?:(W/)?"([\x21\x23-\x7e\x80-\xff]*)"[ \t]*)?(?:,|\Z)')
MALFORMED = 'A precondition must be * or a list of entity tags in double quotes, like "7" or "7", "8".'
MOST_TAGS = 100
TOO_MANY = f"A precondition may name at most {MOST_TAGS} entity tags, and not {{:,}}."
TAG = '"7-3f9c2a10b4d5e6f7"'

TAGS = WithJsonSchema(
    {
        "type": "string",
        "pattern": r'^(\*|(W/)?"[!#-~]*"( *, *(W/)?"[!#-~]*")*)$',
        "examples": [TAG, f'{TAG}, "8-3f9c2a10b4d5e6f7"', "*"],
    }
)
"""The header's schema for OpenAPI: one header, although several with the same name are read as one list."""


async def _expected(
    if_match: Annotated[
        list[str] | None,
        TAGS,
        Header(description="Only if its tag is one of these, or it is there (`*`): else 412. A weak tag is none."),
    ] = None,
    if_none_match: Annotated[
        list[str] | None,
        TAGS,
        Header(description="Only if its tag is none of these, or it is not there (`*`): else 304 to a read, or 412."),
    ] = None,
) -> Expected | None:
    if if_match is None and if_none_match is None:
        return None
    named, unnamed = _tags(if_match), _tags(if_none_match)
    return Expected(
        tags=None if named is None else frozenset(tag for weak, tag in named if not weak),
        weak=frozenset(tag for weak, tag in named or () if weak),
        there=if_match is not None,
        others=frozenset(tag for _weak, tag in unnamed or ()),
        absent=if_none_match is not None and unnamed is None,
    )


Preconditions = Annotated[Expected | None, Depends(_expected)]
"""The preconditions on the row, or None if the request has none."""


@unneeded
class Untagged:
    """Checks the preconditions of a call whose target exists and has no tag. `kept` is the target's Cache-Control."""

    def __init__(self, kept: tuple[bytes, bytes]) -> None:
        self._kept = {kept[0].decode(): kept[1].decode()}

    async def __call__(self, request: Request) -> None:
        named, unnamed = (request.headers.getlist(name) for name in ("if-match", "if-none-match"))
        if named and _tags(named) is not None:
            raise PreconditionFailed("What is asked for has no entity tag, so If-Match names none of it.")
        if unnamed and _tags(unnamed) is None:
            if request.method == "GET":
                raise HTTPException(304, headers=self._kept)
            raise PreconditionFailed("What is written to is there, and If-None-Match: * wants none there.")


def refuse_preconditions(request: Request) -> None:
    """Refuses every precondition, for a call that cannot honour one."""
    for name in ("if-match", "if-none-match"):
        if name in request.headers:
            why: dict[str, Any] = {
                "type": "value_error",
                "loc": ("header", name),
                "msg": "cannot be judged here: views are counted without a look at their number",
            }
            raise RequestValidationError([why])


def _tags(lines: list[str] | None) -> list[tuple[bool, str]] | None:
    """Returns the tags in the lines of one header, each with whether it is weak. None for `*` and for no header."""
    if lines is None or [line.strip() for line in lines] == ["*"]:
        return None
    text, tags, at = ",".join(lines), [], 0
    # A tag may contain commas, but not this many. Parsing millions of elements would block the event loop.
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
