"""Whole numbers in a body, in all spellings of JSON."""

import httpx
import pytest

JSON = {"Content-Type": "application/json"}
CALLS = [
    ("PUT", "/inventory/A", '{{"quantity": {number}}}', '"quantity":{number},'),
    ("POST", "/inventory/A/adjustments", '{{"delta": {number}}}', '"quantity":{number},'),
    ("POST", "/page-views/{page}", '{{"count": {number}}}', '"views":{number}}}'),
    ("POST", "/page-views", '{{"views": [{{"page": "home", "count": {number}}}]}}', '"accepted":{number}}}'),
]
"""Every call with a number in its body, and how its answer repeats that number."""


@pytest.mark.parametrize(("method", "path", "body", "told"), CALLS)
async def test_a_number_is_the_same_however_json_spells_it(
    client: httpx.AsyncClient, method: str, path: str, body: str, told: str
) -> None:
    for turn, number in enumerate(("85165", "85165.0", "85165.00", "8.5165e4", "8.5165E+4", "851650e-1")):
        await client.put("/inventory/A", json={"quantity": 0})
        url = path.format(page=f"page-{turn}")
        answer = await client.request(method, url, content=body.format(number=number), headers=JSON)
        assert answer.is_success, (number, answer.text)
        assert told.format(number=85165) in answer.text


@pytest.mark.parametrize(("method", "path", "body", "told"), CALLS)
async def test_a_value_that_is_not_a_whole_number_or_too_large_is_refused(
    client: httpx.AsyncClient, method: str, path: str, body: str, told: str
) -> None:
    await client.put("/inventory/A", json={"quantity": 1})
    for number, says in (
        ("85165.5", "must be a whole number"),
        ("1e400", "must be a whole number"),  # A parser reads it as infinity.
        ("-1e400", "must be a whole number"),
        ("NaN", "must be a whole number"),
        ("true", "must be a whole number"),
        ('"5"', "must be a whole number"),
        ('"5.0"', "must be a whole number"),
        ("null", "must not be null"),
        ("9007199254740992.0", "must be at most"),
        ("1e300", "must be at most"),
        ("9" * 400, "is too large"),
    ):
        url = path.format(page="home")
        answer = await client.request(method, url, content=body.format(number=number), headers=JSON)
        assert (answer.status_code, says in answer.json()["detail"]) == (422, True), (number, answer.text)
    assert (await client.get("/inventory/A")).json()["quantity"] == 1
    assert (await client.get("/page-views/home")).json()["views"] == 0
