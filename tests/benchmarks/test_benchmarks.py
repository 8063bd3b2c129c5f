"""The benchmarks still run, and get right answers. No figure is checked: this is no place to measure."""

from datetime import timedelta
from importlib import import_module
from importlib.util import find_spec

import pytest

from app.embedded import Endpoints
from tests.benchmarks.measurement import Bar, Chart, Goal, Result, Rounds, Sample
from tests.benchmarks.plot import svg
from tests.benchmarks.stage import Size, Stage

SMALLEST = Size(rounds=1, turn=timedelta(milliseconds=200), keys=100, batch=10)


@pytest.mark.filterwarnings("ignore:Call to deprecated close")  # cashews closes its client in a deprecated way.
@pytest.mark.parametrize(
    "question", [pytest.param("cluster_hits", marks=pytest.mark.prove), "hit_in_library", "many_keys"]
)
async def test_a_question_gets_its_figures(question: str, endpoints: Endpoints) -> None:
    """Each goal has a figure for each round, and there is something to draw."""
    if find_spec("cashews") is None and question == "hit_in_library":
        pytest.skip("cashews is not installed: it comes with the extra `bench`")

    result: Result = await import_module(f"tests.benchmarks.{question}").measure(
        Stage(endpoints, SMALLEST, lambda text: None)
    )

    assert [len(goal.values) for goal in result.goals] == [1] * len(result.goals)
    assert svg(result.chart).count("<rect") == len(result.chart.bars)


def test_a_ratio_is_taken_inside_a_round() -> None:
    """The machine was twice as slow in the second round, on both sides of the ratio."""

    def sample(done: int) -> Sample:
        return Sample(done, timedelta(seconds=1))

    rounds = Rounds({"ours": [sample(300), sample(150)], "theirs": [sample(100), sample(50)]})

    assert rounds.ratio("ours", "theirs") == (3, 3)


def test_a_goal_is_reached_by_the_median() -> None:
    """One bad round of three does not decide."""
    assert Goal("as fast", [0.5, 1.1, 1.2], 1).reached
    assert not Goal("as cheap", [0.5, 1.1, 1.2], 1, at_most=True).reached


def test_a_label_cannot_break_a_chart() -> None:
    """It stays text, whatever is in it."""
    assert "a &lt; b" in svg(Chart("a chart", [Bar("a < b", [1.0])]))
