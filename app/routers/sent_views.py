"""The page views that a client may send: a page, and how many views of it.

What can go wrong: ten thousand pages in one call take time to check, and errors take more. So the checks run in
pydantic's core, and beyond a limit errors are only counted.
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
"""The number of errors up to which they are listed, and the first of them reported."""


def _short_enough(page: str) -> str:
    # A character takes at most four bytes, so hardly any of ten thousand pages must be encoded to check.
    if len(page) * 4 > LONGEST_PAGE and len(page.encode()) > LONGEST_PAGE:
        raise ValueError(f"must have at most {LONGEST_PAGE:,} bytes")
    return page


Page = Annotated[
    str,
    # OpenAPI counts characters; the limit is in bytes.
    Field(min_length=1, pattern=r"^[^\x00]*$", json_schema_extra={"maxLength": LONGEST_PAGE}),
    AfterValidator(_short_enough),
]
PagePath = Annotated[
    Page,
    Path(description="The page, percent-encoded: at most 2,048 bytes, kept as they are.", examples=["docs/intro.html"]),
]
Count = Annotated[int, WholeNumber(least=1, most=1_000_000)]


class View(BaseModel):
    """The number of views of the page in the URL."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [{"count": 3}]})

    count: Count = 1


@with_config(ConfigDict(extra="forbid"))
class PageView(TypedDict):
    """A page, and the number of views of it."""

    # Not a model: creating ten thousand of them would block the event loop for twice as long.
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
        # Listing tens of thousands of errors takes longer than finding them, and blocks the event loop.
        try:
            return handler(given)
        except ValidationError as error:
            if (count := error.error_count()) <= MOST_FINDINGS:
                raise
            raise PydanticCustomError("too_many", "has {count} mistakes", {"count": f"{count:,}"}) from None
