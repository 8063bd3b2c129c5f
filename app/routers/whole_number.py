"""A whole number in a body. JSON has one kind of number, so 30, 30.0 and 3e1 are the same one (JSON Schema, 6.1.1).

    quantity: Annotated[int, WholeNumber(least=0, most=LARGEST)]

Text and booleans are none, although pydantic would take them for one. It is all done in pydantic's core, without a call
of a Python function for each of ten thousand counts.

What can go wrong: 30.0 comes as a float, so what is larger than 2^53 would not be exact. Hence the limits.
"""

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """Says of an int in a model that it is such a number, and from where to where."""

    least: int
    most: int

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        # A strict float is any JSON number, and nothing else; what makes an int of it refuses a fraction.
        number = core_schema.float_schema(strict=True, ge=self.least, le=self.most, allow_inf_nan=False)
        return core_schema.chain_schema([number, core_schema.int_schema()])

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return handler(core_schema.int_schema(ge=self.least, le=self.most))
