"""How a test selects commands or statements."""

import re
from collections.abc import Callable

Pattern = str | Callable[[str], bool]
"""A regular expression to search for, or a predicate."""


def matching(pattern: Pattern) -> Callable[[str], bool]:
    """Returns the pattern as a function."""
    if callable(pattern):
        return pattern
    expression = re.compile(pattern, re.DOTALL)
    return lambda text: expression.search(text) is not None
