"""What may stand in a URL."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import BeforeValidator

from app.products.models import Sku

LARGEST_ID = 2**63 - 1


def _whole(value: object) -> object:
    # Pydantic also reads "1_000", "+7" and "7.0" as integers; here a number has one spelling.
    if isinstance(value, str) and not (value.isascii() and value.isdigit()):
        raise ValueError("must be a whole number, written in digits")
    return value


UserId = Annotated[int, BeforeValidator(_whole), Path(ge=1, le=LARGEST_ID, examples=[1])]
SkuPath = Annotated[Sku, Path(examples=["KETTLE-1"])]
Limit = Annotated[int, BeforeValidator(_whole), Query(ge=1, le=200, description="How many, at most.")]
AfterId = Annotated[
    int,
    BeforeValidator(_whole),
    Query(ge=0, le=LARGEST_ID, description="Begin after this id: `next` of the last page."),
]
AfterSku = Annotated[
    str,
    Query(max_length=64, pattern=r"^[^\x00]*$", description="Begin after this sku: `next` of the page before."),
]
