"""Dead letters over HTTP: page views that Postgres has refused, to be replayed or discarded."""

from contextlib import suppress
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response
from pydantic import BaseModel, BeforeValidator, Field

from app.caching import CacheUnavailable
from app.routers.answers import bare
from app.routers.cache_control import UNKEPT, UnkeptJSON
from app.routers.parameters import LARGEST_ID, AfterId, Limit, whole
from app.routers.preconditions import Untagged
from app.routers.problems import NAMED, described, documented
from app.routers.resources import CachedPageViews, StoredPageViews

router = APIRouter(
    prefix="/write-behind/dead-letters",
    tags=["operations"],
    default_response_class=UnkeptJSON,
    dependencies=[Depends(Untagged(UNKEPT))],
)

LetterId = Annotated[
    int,
    Field(ge=1, le=LARGEST_ID),
    BeforeValidator(whole),
    Path(description="The id of the dead letter.", examples=[7]),
]


class DeadLetter(BaseModel):
    """Views that could not be counted, and why."""

    id: int = Field(examples=[7])
    page: str | None = Field(
        description="Null where it could not be read, or not be kept.", examples=["docs/intro.html"]
    )
    delta: int | None = Field(description="How many views of it.", examples=[3])
    batch: str | None = Field(
        description="The batch that they came with, or the place of the entry.", examples=["01ARZ3NDEKTSV4RRFFQ69G5FAV"]
    )
    entry: str | None = Field(
        description="The bytes as they came, where there is no page; what is no ASCII is escaped.", examples=[None]
    )
    reason: str = Field(examples=["bigint out of range"])
    deliveries: int = Field(description="How often they were given to a flusher.", examples=[1])
    created_at: datetime


class DeadLetters(BaseModel):
    """One page of dead letters, oldest first. `next` is the `after` of the next page, null on the last."""

    items: list[DeadLetter]
    next: int | None = Field(examples=[None])


class Replayed(BaseModel):
    """The page, and the number of views counted."""

    page: str = Field(examples=["docs/intro.html"])
    views: int = Field(examples=[3])


@router.get("", summary="List the dead letters", responses=NAMED | documented(412, 422, 503))
async def page(store: StoredPageViews, limit: Limit = 50, after: AfterId = 0) -> DeadLetters:
    """Lists the page views that Postgres has refused. They stay until they are replayed or discarded."""
    letters = await store.dead_letters(limit + 1, after)  # One extra row shows whether there are more.
    items = [
        DeadLetter(
            id=letter.id,
            page=letter.page,
            delta=letter.delta,
            batch=letter.batch,
            entry=None if letter.entry is None else letter.entry.decode("ascii", "backslashreplace"),
            reason=letter.reason,
            deliveries=letter.deliveries,
            created_at=letter.created_at,
        )
        for letter in letters[:limit]
    ]
    return DeadLetters(items=items, next=items[-1].id if len(letters) > limit else None)


@router.post(
    "/{letter:before}/replay",
    summary="Count a dead letter",
    responses=documented(403, 404, 412, 422, 503)
    | described(409, "It still cannot be counted.", "conflict", "Dead letter 7 is still refused: bigint out of range"),
)
async def replay(letter: LetterId, store: StoredPageViews, page_views: CachedPageViews) -> Replayed:
    """Use it once the cause is gone: counts the views and removes the dead letter, in one transaction."""
    page, views = await store.replay(letter)
    # The relay invalidates in any case. Here it happens before the client can read the total.
    with suppress(CacheUnavailable):
        await page_views.forget(page)
    return Replayed(page=page, views=views)


@router.delete(
    "/{letter}", status_code=204, summary="Discard a dead letter", responses=documented(403, 404, 412, 422, 503)
)
async def discard(letter: LetterId, store: StoredPageViews) -> Response:
    """Removes the dead letter. Its views are never counted."""
    await store.discard(letter)
    return bare(204, UNKEPT)
