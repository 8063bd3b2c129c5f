"""Users over HTTP."""

import httpx

ADA = {"name": "Ada Lovelace", "email": "ada@example.com"}


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
