"""Users over HTTP. Strategy: cache-aside."""

from typing import Annotated

from fastapi import APIRouter, Body, Response
from pydantic import BaseModel, Field

from app.routers.answers import CHANGED, CREATED, READ, Expected, IfNoneMatch, JsonOnly, answer, written
from app.routers.direct_way import direct
from app.routers.parameters import AfterId, Limit, UserId
from app.routers.problems import documented
from app.users.models import NewUser, User, UserPatch
from app.wiring import CachedUsers

router = APIRouter(prefix="/users", tags=["users: cache-aside"])


class UserPage(BaseModel):
    """Some users, in the order of their ids. `next` is the value for `after`, null at the end."""

    items: list[User]
    next: int | None
    unreadable: list[int] = Field([], description="The ids of those that cannot be read; only where there are any.")


@router.post(
    "",
    status_code=201,
    response_model=User,
    dependencies=[JsonOnly],
    summary="Add a user",
    responses=CREATED | documented(409, 415, 422, 503),
)
async def create(new: NewUser, users: CachedUsers) -> Response:
    """Writes to the database, and then forgets in the cache that there was no such user."""
    user = await users.create(new)
    return written(user, status=201, location=f"/users/{user.id}")


@router.get(
    "",
    response_model=UserPage,
    response_model_exclude_unset=True,
    summary="Page through users",
    responses=documented(422, 503),
)
async def page(users: CachedUsers, limit: Limit = 50, after: AfterId = 0) -> UserPage:
    """From the database: a page is not one key, so no cache holds it. A user that cannot be read holds up no other."""
    rows = await users.page(after=after, limit=limit + 1)  # One more than asked for tells if there is more.
    ids = [row.id if isinstance(row, User) else int(row.key) for row in rows]
    page = UserPage(
        items=[row for row in rows[:limit] if isinstance(row, User)], next=ids[limit - 1] if len(rows) > limit else None
    )
    if unreadable := [id_ for id_, row in zip(ids[:limit], rows, strict=False) if not isinstance(row, User)]:
        page.unreadable = unreadable
    return page


@router.get(
    "/{user_id}",
    response_model=User,
    summary="Read a user",
    responses=READ | documented(404, 422, 500, 503),
)
@direct(lambda resources: resources.users)
async def read(user_id: UserId, users: CachedUsers, if_none_match: IfNoneMatch = None) -> Response:
    """From the cache; on a miss from the database, once for all who ask. `Cache-Status` says which."""
    reading = await users.get(user_id)
    return answer(reading, "cache-aside", missing=f"There is no user {user_id}.", if_none_match=if_none_match)


@router.patch(
    "/{user_id}",
    response_model=User,
    dependencies=[JsonOnly],
    summary="Change a user",
    responses=CHANGED | documented(404, 409, 412, 415, 422, 500, 503),
)
async def change(
    user_id: UserId, changes: Annotated[UserPatch, Body()], users: CachedUsers, expected: Expected
) -> Response:
    """Writes to the database, and then invalidates: no read that starts after this answer sees the old user."""
    return written(await users.change(user_id, changes, expected))


@router.delete("/{user_id}", status_code=204, summary="Remove a user", responses=documented(404, 412, 422, 503))
async def delete(user_id: UserId, users: CachedUsers, expected: Expected) -> Response:
    """Removes it from the database, and then invalidates."""
    await users.delete(user_id, expected)
    return Response(status_code=204)
