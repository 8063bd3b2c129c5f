"""What may be added. Nothing else joins the additions of others, for they would share what becomes of it.

    one adds -1                 another one adds 5, in the same tick: one call accepts 4
    the flusher takes only whole numbers above 0, and the 5 would be a dead letter

What can go wrong: `ValueError`, the caller's own mistake.
"""

LARGEST = 2**53 - 1
"""More than this cannot be added up exactly in Redis."""


def check(key: str, amount: int, idempotency_key: str | None) -> None:
    """Raises ValueError for what nobody can add."""
    if type(amount) is not int:
        raise ValueError(f"{amount!r} is no amount: it must be a whole number.")
    if not 1 <= amount <= LARGEST:
        raise ValueError(f"{amount:,} cannot be added: an amount must be 1 to {LARGEST:,}.")
    check_key(key)
    if idempotency_key is not None and (not _is_text(idempotency_key) or " " in idempotency_key):
        raise ValueError(
            f"{_cut(idempotency_key)} is no idempotency key: it must be text without blanks, and not empty."
        )


def check_key(key: str) -> None:
    """Raises ValueError for what cannot be a key."""
    if not _is_text(key):
        raise ValueError(f"{_cut(key)} is no key: it must be text, and not empty.")


def _is_text(words: object) -> bool:
    """Whether a database could keep it: not empty, no NUL, and no half of a pair, which is no UTF-8."""
    try:
        return isinstance(words, str) and bool(words) and b"\0" not in words.encode()
    except UnicodeEncodeError:
        return False


def _cut(words: object) -> str:
    return repr(words[:100] if isinstance(words, str) else words)
