"""What a suite's conftest imports, so that its tests run in each topology: in the simplest one in the sample, and in
all of them among the long proofs. A test takes part if it uses the fixture `ways`, by itself or through another one.

    @pytest.mark.sampled("sentinel-pooled")             runs in this one, too, in the sample
    @pytest.mark.not_on("sentinel", because="…")        does not run where this leads to a store
"""

from collections.abc import AsyncIterator

import pytest

from tests.topologies.topology import TOPOLOGIES, Topology
from tests.topologies.ways import Ways


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Repeats a test in each topology, unless its own parameters name some."""
    own = [str(mark.args[0]) for mark in metafunc.definition.iter_markers("parametrize")]
    if "topology" not in metafunc.fixturenames or any("topology" in names for names in own):
        return
    excluded = {kind for mark in metafunc.definition.iter_markers("not_on") for kind in mark.args}
    sampled = {name for mark in metafunc.definition.iter_markers("sampled") for name in mark.args}
    simplest, *others = (each for each in TOPOLOGIES if excluded.isdisjoint((each.redis, each.database)))
    cases = [
        simplest,
        *(pytest.param(each, marks=() if str(each) in sampled else pytest.mark.prove) for each in others),
    ]
    metafunc.parametrize("topology", cases, ids=str, indirect=True, scope="package")


@pytest.fixture(scope="package")
def topology(request: pytest.FixtureRequest) -> Topology:
    """The topology in which this test runs."""
    found: Topology = request.param
    return found


@pytest.fixture(scope="package")
async def ways(topology: Topology) -> AsyncIterator[Ways]:
    """What leads to the stores there."""
    async with Ways.opened(topology) as ways:
        yield ways
