"""A parameter of a connection: its value, and where it was given."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias


class RefusedUrl(ValueError):
    """A URL, or what the environment adds to it, cannot be used as it is. The message is a sentence without secrets."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter, as text. The value does not show in a traceback: it may be a password."""

    name: str
    value: str = field(repr=False)
    source: str
    """`DATABASE_URL`, `PGSSLMODE`, `the service 'shop'`."""

    def refused(self, rule: str, *, shown: bool = True) -> RefusedUrl:
        """Returns an error that names the parameter, its value (if `shown`), and why it is refused."""
        if not shown or "@" in self.value:  # After an unencoded ? it may be the end of a password.
            return RefusedUrl(f"The parameter {self.name} in {self.source} is refused: {rule}.")
        return RefusedUrl(f"The {self.name} in {self.source} is {self.value!r}: {rule}.")


Parameters: TypeAlias = Mapping[str, Parameter]
"""By name."""
