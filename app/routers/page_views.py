"""Page views over HTTP. Strategy: write-behind."""

import asyncio
from typing import Annotated

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import (
    BaseModel,
    BeforeValidator,
    Field,
)
from pydantic_core import to_json

from app.caching import Behind, CacheUnavailable, TargetUnavailable, WriteBehind
from app.errors import Unrepresentable
from app.routers.answers import KEPT, Json, UnconditionalJson, bare, header
from app.routers.cache_control import ROW
from app.routers.parameters import IdempotencyKey, whole
from app.routers.preconditions import Preconditions, Untagged
from app.routers.problems import NAMED, Responses, described, documented
from app.routers.resources import CachedPageViews, StoredPageViews
from app.routers.sent_views import ManyViews, PagePath, View
from app.speed.direct_way import direct

router = APIRouter(prefix="/page-views", tags=[f"page views: {WriteBehind.NAME}"])

HIT, MISS = (f"{WriteBehind.NAME}; {how}".encode() for how in ("hit", "fwd=miss; stored"))

HEADERS = KEPT | {
    "ETag": header("The views.", '"15847293"'),
    "Cache-Status": header("How the answer came: RFC 9211.", HIT.decode()),
}
READ: Responses = {
    200: {"description": "The views, from the cache, or from the database and what waits for it.", "headers": HEADERS},
    304: {"description": "There are no more than you know of.", "headers": HEADERS},
}
NOT_TAKEN = described(
    503,
    "Redis does not answer, or too many views wait for the database; `Retry-After` says when to come back. Without an "
    "`Idempotency-Key` a repetition may count a second time.",
    "cache-unavailable",
    "Redis did not answer for counters: it refuses connections.",
)
WORN = described(
    422,
    "The request can be read, and is not allowed; or, with type `key-worn`, the `Idempotency-Key` was used for other "
    "pages 100 times in the last 24 hours, and nothing more is counted under it.",
    "key-worn",
    "The idempotency key visit-1 was used 100 times for keys that it was not used for before, which is the most: use "
    "another one.",
)
UNREADABLE = described(
    500,
    "Redis has something else where what was counted under this `Idempotency-Key` should stand. Nothing is counted "
    "under it until that is gone; all other keys are taken.",
    "unreadable-key",
    "What was counted under the idempotency key visit-1 cannot be told: what Redis has as views:{0}:call:visit-1 is "
    "no such record.",
)
"""What OpenAPI says about the answers of these calls."""


async def _another_turn() -> None:
    """Lets other requests run between the steps of a large body: it is parsed, then validated, then counted."""
    await asyncio.sleep(0)


class Accepted(BaseModel):
    """The number of views accepted."""

    accepted: int = Field(examples=[4])


class Views(BaseModel):
    """The views of a page."""

    page: str = Field(examples=["docs/intro.html"])
    views: int = Field(examples=[15847293])


class AcceptedView(BaseModel):
    """The page and its views now. `views` is null when they are not cached and the database does not answer."""

    page: str = Field(examples=["docs/intro.html"])
    views: int | None = Field(examples=[15847293])


class TopPages(BaseModel):
    """The pages with the most views, according to the database."""

    items: list[Views]


@router.post(
    "",
    status_code=202,
    response_model=Accepted,
    dependencies=[UnconditionalJson, Depends(_another_turn)],
    summary="Count views of many pages",
    response_description="They are accepted.",
    responses=documented(403, 415) | WORN | UNREADABLE | NOT_TAKEN,
)
async def count_many(body: ManyViews, page_views: CachedPageViews, idempotency_key: IdempotencyKey = None) -> Response:
    """Redis accepts the views at once; they reach Postgres a moment later. `accepted` is the sum of the counts.

    A page may occur more than once. With an `Idempotency-Key`, each page is counted once per key: after a 503, a retry
    with the same key completes the call. Use a key for one call and its retries only. It may be used for other pages
    up to 100 times (a call with thousands of pages counts as several); then the answer is 422 with type `key-worn`.
    """
    await _another_turn()
    counts: dict[str, int] = {}
    for view in body.views:
        counts[view["page"]] = counts.get(view["page"], 0) + view.get("count", 1)
    await page_views.add_many(counts, idempotency_key)
    return Json(Accepted(accepted=sum(counts.values())).model_dump_json().encode(), 202, [ROW])


@router.get(
    "",
    response_model=TopPages,
    dependencies=[Depends(Untagged(ROW))],
    summary="The pages with the most views",
    responses=NAMED | documented(412, 422, 503),
)
async def top(
    store: StoredPageViews,
    top: Annotated[
        int, Field(ge=1, le=200), BeforeValidator(whole), Query(description="How many pages, at most.")
    ] = 20,
) -> Response:
    """Reads from Postgres. Views that have not reached Postgres yet are not included."""
    pages = TopPages(items=[Views(page=page, views=views) for page, views in await store.top(top)])
    return Json(pages.model_dump_json().encode(), headers=[ROW])


@router.post(
    "/{page:anything}",
    status_code=202,
    response_model=AcceptedView,
    dependencies=[UnconditionalJson],
    summary="Count a view",
    response_description="It is accepted.",
    responses=documented(403, 415, 422) | UNREADABLE | NOT_TAKEN,
)
@direct
async def count(
    page: PagePath,
    page_views: CachedPageViews,
    body: Annotated[View | None, Body(examples=[{"count": 3}])] = None,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Redis accepts the view at once; it reaches Postgres a moment later, exactly once. Without a body it is one view.

    `views` is null when the total is not cached and cannot be read now. The view is accepted all the same.
    """
    views = await page_views.add(page, body.count if body else 1, idempotency_key)
    if views is None:
        try:
            views = (await page_views.get(page)).amount
        except (TargetUnavailable, CacheUnavailable, Behind, Unrepresentable):
            views = None  # The view is accepted, even if its total cannot be read now.
    return Json(to_json({"page": page, "views": views}), 202, [ROW])


@router.get(
    "/{page:anything}",
    response_model=Views,
    summary="Read the views of a page",
    responses=READ | documented(412, 422, 503),
)
@direct
async def read(page: PagePath, page_views: CachedPageViews, expected: Preconditions = None) -> Response:
    """The exact total, including views that have not reached Postgres yet. 0 for a page without views."""
    total = await page_views.get(page)
    status = HIT if total.cached else MISS
    headers = [(b"cache-status", status), ROW, (b"etag", b'"%d"' % total.amount)]
    if expected is not None:
        tag = str(total.amount)
        if (mismatch := expected.mismatch(f"{page} has {tag} views", tag)) is not None:
            raise mismatch
        if expected.known(tag):
            return bare(304, *headers)
    return Json(to_json({"page": page, "views": total.amount}), headers=headers)
