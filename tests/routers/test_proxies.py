"""Behind a real cache and a real proxy that compresses, nobody reads what was, and preconditions say what they mean."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from tests.routers.proxy import caching_nginx, nginx, varnish
from tests.service import Service

Proxy = Callable[[str], AbstractAsyncContextManager[httpx.AsyncClient]]
ROWS = ["/users/{user}", "/products/CUP", "/inventory/CUP", "/page-views/home"]


async def filled(client: httpx.AsyncClient) -> str:
    """Adds one of everything, and answers the id of the user."""
    created = await client.post("/users", json={"name": "Name 0", "email": "ada@example.com"})
    await client.post("/products", json={"sku": "CUP", "name": "Name 0", "price": "1"})
    await client.put("/inventory/CUP", json={"quantity": 100})
    return str(created.json()["id"])


@pytest.mark.parametrize("proxy", [varnish, caching_nginx])
async def test_a_read_through_a_cache_is_never_older_than_the_write_before_it(service: Service, proxy: Proxy) -> None:
    async with proxy(service.url) as client:
        # That there is none is not kept either.
        for path in ("/users/1001", "/products/CUP", "/inventory/CUP"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/page-views/home")).json()["views"] == 0
        user = await filled(client)
        for turn in range(1, 6):
            for headers in ({}, {"If-None-Match": '"x"'}):  # What goes the direct way, and the whole way.
                read = [(await client.get(path.format(user=user), headers=headers)).json() for path in ROWS]
                assert [row.get("name") for row in read[:2]] == [f"Name {turn - 1}"] * 2
                assert (read[2]["quantity"], read[3]["views"]) == (101 - turn, turn - 1)
            listed = [(await client.get(path)).json()["items"][0]["name"] for path in ("/users", "/products?sku=CUP")]
            assert listed == [f"Name {turn - 1}"] * 2
            await client.patch(f"/users/{user}", json={"name": f"Name {turn}"})
            await client.patch("/products/CUP", json={"name": f"Name {turn}"})
            await client.post("/inventory/CUP/adjustments", json={"delta": -1})
            await client.post("/page-views/home")
        await client.delete(f"/users/{user}")
        assert (await client.get(f"/users/{user}")).status_code == 404


async def test_a_tag_that_was_weakened_when_it_was_compressed_revalidates_and_changes_nothing(
    service: Service,
) -> None:
    async with nginx(service.url) as client:
        user = await filled(client)
        for path, body in ((f"/users/{user}", {"name": "New"}), ("/products/CUP", {"name": "New"})):
            read = await client.get(path, headers={"Accept-Encoding": "gzip"})
            weak = read.headers["etag"]
            assert (read.headers["content-encoding"], weak[:3]) == ("gzip", 'W/"')
            again = await client.get(path, headers={"If-None-Match": weak})
            assert again.status_code == 304
            refused = await client.patch(path, json=body, headers={"If-Match": weak})
            assert refused.status_code == 412
            assert (
                f"with a weak tag, {weak}, and a weak one never matches. Probably a proxy has weakened it"
                in (refused.json()["detail"])
            )
            # What the sentence tells to do helps.
            plain = await client.get(path, headers={"Accept-Encoding": "identity"})
            assert plain.json()["name"] == "Name 0"
            changed = await client.patch(path, json=body, headers={"If-Match": plain.headers["etag"]})
            assert (changed.status_code, changed.json()["name"]) == (200, "New")
