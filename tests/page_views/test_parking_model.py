"""The rules of parking, in a model: with all of them, each view is in the total once, and each rule is needed."""

import pytest

from tests.page_views.parking_model import ParkingModel, Rule


def test_with_all_rules_each_view_counts_once_and_reaches_its_row() -> None:
    model = ParkingModel()
    assert model.violation() is None
    assert model.states > 1_000


@pytest.mark.parametrize("rule", Rule)
def test_without_any_one_of_the_rules_a_view_is_lost_doubled_or_parked_forever(rule: Rule) -> None:
    assert ParkingModel(rule).violation() is not None
