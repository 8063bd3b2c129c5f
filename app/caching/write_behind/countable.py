"""Checks what may be added. An invalid addition must not join the additions of others, which would share its fate.

    one caller adds -1          another one adds 5, in the same tick: one call accepts 4
    the flusher accepts only whole numbers above 0, so the 5 would become a dead letter

What can go wrong: `ValueError`, the caller's own mistake.
"""

LARGEST = 2**53 - 1
"""The largest number that a script in Redis can add up exactly."""


def check(key: str, amount: int, idempotency_key: str | None) -> None:
    """Raises ValueError for an invalid addition."""
    if type(amount) is not int:
        raise ValueError(f"{amount!r} is not an amount: it must be a whole number.")
    if not 1 <= amount <= LARGEST:
        raise ValueError(f"{amount:,} cannot be added: an amount must be 1 to {LARGEST:,}.")
    check_key(key)
    if idempotency_key is not None and (not _is_text(idempotency_key) or " " in idempotency_key):
        raise ValueError(
            f"{_cut(idempotency_key)} is not an idempotency key: it must be text without blanks, and not empty."
        )


def check_key(key: str) -> None:
    """Raises ValueError for an invalid key."""
    if not _is_text(key):
        raise ValueError(f"{_cut(key)} is not a key: it must be text, and not empty.")


def _is_text(words: object) -> bool:
    """Returns whether a database can store it as text: not empty, no NUL, and no lone surrogate, which is not UTF-8."""
    try:
        return isinstance(words, str) and bool(words) and b"\0" not in words.encode()
    except UnicodeEncodeError:
        return False


def _cut(words: object) -> str:
    return repr(words[:100] if isinstance(words, str) else words)
