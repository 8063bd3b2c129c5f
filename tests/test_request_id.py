"""The id of a request: as it was sent, of its trace, or made."""

import re

import pytest

from app.request_id import CURRENT, request_id

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"


def asked(**headers: str) -> str | None:
    """Returns the id of a request with these headers."""
    fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    token = CURRENT.set({"headers": fields})
    try:
        known = request_id()
        assert request_id() == known, "A request has one id."
        return known
    finally:
        CURRENT.reset(token)


def test_a_sane_id_that_was_sent_is_the_id() -> None:
    assert asked(x_request_id="order-17", traceparent=PARENT) == "order-17"


@pytest.mark.parametrize("headers", [{}, {"x_request_id": "a b"}, {"x_request_id": ""}, {"x_request_id": "a\nb"}])
def test_without_one_it_is_that_of_the_trace(headers: dict[str, str]) -> None:
    assert asked(**headers, traceparent=PARENT) == TRACE
    assert asked(**headers, traceparent=f"01-{TRACE}-00f067aa0ba902b7-01-more") == TRACE


@pytest.mark.parametrize("parent", ["", TRACE, PARENT.upper(), f"00-{'0' * 32}-00f067aa0ba902b7-01", PARENT[:-3]])
def test_without_a_trace_either_one_is_made(parent: str) -> None:
    first, second = asked(traceparent=parent), asked(traceparent=parent)
    assert re.fullmatch(r"[0-9a-f]{32}", first or "")
    assert first != second


def test_outside_of_a_request_there_is_none() -> None:
    assert request_id() is None
