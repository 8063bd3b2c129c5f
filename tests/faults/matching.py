"""How a test says which commands or statements it means."""

import re
from collections.abc import Callable

Pattern = str | Callable[[str], bool]
"""A regular expression that is searched for, or a function that is asked."""


def matching(pattern: Pattern) -> Callable[[str], bool]:
    """The pattern as a function."""
    if callable(pattern):
        return pattern
    expression = re.compile(pattern, re.DOTALL)
    return lambda text: expression.search(text) is not None
