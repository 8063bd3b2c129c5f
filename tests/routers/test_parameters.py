"""The parameters in a URL."""

import httpx
import pytest

WHOLE = "must be a whole number, written in digits and without leading zeros"


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("0", "must be at least 1"),
        ("9223372036854775808", "must be at most 9223372036854775807"),
        ("9" * 23, "must be at most 9223372036854775807"),
        ("9" * 5000, "is too large"),
        ("-1", WHOLE),
        ("+1", WHOLE),
        ("1.0", WHOLE),
        ("1e3", WHOLE),
        ("1_000", WHOLE),
        ("01", WHOLE),
        ("0x1", WHOLE),
        ("%201", WHOLE),
        ("1%0A", WHOLE),
        ("%D9%A3", WHOLE),  # ARABIC-INDIC DIGIT THREE
        ("%C2%B2", WHOLE),  # SUPERSCRIPT TWO
        ("true", WHOLE),
        ("null", WHOLE),
        ("%22%22", WHOLE),
        ("x", WHOLE),
        ("1%00", WHOLE),
    ],
)
async def test_an_id_has_one_spelling(client: httpx.AsyncClient, written: str, what: str) -> None:
    for method in ("GET", "DELETE"):
        answer = await client.request(method, f"/users/{written}")
        assert (answer.status_code, answer.json()["detail"]) == (422, f"path.user_id {what}.")


@pytest.mark.parametrize("path", ["/users", "/products"])
@pytest.mark.parametrize(
    ("written", "what"),
    [
        ("0", "must be at least 1"),
        ("201", "must be at most 200"),
        ("9" * 23, "must be at most 200"),
        ("", WHOLE),
        ("-1", WHOLE),
        ("ten", WHOLE),
        ("5.0", WHOLE),
        ("true", WHOLE),
        ("%EF%BC%95", WHOLE),  # FULLWIDTH DIGIT FIVE
    ],
)
async def test_a_limit_is_between_1_and_200(client: httpx.AsyncClient, path: str, written: str, what: str) -> None:
    answer = await client.get(f"{path}?limit={written}")
    assert (answer.status_code, answer.json()["detail"]) == (422, f"query.limit {what}.")


@pytest.mark.parametrize("path", ["/users", "/products"])
async def test_the_limits_themselves_are_accepted(client: httpx.AsyncClient, path: str) -> None:
    for limit in (1, 200):
        assert (await client.get(f"{path}?limit={limit}")).status_code == 200


@pytest.mark.parametrize(
    ("after", "what"), [("-1", WHOLE), ("", WHOLE), ("9223372036854775808", "must be at most 9223372036854775807")]
)
async def test_users_are_paged_by_id(client: httpx.AsyncClient, after: str, what: str) -> None:
    answer = await client.get(f"/users?after={after}")
    assert (answer.status_code, answer.json()["detail"]) == (422, f"query.after {what}.")


@pytest.mark.parametrize(
    ("after", "what"), [("a%00", "must not contain a NUL character"), ("x" * 65, "must have at most 64 characters")]
)
async def test_products_are_paged_by_sku(client: httpx.AsyncClient, after: str, what: str) -> None:
    answer = await client.get(f"/products?after={after}")
    assert (answer.status_code, answer.json()["detail"]) == (422, f"query.after {what}.")


FORM = "must not contain control characters, nor begin or end with a blank"
BAD_SKUS = [
    ("", "must not be empty"),
    ("x" * 65, "must have at most 64 characters"),
    ("%20A", FORM),
    ("A%20", FORM),
    ("%C2%A0A", FORM),  # NO-BREAK SPACE
    ("A%E3%80%80", FORM),  # IDEOGRAPHIC SPACE
    ("%20", FORM),
    ("A%00", FORM),
    ("A%09B", FORM),
    ("A%0D%0AB", FORM),
    ("A%7FB", FORM),
    ("A%C2%85B", FORM),  # NEXT LINE
    ("%2E", "must not be . or .., which no URL can name"),
    ("%2E%2E", "must not be . or .., which no URL can name"),
]


@pytest.mark.parametrize(("sku", "what"), BAD_SKUS)
async def test_an_impossible_sku_is_refused_in_path_and_query(client: httpx.AsyncClient, sku: str, what: str) -> None:
    in_query = await client.get(f"/products?sku=A&sku={sku}")
    assert (in_query.status_code, in_query.json()["detail"]) == (422, f"query.sku.1 {what}.")
    if sku.startswith("%2E"):
        return  # No client sends it in a path.
    for method in ("GET", "DELETE"):
        in_path = await client.request(method, f"/products/{sku}")
        assert (in_path.status_code, in_path.json()["detail"]) == (422, f"path.sku {what}.")


async def test_an_unknown_parameter_is_ignored(client: httpx.AsyncClient) -> None:
    # So a reader can make URLs distinct, as the README does.
    assert (await client.get("/users?reader=7")).status_code == 200
