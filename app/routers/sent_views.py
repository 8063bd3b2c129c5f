"""What a client may send of page views: a page, and how many views of it.

What can go wrong: ten thousand pages in one call take time to check, and mistakes take more. So the checks run in
pydantic's core, and mistakes beyond a number are only counted.
"""

from typing import Annotated, Any, NotRequired, Self

from fastapi import Path
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
    with_config,
)
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from app.routers.whole_number import WholeNumber

LONGEST_PAGE = 2048
MOST_FINDINGS = 4_500
"""What is wrong with so many things is worth a list, of which the first are told."""


def _short_enough(page: str) -> str:
    # A letter takes four bytes at most: of ten thousand pages, nearly none has to be encoded.
    if len(page) * 4 > LONGEST_PAGE and len(page.encode()) > LONGEST_PAGE:
        raise ValueError(f"must have at most {LONGEST_PAGE:,} bytes")
    return page


Page = Annotated[
    str,
    # OpenAPI counts in characters, and we in bytes.
    Field(min_length=1, pattern=r"^[^\x00]*$", json_schema_extra={"maxLength": LONGEST_PAGE}),
    AfterValidator(_short_enough),
]
PagePath = Annotated[
    Page,
    Path(description="The page, percent-encoded: at most 2,048 bytes, kept as they are.", examples=["docs/intro.html"]),
]
Count = Annotated[int, WholeNumber(least=1, most=1_000_000)]


class View(BaseModel):
    """How many views of the page of the URL."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"count": 3}]})

    count: Count = 1


@with_config(ConfigDict(extra="forbid"))
class PageView(TypedDict):
    """How many views of which page."""

    # No model: to make ten thousand of them would hold up everybody else in this process for twice as long.
    page: Page
    count: NotRequired[Annotated[Count, Field(json_schema_extra={"default": 1})]]


class ManyViews(BaseModel):
    """Views of many pages."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"views": [{"page": "home"}, {"page": "news", "count": 3}]}]}
    )

    views: Annotated[list[PageView], Field(min_length=1, max_length=10_000)]

    @model_validator(mode="wrap")
    @classmethod
    def _without_endless_findings(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        # To make a list of tens of thousands takes longer than to find them, and holds up everyone.
        try:
            return handler(given)
        except ValidationError as error:
            if (count := error.error_count()) <= MOST_FINDINGS:
                raise
            raise PydanticCustomError("too_many", "has {count} mistakes", {"count": f"{count:,}"}) from None
