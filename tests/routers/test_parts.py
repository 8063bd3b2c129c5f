"""The limits on the parts of a large body."""

import pytest
from starlette.exceptions import HTTPException

from app.routers.parts import MOST_RUNS, RUN, Parts

LONG = len(RUN)


@pytest.mark.parametrize("step", [1, 7, LONG - 1, LONG, LONG + 1, 65_536])
def test_runs_of_digits_are_counted_however_the_body_is_split(step: int) -> None:
    body = (b"7" * (LONG - 1) + b"," + b"12" * LONG + b",") * (MOST_RUNS // 2)
    parts = Parts()
    for start in range(0, len(body), step):
        parts.count(body[start : start + step])
    with pytest.raises(HTTPException, match="more than 1,000 times 200 digits in a row"):
        parts.count(b"3" * LONG)


def test_a_run_may_span_two_parts_of_the_body() -> None:
    parts = Parts()
    for _ in range(2 * MOST_RUNS):
        parts.count(b"9" * (LONG // 2))
    with pytest.raises(HTTPException, match="digits in a row"):
        parts.count(b"9" * LONG)
