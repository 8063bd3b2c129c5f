"""A directory of a test that other users may enter: as root, Postgres is one of them, and its data would lie elsewhere
and be left behind."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path


@cache
def anywhere() -> Path:
    """In memory if there is plenty: forty clusters written to a disk take longer than all the tests."""
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and os.access(memory, os.W_OK) and shutil.disk_usage(memory).free > 2 << 30
    return memory if plenty else Path("/tmp")


@contextmanager
def open_directory() -> Iterator[Path]:
    """A new directory, removed at the end."""
    with tempfile.TemporaryDirectory(prefix="fourways-test-", dir=anywhere(), ignore_cleanup_errors=True) as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
