"""Products over HTTP. Strategy: read-through."""

from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Body, Depends, Query, Response
from pydantic import BaseModel, Field

from app.caching import ReadThrough, Unreadable
from app.errors import UnreadableRow
from app.products.models import NewProduct, Product, ProductPatch, Sku
from app.routers.answers import CHANGED, CREATED, READ, Json, JsonOnly, Kind, answer, bare, written
from app.routers.cache_control import ROW
from app.routers.parameters import AfterSku, Limit, SkuPath
from app.routers.preconditions import Preconditions, Untagged
from app.routers.problems import NAMED, documented
from app.routers.resources import CachedProducts
from app.speed.direct_way import direct

router = APIRouter(prefix="/products", tags=[f"products: {ReadThrough.NAME}"])

PRODUCT = Kind(ReadThrough.NAME, "Product {}", "There is no product {}.", ROW)
ALL = Depends(Untagged(ROW))


UNREADABLE: Any = Field([], description="The skus of those that cannot be read; only where there are any.")


class ProductPage(BaseModel):
    """One page of products, in the order of their skus. `next` is the `after` of the next page, null on the last."""

    items: list[Product]
    next: str | None
    unreadable: list[str] = UNREADABLE


class ManyProducts(BaseModel):
    """The requested products, in the requested order, and the skus that do not exist."""

    items: list[Product]
    missing: list[str]
    unreadable: list[str] = UNREADABLE


@router.post(
    "",
    status_code=201,
    response_model=Product,
    dependencies=[JsonOnly, ALL],
    summary="Add a product",
    responses=CREATED | documented(403, 409, 412, 415, 422, 503),
)
async def create(new: NewProduct, products: CachedProducts) -> Response:
    """Writes to the database, then invalidates the cached absence of the product."""
    product = await products.create(new)
    return written(product, PRODUCT, status=201, location=f"/products/{quote(product.sku, safe='')}")


@router.get(
    "",
    response_model=ManyProducts | ProductPage,
    dependencies=[ALL],
    summary="Read many products, or page through all",
    responses=NAMED | documented(412, 422, 503),
)
@direct
async def read_many(
    products: CachedProducts,
    sku: Annotated[
        list[Sku] | None,
        Query(max_length=100, description="Which ones, at most 100. All that are not cached cost one query together."),
    ] = None,
    limit: Limit = 50,
    after: AfterSku = "",
) -> Response:
    """With `sku`, reads from the cache: `{items, missing}`. Without it, reads a page from the database:
    `{items, next}`. A product that cannot be read does not affect the others: its sku is listed in `unreadable`."""
    if sku is None:
        rows = await products.page(after=after, limit=limit + 1)  # One extra row shows whether there are more.
        return Json(_page(rows, limit).model_dump_json(exclude_unset=True).encode(), headers=[ROW])
    skus = list(dict.fromkeys(sku))
    readings = dict(zip(skus, await products.get_many(skus), strict=True))
    # The items are sent as they are stored. Only the skus are encoded here.
    there = [reading for reading in readings.values() if not isinstance(reading, Unreadable)]
    found = b",".join(reading.payload for reading in there if reading.payload is not None)
    many = ManyProducts(
        items=[],
        missing=[
            one for one, reading in readings.items() if not isinstance(reading, Unreadable) and reading.payload is None
        ],
    )
    if len(there) < len(readings):
        many.unreadable = [one for one, reading in readings.items() if isinstance(reading, Unreadable)]
    rest = many.model_dump_json(exclude_unset=True).encode().removeprefix(b'{"items":[')
    return Json(b'{"items":[' + found + rest, headers=[ROW])


def _page(rows: Sequence[Product | UnreadableRow], limit: int) -> ProductPage:
    skus = [row.sku if isinstance(row, Product) else str(row.key) for row in rows]
    page = ProductPage(
        items=[row for row in rows[:limit] if isinstance(row, Product)],
        next=skus[limit - 1] if len(rows) > limit else None,
    )
    if unreadable := [sku for sku, row in zip(skus[:limit], rows, strict=False) if not isinstance(row, Product)]:
        page.unreadable = unreadable
    return page


@router.get(
    "/{sku:anything}",
    response_model=Product,
    summary="Read a product",
    responses=READ | documented(404, 412, 422, 500, 503),
)
@direct
async def read(sku: SkuPath, products: CachedProducts, expected: Preconditions = None) -> Response:
    """Reads from the cache, which loads the product on a miss, once for all waiting readers. `Cache-Status` says which
    it was."""
    return answer(await products.get(sku), PRODUCT, sku, expected)


@router.patch(
    "/{sku:anything}",
    response_model=Product,
    dependencies=[JsonOnly],
    summary="Change a product",
    responses=CHANGED | documented(403, 404, 412, 415, 422, 500, 503),
)
async def change(
    sku: SkuPath, changes: Annotated[ProductPatch, Body()], products: CachedProducts, expected: Preconditions
) -> Response:
    """Writes to the database, then invalidates: no read that starts after this answer sees the old product."""
    return written(await products.change(sku, changes, expected), PRODUCT)


@router.delete(
    "/{sku:anything}",
    status_code=204,
    summary="Remove a product",
    responses=documented(403, 404, 412, 422, 503),
)
async def delete(sku: SkuPath, products: CachedProducts, expected: Preconditions) -> Response:
    """Removes the product from the database, then invalidates the cache."""
    await products.delete(sku, expected)
    return bare(204, ROW)
