"""A whole number in a body. JSON has one number type, so 30, 30.0 and 3e1 are the same number (JSON Schema, 6.1.1).

    quantity: Annotated[int, WholeNumber(least=0, most=LARGEST)]

Text and booleans are refused, although pydantic would accept them. The checks run in pydantic's core, without a Python
call for each of ten thousand counts.

What can go wrong: 30.0 is parsed as a float, so numbers above 2^53 would not be exact. Hence the limits.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """Annotates an int field of a model as a whole number from `least` to `most`."""

    least: int
    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A strict float accepts any JSON number and nothing else. The int schema after it refuses a fraction.
        number = core_schema.float_schema(strict=True, ge=self.least, le=self.most, allow_inf_nan=False)
        return core_schema.chain_schema([number, core_schema.int_schema()])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(core_schema.int_schema(ge=self.least, le=self.most))
