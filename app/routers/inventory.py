"""Inventory over HTTP. Strategy: write-through."""

from typing import Annotated
from urllib.parse import quote

from fastapi import APIRouter, Response
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from app.caching import WriteThrough
from app.inventory.models import LARGEST, Adjustment, Removal, Setting, Stock
from app.routers.answers import CHANGED, ETAG, KEPT, READ, JsonOnly, Kind, answer, bare, header, written
from app.routers.cache_control import ROW
from app.routers.parameters import IdempotencyKey, SkuPath
from app.routers.preconditions import Preconditions
from app.routers.problems import Responses, described, documented
from app.routers.resources import CachedInventory
from app.routers.whole_number import WholeNumber
from app.speed.direct_way import direct

router = APIRouter(prefix="/inventory", tags=[f"inventory: {WriteThrough.NAME}"])

STOCK = Kind(WriteThrough.NAME, "The stock of {}", "There is no stock of {}.", ROW)

CREATED: Responses = {
    201: {
        "description": "There was none before.",
        "headers": ETAG | KEPT | {"Location": header("Where it is.", "/inventory/CUP-1%2FSAUCER")},
    }
}
NO_STOCK = described(404, "There is no such stock.", "not-found", "There is no stock of KETTLE-1.")
OTHER_VERSION = described(
    412,
    "The stock is in another version than `If-Match` names, or in one that `If-None-Match` names.",
    "precondition-failed",
    "The stock of KETTLE-1 is in version 8, which If-Match does not name.",
)
TOO_FEW = described(
    409,
    "There are fewer pieces than are to be taken. Nothing is changed.",
    "out-of-stock",
    "Only 3 of KETTLE-1 are left, and 5 were asked for.",
    available=3,
    requested=5,
)
NOT_ALLOWED = described(
    422,
    "The request can be read, and is not allowed: `invalid`, `too-much` (more pieces than can be counted), or "
    "`key-reused` (the key was used for another delta).",
    "key-reused",
    "The key order-1001-line-1 was used for -2 of KETTLE-1, and not -3.",
)
NOT_SAVED = described(
    503,
    "A store does not answer, and nothing is saved; `Retry-After` says when to come back. Only with the type "
    "`outcome-unknown` it may be saved.",
    "cache-unavailable",
    "Redis did not answer for stock: Connection refused.",
)
"""What OpenAPI says about the problems of these calls."""


class Quantity(BaseModel):
    """The number of pieces."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"quantity": 30}]})

    quantity: Annotated[int, WholeNumber(least=0, most=LARGEST)]


def _not_zero(delta: int) -> int:
    if delta == 0:
        raise ValueError("must not be 0")
    return delta


class Delta(BaseModel):
    """The number of pieces to add, or to take if negative."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"delta": -2}]})

    delta: Annotated[
        int,
        WholeNumber(least=-LARGEST, most=LARGEST),
        AfterValidator(_not_zero),
        Field(json_schema_extra={"not": {"const": 0}}),
    ]


@router.post(
    "/{sku:before}/adjustments",
    response_model=Stock,
    dependencies=[JsonOnly],
    summary="Add or take pieces",
    responses=CHANGED | documented(403, 415, 500) | NO_STOCK | OTHER_VERSION | TOO_FEW | NOT_ALLOWED | NOT_SAVED,
)
async def adjust(
    sku: SkuPath,
    body: Delta,
    inventory: CachedInventory,
    expected: Preconditions,
    idempotency_key: IdempotencyKey = None,
) -> Response:
    """Changes both stores or neither. The quantity never goes below 0: the answer is then 409, with what is available.

    With an `Idempotency-Key` the adjustment is made once: a retry gets the answer of the first call, whatever its
    preconditions say by now. A refusal is not remembered.
    """
    return written(await inventory.put(sku, Adjustment(body.delta, idempotency_key, expected)), STOCK)


@router.put(
    "/{sku:anything}",
    response_model=Stock,
    dependencies=[JsonOnly],
    summary="Set how many there are",
    responses=CHANGED | CREATED | documented(403, 415, 422) | NO_STOCK | OTHER_VERSION | NOT_SAVED,
)
async def put(sku: SkuPath, body: Quantity, inventory: CachedInventory, expected: Preconditions) -> Response:
    """Changes both stores or neither: no read that starts after this answer sees an older quantity.

    With `If-Match` the stock must exist (404) in one of the versions named (412). With `If-None-Match: *` it must not
    exist yet (412).
    """
    stock = await inventory.put(sku, Setting(body.quantity, expected))
    if stock is not None and stock.created:
        return written(stock, STOCK, status=201, location=f"/inventory/{quote(sku, safe='')}")
    return written(stock, STOCK)


@router.get(
    "/{sku:anything}",
    response_model=Stock,
    summary="Read how many there are",
    responses=READ | documented(412, 422, 500, 503) | NO_STOCK,
)
@direct
async def read(sku: SkuPath, inventory: CachedInventory, expected: Preconditions = None) -> Response:
    """Reads from the cache, which loads the stock itself; from the database while a change is in flight. Never returns
    uncommitted data."""
    return answer(await inventory.get(sku), STOCK, sku, expected)


@router.delete(
    "/{sku:anything}",
    status_code=204,
    summary="Remove stock",
    responses=documented(403, 422) | NO_STOCK | OTHER_VERSION | NOT_SAVED,
)
async def delete(sku: SkuPath, inventory: CachedInventory, expected: Preconditions) -> Response:
    """Removes the stock from both stores or neither. The answers stored under idempotency keys are kept."""
    await inventory.put(sku, Removal(expected))
    return bare(204, ROW)
