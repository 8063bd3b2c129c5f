"""The rules of parking, in a model: with all of them each view is in the total once, and each rule is needed."""

import pytest

from tests.page_views.parking_model import ParkingModel, Rule


def test_with_all_rules_each_view_is_in_the_total_once_and_in_the_row_in_the_end() -> None:
    model = ParkingModel()
    assert model.violation() is None
    assert model.states > 1_000


@pytest.mark.parametrize("rule", Rule)
def test_without_one_of_the_rules_a_view_is_lost_or_doubled_or_parked_for_ever(rule: Rule) -> None:
    assert ParkingModel(rule).violation() is not None
