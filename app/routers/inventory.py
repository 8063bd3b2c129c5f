"""Inventory over HTTP. Strategy: write-through."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Depends, Header, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.inventory.models import LARGEST, Adjustment, Removal, Setting, Stock
from app.routers.answers import CHANGED, CREATED, READ, Expected, IfNoneMatch, JsonOnly, answer, written
from app.routers.parameters import IdempotencyKey, SkuPath
from app.routers.problems import documented
from app.wiring import CachedInventory

router = APIRouter(prefix="/inventory", tags=["inventory: write-through"])


class Quantity(BaseModel):
    """So many pieces there are."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"quantity": 30}]})

    quantity: Annotated[int, Field(strict=True, ge=0, le=LARGEST)]


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise ValueError("must not be 0")
    return delta


class Delta(BaseModel):
    """So many pieces more, or less."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"delta": -2}]})

    delta: Annotated[
        int,
        Field(strict=True, ge=-LARGEST, le=LARGEST, json_schema_extra={"not": {"const": 0}}),
        AfterValidator(_not_zero),
    ]


async def _only_new(
    if_none_match: Annotated[
        str | None, Header(pattern=r"^ *\* *$", description="`*`: only if there is none yet.")
    ] = None,
) -> bool:
    return if_none_match is not None


@router.post(
    "/{sku:anything}/adjustments",
    response_model=Stock,
    dependencies=[JsonOnly],
    summary="Add or take pieces",
    responses=CHANGED | documented(404, 409, 415, 422, 503),
)
async def adjust(
    sku: SkuPath, body: Delta, inventory: CachedInventory, idempotency_key: IdempotencyKey = None
) -> Response:
    """Changes both stores, or none. It never goes below 0: then the answer is 409, with what there is."""
    return written(await inventory.put(sku, Adjustment(body.delta, idempotency_key)))


@router.put(
    "/{sku:anything}",
    response_model=Stock,
    dependencies=[JsonOnly],
    summary="Set how many there are",
    responses=CHANGED | CREATED | documented(404, 412, 415, 422, 503),
)
async def put(
    sku: SkuPath,
    body: Quantity,
    inventory: CachedInventory,
    expected: Expected,
    only_new: Annotated[bool, Depends(_only_new)],
) -> Response:
    """Changes both stores, or none: no read that starts after this answer sees another number."""
    stock = await inventory.put(sku, Setting(body.quantity, expected, only_new))
    if stock is not None and stock.created:
        return written(stock, status=201, location=f"/inventory/{quote(sku, safe='')}")
    return written(stock)


@router.get(
    "/{sku:anything}",
    response_model=Stock,
    summary="Read how many there are",
    responses=READ | documented(404, 422, 503),
)
async def read(sku: SkuPath, inventory: CachedInventory, if_none_match: IfNoneMatch = None) -> Response:
    """From the cache, which loads itself; from the database while somebody changes it. Never what is not committed."""
    reading = await inventory.get(sku)
    return answer(reading, "write-through", missing=f"There is no stock of {sku}.", if_none_match=if_none_match)


@router.delete("/{sku:anything}", status_code=204, summary="Remove stock", responses=documented(404, 412, 422, 503))
async def delete(sku: SkuPath, inventory: CachedInventory, expected: Expected) -> Response:
    """Removes it from both stores, or from none."""
    await inventory.put(sku, Removal(expected))
    return Response(status_code=204)
