"""The ledger's rules, in a model: with all of them, no batch is counted twice or becomes dead letters too early, and
each rule is needed."""

import pytest

from tests.page_views.ledger_model import LedgerModel, Rule

RIGHT, BEHIND = 0, 4
"""The clock of the process: right, or behind by more hours than are kept."""
ALL = [(BEHIND, 1), pytest.param(BEHIND, 3, marks=pytest.mark.prove), pytest.param(RIGHT, 3, marks=pytest.mark.prove)]


@pytest.mark.parametrize(("behind", "passing"), ALL)
def test_with_all_rules_no_batch_counts_twice_and_none_dies_too_early(behind: int, passing: int) -> None:
    model = LedgerModel(behind, passing)
    assert model.violation() is None
    assert model.states > 50_000


@pytest.mark.parametrize("rule", Rule)
def test_without_any_one_of_the_rules_a_batch_counts_twice_or_dies_too_early(rule: Rule) -> None:
    way = LedgerModel(BEHIND, 0, rule).violation()
    assert way is not None
