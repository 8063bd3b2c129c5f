"""Describes what is wrong with a request: pydantic's errors as sentences that do not repeat the input."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel, Field

LISTED = 10
"""The number of errors listed. A body can have hundreds of thousands of errors; the rest are only counted."""

FORMS = {
    "after": "must not contain a NUL character",
    "email": "must look like name@example.com",
    "name": "must not contain a NUL character",
    "description": "must not contain a NUL character",
    "price": 'must be a decimal number as text, like "12.50": up to 10 digits, and up to 4 behind the point',
    "sku": "must not contain control characters, nor begin or end with a blank",
    "page": "must not contain a NUL character",
    "idempotency-key": "must be visible ASCII characters, without blanks",
}
"""The meaning of each field's pattern, by field name."""

WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not a field that can be set here",
    "model_attributes_type": "must be a JSON object",
    "dict_type": "must be a JSON object",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_unicode": "holds half of a surrogate pair, which is not text",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "int_parsing_size": "is too large",
    "int_from_float": "must be a whole number",
    "float_type": "must be a whole number",
    "finite_number": "must be a whole number",
    "list_type": "must be a JSON array",
    "too_short": "must not be empty",
    "too_long": "may be given at most {max_length} times",
}
"""The meaning of pydantic's error types, with its limits in braces."""


class Refusal(BaseModel):
    """One error in a request."""

    where: str = Field(examples=["body.email"])
    what: str = Field(examples=["must look like name@example.com"])


def refusals(details: Sequence[Mapping[str, Any]]) -> list[Refusal]:
    """Returns the first errors of `details`, as pydantic reports them, in words."""
    return [Refusal(where=".".join(map(short, one["loc"])), what=_what(one)) for one in details[:LISTED]]


def short(part: object) -> str:
    """Returns client input as text, truncated if it is long."""
    text = str(part)
    return text if len(text) <= 100 else text[:100] + "…"


def _what(detail: Mapping[str, Any]) -> str:
    kind, field = detail["type"], str(detail["loc"][-1])
    if kind in ("string_type", "float_type", "list_type") and detail["input"] is None:
        return "must not be null"
    if kind == "float_type" and type(detail["input"]) is int:
        return WORDS["int_parsing_size"]  # It has more than 308 digits.
    if kind in ("string_type", "string_pattern_mismatch"):
        if kind == "string_type" and field != "price":
            return "must be text"
        return next((FORMS[str(part)] for part in reversed(detail["loc"]) if str(part) in FORMS), "has a wrong form")
    if kind == "too_long" and detail["loc"][0] == "body":
        return f"must have at most {detail['ctx']['max_length']:,} items"
    if kind in WORDS:
        return WORDS[kind].format_map({name: _spelled(limit) for name, limit in detail.get("ctx", {}).items()})
    message = str(detail["msg"]).removeprefix("Value error, ").removeprefix("Input ")
    return short(message[0].lower() + message[1:])


def _spelled(limit: object) -> object:
    return int(limit) if isinstance(limit, float) and limit.is_integer() else limit
