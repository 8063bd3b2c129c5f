"""Users over HTTP."""

import httpx
import pytest

ADA = {"name": "Ada Lovelace", "email": "ada@example.com"}


async def create(client: httpx.AsyncClient, number: int = 0) -> str:
    """Creates a user, and returns its path."""
    answer = await client.post("/users", json={"name": f"User {number}", "email": f"user{number}@example.com"})
    assert answer.status_code == 201
    return answer.headers["location"]


async def test_a_user_is_created_read_changed_and_removed(client: httpx.AsyncClient) -> None:
    created = await client.post("/users", json=ADA)
    assert created.status_code == 201
    user = created.json()
    where = created.headers["location"]
    assert where == f"/users/{user['id']}"

    first, second = await client.get(where), await client.get(where)
    assert (first.json(), second.json()) == (user, user)
    assert first.headers["cache-status"] == "cache-aside; fwd=miss; stored"
    assert second.headers["cache-status"].startswith("cache-aside; hit; ttl=")

    changed = await client.patch(where, json={"name": "Ada King"})
    assert changed.status_code == 200
    assert (await client.get(where)).json() == changed.json()

    assert (await client.delete(where)).status_code == 204
    assert (await client.get(where)).status_code == 404


async def test_a_user_has_exactly_these_fields(client: httpx.AsyncClient) -> None:
    user = (await client.post("/users", json=ADA)).json()
    assert list(user) == ["id", "name", "email", "version", "created_at", "updated_at"]
    assert {"name": user["name"], "email": user["email"]} == ADA
    assert user["created_at"] == user["updated_at"]
    assert user["created_at"].endswith("Z")


async def test_a_removal_answers_without_a_body(client: httpx.AsyncClient) -> None:
    answer = await client.delete(await create(client))
    assert (answer.status_code, answer.content, "content-type" in answer.headers) == (204, b"", False)


async def test_a_change_leaves_the_other_fields_alone_and_raises_the_version(client: httpx.AsyncClient) -> None:
    where = await create(client)
    before = (await client.get(where)).json()
    after = (await client.patch(where, json={"email": "new@example.com"})).json()
    assert after["version"] > before["version"]
    assert after | {"version": 0, "updated_at": ""} == before | {
        "email": "new@example.com",
        "version": 0,
        "updated_at": "",
    }


async def test_a_user_who_was_cached_as_missing_is_seen_once_created(client: httpx.AsyncClient) -> None:
    first = int((await create(client)).removeprefix("/users/"))
    missing = await client.get(f"/users/{first + 1}")
    assert (missing.status_code, missing.headers["cache-status"]) == (404, "cache-aside; fwd=miss; stored")
    assert (await client.get(f"/users/{first + 1}")).headers["cache-status"].startswith("cache-aside; hit; ttl=")

    assert await create(client, 1) == f"/users/{first + 1}"
    assert (await client.get(f"/users/{first + 1}")).status_code == 200


async def test_two_users_cannot_have_one_email(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA)
    again = await client.post("/users", json={"name": "Another Ada", "email": ADA["email"]})
    assert (again.status_code, again.json()["type"]) == (409, "conflict")
    assert again.json()["detail"] == "The email ada@example.com is taken."


async def test_emails_that_differ_in_case_only_are_one(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA)
    again = await client.post("/users", json={"name": "Another Ada", "email": ADA["email"].upper()})
    assert (again.status_code, again.json()["detail"]) == (409, "The email ADA@EXAMPLE.COM is taken.")
    where = await create(client)
    changed = await client.patch(where, json={"email": ADA["email"].title()})
    assert (changed.status_code, changed.json()["type"]) == (409, "conflict")


async def test_a_user_cannot_change_to_an_email_that_is_taken(client: httpx.AsyncClient) -> None:
    await client.post("/users", json=ADA)
    where = await create(client)
    refused = await client.patch(where, json={"name": "Mallory", "email": ADA["email"]})
    assert (refused.status_code, refused.json()["detail"]) == (409, "The email ada@example.com is taken.")
    assert (await client.get(where)).json()["name"] == "User 0"


async def test_a_change_may_keep_the_user_s_own_email(client: httpx.AsyncClient) -> None:
    where = (await client.post("/users", json=ADA)).headers["location"]
    assert (await client.patch(where, json=ADA)).status_code == 200


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_a_user_who_does_not_exist_is_named(client: httpx.AsyncClient, method: str) -> None:
    body = {"name": "Nobody"} if method == "PATCH" else None
    answer = await client.request(method, "/users/9223372036854775807", json=body)
    assert answer.status_code == 404
    assert answer.json() == {
        "type": "not-found",
        "title": "Not Found",
        "status": 404,
        "detail": "There is no user 9223372036854775807.",
    }


async def test_pages_follow_each_other_by_next_and_the_last_has_none(client: httpx.AsyncClient) -> None:
    ids = [int((await create(client, number)).removeprefix("/users/")) for number in range(5)]
    pages, after = [], 0
    while after is not None:
        page = (await client.get("/users", params={"limit": 2, "after": after})).json()
        pages.append([user["id"] for user in page["items"]])
        after = page["next"]
    assert pages == [ids[0:2], ids[2:4], ids[4:]]


async def test_a_page_that_is_exactly_full_has_no_next(client: httpx.AsyncClient) -> None:
    for number in range(2):
        await create(client, number)
    page = (await client.get("/users?limit=2")).json()
    assert (len(page["items"]), page["next"]) == (2, None)


async def test_a_page_behind_the_last_user_is_empty(client: httpx.AsyncClient) -> None:
    await create(client)
    assert (await client.get("/users?after=9223372036854775807")).json() == {"items": [], "next": None}


async def test_a_page_has_fifty_users_by_default(client: httpx.AsyncClient) -> None:
    for number in range(51):
        await create(client, number)
    page = (await client.get("/users")).json()
    assert (len(page["items"]), page["next"]) == (50, page["items"][-1]["id"])
    assert len((await client.get("/users?limit=200")).json()["items"]) == 51


async def test_paging_skips_no_users_that_are_created_meanwhile(client: httpx.AsyncClient) -> None:
    first, second = await create(client, 0), await create(client, 1)
    page = (await client.get("/users?limit=1")).json()
    await client.delete(first)
    third = await create(client, 2)
    rest = (await client.get(f"/users?after={page['next']}")).json()
    assert [f"/users/{user['id']}" for user in rest["items"]] == [second, third]


@pytest.mark.parametrize("email", ["a@b.c", "grüße@beispiel.example", "x" * 242 + "@example.com", "a+b@c-d.example"])
async def test_a_plausible_email_is_kept_unchanged(client: httpx.AsyncClient, email: str) -> None:
    answer = await client.post("/users", json={"name": "N", "email": email})
    assert (answer.status_code, answer.json()["email"]) == (201, email)


@pytest.mark.parametrize(
    "name", ["N", "名" * 200, "\N{GRINNING FACE}" * 200, "Robert'); DROP TABLE users;--", "a\nb\t"]
)
async def test_a_name_comes_back_as_it_was_sent(client: httpx.AsyncClient, name: str) -> None:
    where = (await client.post("/users", json={"name": name, "email": "n@example.com"})).headers["location"]
    assert [(await client.get(where)).json()["name"] for _ in range(2)] == [name, name]
