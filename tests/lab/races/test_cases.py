"""A sample of the races: every published defect is found, and ours pass. `fourways lab races` runs more of them."""

from datetime import timedelta

import pytest

from app.embedded import Endpoints
from app.lab.published import PUBLISHED
from app.lab.races.cases import CASES, Case
from app.lab.races.explorer import explore

LONG = timedelta(minutes=5)
"""The bound is the number of schedules and not the time, so that the sample is the same everywhere."""
SEED = 1

wrong = [case for case in CASES if case.shows]
right = [case for case in CASES if not case.shows]


@pytest.mark.parametrize("case", wrong, ids=lambda case: case.name)
async def test_the_defects_of_a_published_variant_are_found(case: Case, endpoints: Endpoints) -> None:
    result = await explore(
        case, redis_url=endpoints.redis_url, database_url=endpoints.database_url, budget=LONG, most=300, seed=SEED
    )
    assert set(result.failures) == case.shows
    assert result.given_up == 0
    # None needs more than two moments at which a process stalls or dies.
    assert max(failure.cost for failure in result.failures.values()) <= 2


@pytest.mark.parametrize("most", [40, pytest.param(400, marks=[pytest.mark.prove, pytest.mark.timeout(900)])])
@pytest.mark.parametrize("case", right, ids=lambda case: case.name)
async def test_ours_and_the_repaired_variants_pass(case: Case, endpoints: Endpoints, most: int) -> None:
    result = await explore(
        case, redis_url=endpoints.redis_url, database_url=endpoints.database_url, budget=LONG, most=most, seed=SEED
    )
    assert not result.failures, "\n\n".join(map(str, result.failures.values()))
    assert (result.schedules, result.given_up) == (most, 0)


async def test_there_is_a_case_for_each_strategy() -> None:
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert names[-4:] == ["cache-aside", "read-through", "write-through", "write-behind"]
    assert {*PUBLISHED} <= {*names}
    assert [case.name for case in CASES if case.ours] == names[-4:]
