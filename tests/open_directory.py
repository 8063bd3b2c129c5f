"""A test's directory that other users may enter. If the tests run as root, Postgres runs as another user. If that user
could not enter, its data would be elsewhere, and would be left behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def anywhere() -> Path:
    """Returns a directory in memory if there is enough: writing forty clusters to disk takes longer than all tests."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    return memory if plenty else Path("/tmp")


@contextmanager
def open_directory() -> Iterator[Path]:
    """Yields a new directory. It is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fourways-test-", dir=anywhere(), ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
