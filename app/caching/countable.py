"""What may be added: nothing else joins the additions of others, for they would share what becomes of it.

    one adds -1                 another one adds 5, in the same tick: one call takes on 4
    the flusher takes only whole numbers above 0, and the 5 would be a dead letter

What can go wrong: `ValueError`, the caller's own mistake.
"""

LARGEST = 2**53 - 1
"""More views than this cannot be added up exactly in Redis."""


def check(page: str, count: int, key: str | None) -> None:
    """Raises ValueError for what nobody can count."""
    if type(count) is not int:
        raise ValueError(f"{count!r} is no number of views.")
    if not 1 <= count <= LARGEST:
        raise ValueError(f"{count:,} views cannot be added: it must be 1 to {LARGEST:,}.")
    check_page(page)
    if key is not None and (not key or " " in key or not _is_text(key)):
        raise ValueError(f"{key[:100]!r} is no idempotency key: it must be text without blanks, and not empty.")


def check_page(page: str) -> None:
    """Raises ValueError for what no page can be named."""
    if not page or not _is_text(page):
        raise ValueError(f"{page[:100]!r} is no name of a page: it must be text, and not empty.")


def _is_text(words: str) -> bool:
    """Whether Postgres could keep it: no NUL, and no half of a pair, which is no UTF-8."""
    try:
        return b"\0" not in words.encode()
    except UnicodeEncodeError:
        return False
