"""Behind a real cache, no read is stale; behind a real proxy that compresses, preconditions keep their meaning."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

import httpx
import pytest

from tests.routers.proxy import caching_nginx, nginx, varnish
from tests.service import Service

Proxy = Callable[[str], AbstractAsyncContextManager[httpx.AsyncClient]]
ROWS = ["/users/{user}", "/products/CUP", "/inventory/CUP", "/page-views/home"]


async def filled(client: httpx.AsyncClient) -> str:
    """Creates a user, a product and stock, and returns the id of the user."""
    created = await client.post("/users", json={"name": "Name 0", "email": "ada@example.com"})
    await client.post("/products", json={"sku": "CUP", "name": "Name 0", "price": "1"})
    await client.put("/inventory/CUP", json={"quantity": 100})
    return str(created.json()["id"])


@pytest.mark.parametrize("proxy", [varnish, caching_nginx])
async def test_a_read_through_a_cache_is_never_older_than_the_write_before_it(service: Service, proxy: Proxy) -> None:
    async with proxy(service.url) as client:
        # The cache does not store a 404 either.
        for path in ("/users/1001", "/products/CUP", "/inventory/CUP"):
            assert (await client.get(path)).status_code == 404
        assert (await client.get("/page-views/home")).json()["views"] == 0
        user = await filled(client)
        for turn in range(1, 6):
            for headers in ({}, {"If-None-Match": '"x"'}):  # The direct way, and the whole way.
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


async def test_a_tag_weakened_by_compression_revalidates_a_read_but_allows_no_change(
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
            # The advice in the sentence works.
            plain = await client.get(path, headers={"Accept-Encoding": "identity"})
            assert plain.json()["name"] == "Name 0"
            changed = await client.patch(path, json=body, headers={"If-Match": plain.headers["etag"]})
            assert (changed.status_code, changed.json()["name"]) == (200, "New")
