"""Users over HTTP. Strategy: cache-aside."""

from typing import Annotated

from fastapi import APIRouter, Body, Depends, Response
from pydantic import BaseModel, Field

from app.caching import CacheAside
from app.routers.answers import CHANGED, CREATED, READ, Json, JsonOnly, Kind, answer, bare, written
from app.routers.cache_control import PERSONAL
from app.routers.parameters import AfterId, Limit, UserId
from app.routers.preconditions import Preconditions, Untagged
from app.routers.problems import NAMED, documented
from app.routers.resources import CachedUsers
from app.speed.direct_way import direct
from app.users.models import NewUser, User, UserPatch

router = APIRouter(prefix="/users", tags=[f"users: {CacheAside.NAME}"])

USER = Kind(CacheAside.NAME, "User {}", "There is no user {}.", PERSONAL)
ALL = Depends(Untagged(PERSONAL))


class UserPage(BaseModel):
    """One page of users, in the order of their ids. `next` is the `after` of the next page, null on the last."""

    items: list[User]
    next: int | None
    unreadable: list[int] = Field([], description="The ids of those that cannot be read; only where there are any.")


@router.post(
    "",
    status_code=201,
    response_model=User,
    dependencies=[JsonOnly, ALL],
    summary="Add a user",
    responses=CREATED | documented(403, 409, 412, 415, 422, 503),
)
async def create(new: NewUser, users: CachedUsers) -> Response:
    """Writes to the database, then invalidates the cached absence of the user."""
    user = await users.create(new)
    return written(user, USER, status=201, location=f"/users/{user.id}")


@router.get(
    "",
    response_model=UserPage,
    dependencies=[ALL],
    summary="Page through users",
    responses=NAMED | documented(412, 422, 503),
)
async def page(users: CachedUsers, limit: Limit = 50, after: AfterId = 0) -> Response:
    """Reads from the database; pages are not cached. A user that cannot be read does not affect the others: its id is
    listed in `unreadable`."""
    rows = await users.page(after=after, limit=limit + 1)  # One extra row shows whether there are more.
    ids = [row.id if isinstance(row, User) else int(row.key) for row in rows]
    page = UserPage(
        items=[row for row in rows[:limit] if isinstance(row, User)], next=ids[limit - 1] if len(rows) > limit else None
    )
    if unreadable := [id_ for id_, row in zip(ids[:limit], rows, strict=False) if not isinstance(row, User)]:
        page.unreadable = unreadable
    return Json(page.model_dump_json(exclude_unset=True).encode(), headers=[PERSONAL])


@router.get(
    "/{user_id}",
    response_model=User,
    summary="Read a user",
    responses=READ | documented(404, 412, 422, 500, 503),
)
@direct
async def read(user_id: UserId, users: CachedUsers, expected: Preconditions = None) -> Response:
    """Reads from the cache; on a miss from the database, once for all waiting readers. `Cache-Status` says which it
    was."""
    return answer(await users.get(user_id), USER, user_id, expected)


@router.patch(
    "/{user_id}",
    response_model=User,
    dependencies=[JsonOnly],
    summary="Change a user",
    responses=CHANGED | documented(403, 404, 409, 412, 415, 422, 500, 503),
)
async def change(
    user_id: UserId, changes: Annotated[UserPatch, Body()], users: CachedUsers, expected: Preconditions
) -> Response:
    """Writes to the database, then invalidates: no read that starts after this answer sees the old user."""
    return written(await users.change(user_id, changes, expected), USER)


@router.delete("/{user_id}", status_code=204, summary="Remove a user", responses=documented(403, 404, 412, 422, 503))
async def delete(user_id: UserId, users: CachedUsers, expected: Preconditions) -> Response:
    """Removes the user from the database, then invalidates the cache."""
    await users.delete(user_id, expected)
    return bare(204, PERSONAL)
