"""The OpenAPI document matches the behaviour of the application."""

import asyncio
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.demo import add_demo_data
from app.embedded import Endpoints
from tests.eventually import PATIENCE
from tests.service import Service

EXAMPLES = [5, pytest.param(60, marks=pytest.mark.prove)]
"""Maximum number of examples for each call, in each phase."""

CALLS = {
    "get /": {200, 304, 412},
    "get /strategies": {200, 304, 412},
    "get /metrics": {200, 304, 412},
    "get /health/live": {200, 304, 412},
    "get /health/ready": {200, 304, 412, 503},
    "post /users": {201, 403, 409, 412, 415, 422, 503},
    "get /users": {200, 304, 412, 422, 503},
    "get /users/{user_id}": {200, 304, 404, 412, 422, 500, 503},
    "patch /users/{user_id}": {200, 403, 404, 409, 412, 415, 422, 500, 503},
    "delete /users/{user_id}": {204, 403, 404, 412, 422, 503},
    "post /products": {201, 403, 409, 412, 415, 422, 503},
    "get /products": {200, 304, 412, 422, 503},
    "get /products/{sku}": {200, 304, 404, 412, 422, 500, 503},
    "patch /products/{sku}": {200, 403, 404, 412, 415, 422, 500, 503},
    "delete /products/{sku}": {204, 403, 404, 412, 422, 503},
    "put /inventory/{sku}": {200, 201, 403, 404, 412, 415, 422, 503},
    "get /inventory/{sku}": {200, 304, 404, 412, 422, 500, 503},
    "delete /inventory/{sku}": {204, 403, 404, 412, 422, 503},
    "post /inventory/{sku}/adjustments": {200, 403, 404, 409, 412, 415, 422, 500, 503},
    "post /page-views": {202, 403, 415, 422, 500, 503},
    "get /page-views": {200, 304, 412, 422, 503},
    "post /page-views/{page}": {202, 403, 415, 422, 500, 503},
    "get /page-views/{page}": {200, 304, 412, 422, 503},
    "get /write-behind": {200, 304, 412, 503},
    "get /write-behind/dead-letters": {200, 304, 412, 422, 503},
    "post /write-behind/dead-letters/{letter}/replay": {200, 403, 404, 409, 412, 422, 503},
    "delete /write-behind/dead-letters/{letter}": {204, 403, 404, 412, 422, 503},
}
"""The statuses of every call, without those of the layers before the router, which every call can have."""


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    """The OpenAPI document."""
    answer: dict[str, Any] = (await client.get("/openapi.json")).json()
    return answer


