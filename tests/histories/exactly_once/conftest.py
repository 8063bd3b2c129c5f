"""One pair of servers for all of these: each test has pages of its own, and an application of its own."""

from collections.abc import Iterator

import pytest

from tests.faults.stores import Stores


@pytest.fixture(scope="package")
def stores() -> Iterator[Stores]:
    """Servers of this package's own, in place of some for each module."""
    with Stores.started() as stores:
        yield stores
