"""A directory of a test that other users may enter: as root, Postgres is one of them, and its data would lie elsewhere
and be left behind."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fourways-test-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
