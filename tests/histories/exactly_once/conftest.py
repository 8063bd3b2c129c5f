"""One pair of servers for this package: each test has its own pages, and its own application."""

from collections.abc import Iterator

import pytest

from tests.faults.stores import Stores


@pytest.fixture(scope="package")
def stores() -> Iterator[Stores]:
    """Servers of this package, instead of new ones for each module."""
    with Stores.started() as stores:
        yield stores
