"""The library speaks of keys and amounts, of regions and values, and never of what this service happens to cache.

All of its text is checked: names, strings, docstrings and comments, in Python and in Lua.
"""

import re
from pathlib import Path

import pytest

from tests.service import REPOSITORY

LIBRARY = REPOSITORY / "app" / "caching"
FILES = sorted(path for path in LIBRARY.rglob("*") if path.suffix in (".py", ".lua"))
FORBIDDEN = {"page", "view", "user", "product", "stock", "inventory", "sku", "fourways", "fastapi", "postgres"}

NOT_OURS = {
    "words.py": [
        "@user_script",
        r"\b[Uu]ser \S+ has no permissions",
        '"this user has no permissions"',
        "The user executing the script ",
    ],  # Quotes from Redis' errors.
    "connection.py": ["@user_script"],
    # A field of the stream keeps its first name.
    "write_behind/scripts/accept.lua": ["'views', count"],
}
"""Allowed exceptions, by file."""


def words(text: str) -> set[str]:
    """Returns the words of a text, in the singular: `loadViews` and `load_views` have two."""
    parts = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", text)
    return {re.sub(r"ies$", "y", part.lower()).removesuffix("s") for part in parts} | {part.lower() for part in parts}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(LIBRARY)))
def test_the_library_uses_no_word_of_this_service(path: Path) -> None:
    text = path.read_text()
    for theirs in NOT_OURS.get(str(path.relative_to(LIBRARY)), []):
        assert theirs in text, "It is not needed any more."
        text = text.replace(theirs, "")
    found = {f"{number}: {line.strip()}" for number, line in enumerate(text.splitlines(), 1) if words(line) & FORBIDDEN}
    assert not found


def test_words_are_found_however_they_are_joined() -> None:
    for text in ("load_views", "PageViews", "-- a user's", '"stocks"', "inventories", "SKU", "MOST_PAGES"):
        assert words(text) & FORBIDDEN, text
    assert not words("preview, pagination, superuser, production, livestock") & FORBIDDEN