def calls(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields the operations of a document, by method and path."""
    for path, methods in document["paths"].items():
        for method, call in methods.items():
            yield f"{method} {path}", call


async def test_the_document_is_valid(document: dict[str, Any]) -> None:
    # Every pytest process imports this file, but only one of them needs schemathesis.
    from schemathesis import openapi

    openapi.from_dict(document).validate()


async def test_every_call_lists_its_statuses(document: dict[str, Any]) -> None:
    assert {name: {int(status) for status in call["responses"]} for name, call in calls(document)} == {
        name: statuses | {400, 408, 413, 414, 431, 501, 505} for name, statuses in CALLS.items()
    }


async def test_every_call_has_a_description_and_examples(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        assert call["summary"], name
        assert call["description"].endswith("."), name
        for parameter in call.get("parameters", []):
            assert parameter["description"], (name, parameter["name"])
            if parameter["required"]:
                assert parameter["schema"]["examples"], (name, parameter["name"])
        if "requestBody" in call:
            schema = call["requestBody"]["content"]["application/json"]["schema"]
            named = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
            assert schema.get("examples") or named.get("examples"), name


async def test_every_error_is_a_problem(document: dict[str, Any]) -> None:
    for name, call in calls(document):
        for status, answer in call["responses"].items():
            if int(status) >= 400 and name != "get /health/ready":
                assert list(answer["content"]) == ["application/problem+json"]
                content = answer["content"]["application/problem+json"]
                assert content["schema"] == {"$ref": "#/components/schemas/Problem"}
                assert content["example"]["status"] == int(status)
    assert not [name for name in document["components"]["schemas"] if "ValidationError" in name or name[0] == "_"]


async def test_the_limits_are_in_the_document(document: dict[str, Any]) -> None:
    schemas = {
        (name, parameter["name"]): parameter["schema"]
        for name, call in calls(document)
        for parameter in call.get("parameters", [])
    }
    limit, user_id = schemas["get /users", "limit"], schemas["get /users/{user_id}", "user_id"]
    assert (limit["minimum"], limit["maximum"], limit["default"]) == (1, 200, 50)
    assert (user_id["minimum"], user_id["maximum"]) == (1, 2**63 - 1)
    fields = document["components"]["schemas"]["NewProduct"]
    assert (fields["additionalProperties"], fields["properties"]["sku"]["maxLength"]) == (False, 64)
    assert set(document["components"]["schemas"]["ProductChanges"]["properties"]) == {"name", "description", "price"}


async def test_the_limits_of_inventory_and_page_views_are_in_the_document(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    quantity, delta = schemas["Quantity"]["properties"]["quantity"], schemas["Delta"]["properties"]["delta"]
    assert (quantity["type"], quantity["minimum"], quantity["maximum"]) == ("integer", 0, 2**53 - 1)
    assert (delta["minimum"], delta["maximum"], delta["not"]) == (-(2**53) + 1, 2**53 - 1, {"const": 0})
    page, count = schemas["PageView"]["properties"]["page"], schemas["View"]["properties"]["count"]
    assert (page["minLength"], page["maxLength"]) == (1, 2048)
    assert (count["minimum"], count["maximum"], count["default"]) == (1, 1_000_000, 1)
    views = schemas["ManyViews"]["properties"]["views"]
    assert (views["minItems"], views["maxItems"]) == (1, 10_000)
    assert set(schemas["Stock"]["properties"]) == {"sku", "quantity", "version", "updated_at"}


async def test_every_call_on_a_row_accepts_preconditions(document: dict[str, Any]) -> None:
    taken = {
        name: {parameter["name"] for parameter in call.get("parameters", []) if parameter["name"].startswith("if-")}
        for name, call in calls(document)
    }
    assert {name: names for name, names in taken.items() if names} == {
        name: {"if-match", "if-none-match"}
        for name in CALLS
        if name.partition("}")[1] and "dead-letters" not in name and name != "post /page-views/{page}"
    }


async def test_every_answer_lists_its_headers(document: dict[str, Any]) -> None:
    found = {
        (name, int(status)): set(answer["headers"])
        for name, call in calls(document)
        for status, answer in call["responses"].items()
        if "headers" in answer and int(status) != 503
    }
    read = {"ETag", "Cache-Status", "Cache-Control"}
    assert {(name, status): headers for (name, status), headers in found.items() if name.startswith("get")} == {
        (f"get {path}", status): read
        for path in ("/users/{user_id}", "/products/{sku}", "/inventory/{sku}", "/page-views/{page}")
        for status in (200, 304)
    }
    assert {(name, status): headers for (name, status), headers in found.items() if not name.startswith("get")} == {
        ("post /users", 201): {"ETag", "Location", "Cache-Control"},
        ("post /products", 201): {"ETag", "Location", "Cache-Control"},
        ("put /inventory/{sku}", 201): {"ETag", "Location", "Cache-Control"},
        ("patch /users/{user_id}", 200): {"ETag", "Cache-Control"},
        ("patch /products/{sku}", 200): {"ETag", "Cache-Control"},
        ("put /inventory/{sku}", 200): {"ETag", "Cache-Control"},
        ("post /inventory/{sku}/adjustments", 200): {"ETag", "Cache-Control"},
    }
    for name, call in calls(document):
        if "503" in call["responses"] and name != "get /health/ready":
            assert set(call["responses"]["503"]["headers"]) == {"Retry-After"}


@pytest.mark.parametrize("examples", EXAMPLES)
async def test_schemathesis_finds_no_answer_that_the_document_does_not_allow(
    service: Service, endpoints: Endpoints, tmp_path: Path, examples: int
) -> None:
    await add_demo_data(endpoints.database_url)
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")), "--no-color",
        "--config-file", str(Path(__file__).with_name("schemathesis.toml")),
        "run", f"{service.url}/openapi.json", "--generation-deterministic", "--max-examples", str(examples),
        cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(PATIENCE * 1.5):
        report, _ = await process.communicate()
    assert process.returncode == 0, report.decode()
    assert f"Tested: {len(CALLS)}" in report.decode()
