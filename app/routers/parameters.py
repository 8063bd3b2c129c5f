"""The parameters of URLs, and the idempotency key."""

import re
from typing import Annotated

from fastapi import Header, Path, Query
from pydantic import BeforeValidator, Field
from starlette.convertors import PathConvertor, register_url_convertor

from app.products.models import Sku

LARGEST_ID = 2**63 - 1


class Anything(PathConvertor):
    """The rest of a path, `{name:anything}`. Starlette's own `path` stops at a line break and ignores one at the end,
    so that two paths would name the same thing."""

    regex = "(?s:.*)"


class Before(PathConvertor):
    """The part of a path before something else, `{name:before}/something`. It refuses a path that ends in a line break,
    which Starlette would ignore here, too."""

    regex = r"(?!(?s:.*)\n\Z)(?s:.*)"


register_url_convertor("anything", Anything())
register_url_convertor("before", Before())


def whole(value: object) -> object:
    """Returns the value, after checking that a number given as text is written canonically."""
    # Pydantic also reads "1_000", "+7", "007" and "7.0" as integers. Here a number has one spelling.
    if isinstance(value, str) and not re.fullmatch("0|[1-9][0-9]*", value):
        raise ValueError("must be a whole number, written in digits and without leading zeros")
    return value


# The limits come before the validator, so that OpenAPI includes them.
UserId = Annotated[
    int, Field(ge=1, le=LARGEST_ID), BeforeValidator(whole), Path(description="The user's id.", examples=[1])
]
SkuPath = Annotated[Sku, Path(description="The sku, percent-encoded.", examples=["KETTLE-1"])]
Limit = Annotated[int, Field(ge=1, le=200), BeforeValidator(whole), Query(description="How many, at most.")]
AfterId = Annotated[
    int,
    Field(ge=0, le=LARGEST_ID),
    BeforeValidator(whole),
    Query(description="Begin after this id: `next` of the page before."),
]
AfterSku = Annotated[
    str,
    Query(max_length=64, pattern=r"^[^\x00]*$", description="Begin after this sku: `next` of the page before."),
]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[!-~]+$",
        description="Names this call: a repetition with the same key is not counted again.",
        examples=["order-1001-line-1"],
    ),
]
