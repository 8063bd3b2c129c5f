"""Page views over HTTP. Strategy: write-behind."""

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from app.caching import Behind
from app.errors import DatabaseUnavailable
from app.routers.answers import IfNoneMatch, JsonOnly, matches
from app.routers.parameters import IdempotencyKey, whole
from app.routers.problems import documented
from app.wiring import CachedPageViews, StoredPageViews

router = APIRouter(prefix="/page-views", tags=["page views: write-behind"])

LONGEST_PAGE = 2048


def _short_enough(page: str) -> str:
    if len(page.encode()) > LONGEST_PAGE:
        raise ValueError(f"must have at most {LONGEST_PAGE:,} bytes")
    return page


Page = Annotated[
    str,
    Field(min_length=1, max_length=LONGEST_PAGE, pattern=r"^[^\x00]*$"),
    AfterValidator(_short_enough),
]
PagePath = Annotated[Page, Path(description="The page, as it is, percent-encoded.", examples=["home"])]
Count = Annotated[int, Field(strict=True, ge=1, le=1_000_000)]


class View(BaseModel):
    """How many views of the page of the URL."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"count": 3}]})

    count: Count = 1


class PageView(BaseModel):
    """How many views of which page."""

    model_config = ConfigDict(extra="forbid")

    page: Page
    count: Count = 1


class ManyViews(BaseModel):
    """Views of many pages."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"views": [{"page": "home"}, {"page": "news", "count": 3}]}]}
    )

    views: Annotated[list[PageView], Field(min_length=1, max_length=10_000)]


class Accepted(BaseModel):
    """So many views were taken on."""

    accepted: int


class Views(BaseModel):
    """The views of a page, with those that wait for the database."""

    page: str
    views: int


class AcceptedView(BaseModel):
    """The page, and its views now; null when they are not cached and the database cannot be asked."""

    page: str
    views: int | None


class TopPages(BaseModel):
    """The pages with the most views, as the database has them."""

    items: list[Views]


@router.post(
    "",
    status_code=202,
    dependencies=[JsonOnly],
    summary="Count views of many pages",
    responses=documented(415, 422, 503),
)
async def count_many(body: ManyViews, page_views: CachedPageViews, idempotency_key: IdempotencyKey = None) -> Accepted:
    """Taken on in Redis; they are in Postgres a moment later. `accepted` is the sum of the counts."""
    counts: dict[str, int] = {}
    for view in body.views:
        counts[view.page] = counts.get(view.page, 0) + view.count
    await page_views.add_many(counts, idempotency_key)
    return Accepted(accepted=sum(counts.values()))


@router.get("", summary="The pages with the most views", responses=documented(422, 503))
async def top(
    store: StoredPageViews,
    top: Annotated[
        int, Field(ge=1, le=200), BeforeValidator(whole), Query(description="How many pages, at most.")
    ] = 20,
) -> TopPages:
    """From Postgres, without those that wait."""
    return TopPages(items=[Views(page=page, views=views) for page, views in await store.top(top)])


@router.post(
    "/{page:anything}",
    status_code=202,
    dependencies=[JsonOnly],
    summary="Count a view",
    responses=documented(415, 422, 503),
)
async def count(
    page: PagePath, page_views: CachedPageViews, body: View | None = None, idempotency_key: IdempotencyKey = None
) -> AcceptedView:
    """Taken on in Redis; it is in Postgres a moment later, exactly once."""
    views = await page_views.add(page, body.count if body else 1, idempotency_key)
    if views is None:
        try:
            views = (await page_views.get(page)).views
        except (DatabaseUnavailable, Behind):
            views = None  # It is taken on. That its total cannot be told now does not change that.
    return AcceptedView(page=page, views=views)


@router.get(
    "/{page:anything}",
    response_model=Views,
    summary="Read the views of a page",
    responses={304: {"description": "They are what you have."}, **documented(422, 503)},
)
async def read(page: PagePath, page_views: CachedPageViews, if_none_match: IfNoneMatch = None) -> Response:
    """Exact, with those that wait; 0 for a page that nobody has seen."""
    total = await page_views.get(page)
    headers = {
        "ETag": f'"{total.views}"',
        "Cache-Status": "write-behind; hit" if total.cached else "write-behind; fwd=miss; stored",
    }
    if if_none_match is not None and matches(if_none_match, total.views):
        return Response(status_code=304, headers=headers)
    return Response(
        Views(page=page, views=total.views).model_dump_json(), headers=headers, media_type="application/json"
    )
