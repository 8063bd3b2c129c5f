"""Bad input: always a 4xx that says what is wrong, never a 500, and nothing written.

Each request is sent twice: to the application in this process, and as bytes on a socket to a real uvicorn, whose
parser sees them first.
"""

import asyncio
import json
from dataclasses import dataclass, field

import asyncpg
import httpx
import pytest

from tests.routers.conftest import Contents, contents
from tests.routers.wire import Answer, exchange, request
from tests.service import Service

USER = {"name": "Grace", "email": "grace@example.com"}
PRODUCT = {"sku": "CUP-1", "name": "Cup", "price": "6.20"}
JSON = [(b"Content-Type", b"application/json")]
DEEP = 100_000


@dataclass(frozen=True, slots=True)
class Bad:
    """A request, the status of its answer, and words that the answer must have."""

    name: str
    method: str
    target: str
    status: int
    says: str
    body: bytes | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def post_user(name: str, says: str, /, **fields: object) -> Bad:
    """A new user with these fields, `...` for one that is left out."""
    body = {key: value for key, value in (USER | fields).items() if value is not ...}
    return Bad(f"user-{name}", "POST", "/users", 422, says, json.dumps(body).encode(), JSON)


def post_product(name: str, says: str, /, **fields: object) -> Bad:
    """A new product with these fields, `...` for one that is left out."""
    body = {key: value for key, value in (PRODUCT | fields).items() if value is not ...}
    return Bad(f"product-{name}", "POST", "/products", 422, says, json.dumps(body).encode(), JSON)


def patch(name: str, target: str, body: object, says: str) -> Bad:
    """A change of a row that exists."""
    return Bad(f"patch-{name}", "PATCH", target, 422, says, json.dumps(body).encode(), JSON)


def body(name: str, raw: bytes, status: int, says: str, headers: list[tuple[bytes, bytes]] = JSON) -> list[Bad]:
    """The same bytes wherever a body is read."""
    targets = [("POST", "/users"), ("PATCH", "/users/1"), ("POST", "/products"), ("PATCH", "/products/KETTLE-1")]
    return [Bad(f"{name}-{method}{target}", method, target, status, says, raw, headers) for method, target in targets]


SURROGATE = "holds half of a surrogate pair, which is not text"
EMAIL = "body.email must look like name@example.com"
PRICE = "body.price must be a decimal number as text"
SKU = "body.sku must not contain control characters, nor begin or end with a blank"
WHOLE = "must be a whole number"
TAGS = "a list of entity tags in double quotes"

NO_TEXT: list[object] = [
    True, False, 0, 7, 12.50, 2**63, int("9" * 23), float("nan"), float("inf"), -float("inf"), [], ["x"], {}, {"x": 1},
]  # fmt: skip
EMAILS = [
    "", "ada", "@", "ada@", "@example.com", "ada@example", "ada@@example.com", "a@b@example.com", "a@.com",
    "ada@example.", "ada@example..com", "a da@example.com", "ada@exam ple.com", " ada@example.com",
    "ada@example.com ", "ada@example.com\n", "ada\t@example.com", "ada@example.com\x85", "ada\x7f@example.com",
]  # fmt: skip
PRICES = [
    "", " ", "12,50", "-1", "+1", ".5", "5.", "1.23456", "12345678901", "1e3", "0x1F", "1_000", " 1", "1 ",
    "1\n", "1.5\n", "NaN", "Infinity", "12.50 EUR", "1.2.3", "١٢", "１２", "²", "1.٥", "9" * 100_000, "1\0",
]  # fmt: skip

BAD = [
    # Fields that are unknown, missing, or of another type.
    post_user("unknown-field", "body.admin is not a field that can be set here", admin=True),
    post_user("id", "body.id is not a field that can be set here", id=7),
    post_user("version", "body.version is not a field that can be set here", version=7),
    post_user("without-name", "body.name is missing", name=...),
    post_user("without-email", "body.email is missing", email=...),
    *(post_user(f"name-{json.dumps(value)}", "body.name must be text", name=value) for value in NO_TEXT),
    *(post_user(f"email-{json.dumps(value)}", "body.email must be text", email=value) for value in NO_TEXT),
    post_user("name-null", "body.name must not be null", name=None),
    post_user("email-null", "body.email must not be null", email=None),
    post_product("unknown-field", "body.stock is not a field that can be set here", stock=1),
    post_product("without-sku", "body.sku is missing", sku=...),
    post_product("without-price", "body.price is missing", price=...),
    *(post_product(f"sku-{json.dumps(value)}", "body.sku must be text", sku=value) for value in NO_TEXT),
    *(post_product(f"name-{json.dumps(value)}", "body.name must be text", name=value) for value in NO_TEXT),
    *(
        post_product(f"description-{json.dumps(value)}", "body.description must be text", description=value)
        for value in NO_TEXT
    ),
    *(post_product(f"price-{json.dumps(value)}", PRICE, price=value) for value in NO_TEXT),
    post_product("sku-null", "body.sku must not be null", sku=None),
    post_product("name-null", "body.name must not be null", name=None),
    post_product("price-null", "body.price must not be null", price=None),
    # Text that is no text, or too short, or too long.
    post_user("name-surrogate", SURROGATE, name="\ud800"),
    post_user("email-surrogate", SURROGATE, email="\udfff@example.com"),
    post_user("field-surrogate", SURROGATE, **{"\ud800": 1}),
    post_user("name-nul", "body.name must not contain a NUL character", name="a\0b"),
    post_user("email-nul", EMAIL, email="a\0@example.com"),
    post_user("field-nul", "is not a field that can be set here", **{"\0": 1}),
    post_user("field-long", "is not a field that can be set here", **{"x" * 100_000: 1}),
    post_user("name-empty", "body.name must not be empty", name=""),
    post_user("name-201", "body.name must have at most 200 characters", name="x" * 201),
    post_user("name-megabyte", "body.name must have at most 200 characters", name="x" * 1_000_000),
    post_product("name-surrogate", SURROGATE, name="a\udc00"),
    post_product("sku-surrogate", SURROGATE, sku="\ud83d"),
    post_product("description-surrogate", SURROGATE, description="\ud800\ud800"),
    post_product("price-surrogate", SURROGATE, price="\ud800"),
    post_product("name-nul", "body.name must not contain a NUL character", name="\0"),
    post_product("description-nul", "body.description must not contain a NUL character", description="\0"),
    post_product("name-empty", "body.name must not be empty", name=""),
    post_product("name-201", "body.name must have at most 200 characters", name="x" * 201),
    post_product("description-4001", "body.description must have at most 4000 characters", description="x" * 4001),
    # Emails, prices and skus of a wrong form.
    *(post_user(f"email-{value!r}", EMAIL, email=value) for value in EMAILS),
    post_user("email-255", "body.email must have at most 254 characters", email="x" * 243 + "@example.com"),
    *(post_product(f"price-{value!r}", PRICE, price=value) for value in PRICES),
    *(
        post_product(f"sku-{value!r}", SKU, sku=value)
        for value in (" ", " A", "A ", "\tA", "A\n", "A\nB", "A\x00", "\x1f", "A\x7f", "\x85", "\xa0A", "A\u3000")
    ),
    post_product("sku-empty", "body.sku must not be empty", sku=""),
    post_product("sku-65", "body.sku must have at most 64 characters", sku="x" * 65),
    post_product("sku-dot", "body.sku must not be . or .., which no URL can name", sku="."),
    post_product("sku-dots", "body.sku must not be . or .., which no URL can name", sku=".."),
    # Changes.
    patch("user-nothing", "/users/1", {}, "body must have at least one of name, email"),
    patch("product-nothing", "/products/KETTLE-1", {}, "body must have at least one of name, description, price"),
    patch("user-unknown", "/users/1", {"name": "New", "x": 1}, "body.x is not a field that can be set here"),
    patch("user-id", "/users/1", {"id": 2}, "body.id is not a field that can be set here"),
    patch("user-name-null", "/users/1", {"name": None}, "body.name must not be null"),
    patch("user-email-null", "/users/1", {"email": None}, "body.email must not be null"),
    patch("user-name-number", "/users/1", {"name": 7}, "body.name must be text"),
    patch("user-surrogate", "/users/1", {"name": "\ud800"}, SURROGATE),
    patch("user-field-surrogate", "/users/1", {"\ud800": 1}, SURROGATE),
    patch("user-nul", "/users/1", {"name": "\0"}, "body.name must not contain a NUL character"),
    patch("product-sku", "/products/KETTLE-1", {"sku": "KETTLE-2"}, "body.sku is not a field that can be set here"),
    patch("product-version", "/products/KETTLE-1", {"version": 1}, "body.version is not a field that can be set here"),
    patch("product-name-null", "/products/KETTLE-1", {"name": None}, "body.name must not be null"),
    patch("product-price-null", "/products/KETTLE-1", {"price": None}, "body.price must not be null"),
    patch("product-price-number", "/products/KETTLE-1", {"price": 1.5}, PRICE),
    patch("product-one-good-one-bad", "/products/KETTLE-1", {"name": "New", "price": "free"}, PRICE),
    # Bodies that are no object, or no JSON, or no text.
    *body("missing", b"", 422, "body is missing"),
    *body("null", b"null", 422, "body must be a JSON object"),
    *body("array", b"[]", 422, "body must be a JSON object"),
    *body("string", b'"x"', 422, "body must be a JSON object"),
    *body("number", b"7", 422, "body must be a JSON object"),
    *body("true", b"true", 422, "body must be a JSON object"),
    *body("nan", b"NaN", 422, "body must be a JSON object"),
    *body("blank", b" ", 400, "The body is not JSON: Expecting value"),
    *body("cut-off", b'{"name": "A', 400, "The body is not JSON: Unterminated string starting"),
    *body("form", b"name=Ada&email=ada@example.com", 400, "The body is not JSON"),
    *body("nul", b"\0", 400, "The body"),
    *body("not-utf8", b'{"name": "\xff"}', 400, "it is not UTF-8"),
    *body("surrogate-bytes", b'{"name": "\xed\xa0\x80"}', 422, SURROGATE),
    *body("utf16", json.dumps(USER).encode("utf-16"), 400, "it is not UTF-8"),
    *body("utf32", json.dumps(USER).encode("utf-32-le"), 400, "it is not UTF-8"),
    *body("nested-arrays", b"[" * DEEP, 400, "it is nested too deeply"),
    *body("nested-arrays-closed", b"[" * DEEP + b"]" * DEEP, 400, "it is nested too deeply"),
    *body("nested-objects", b'{"a":' * DEEP, 400, "it is nested too deeply"),
    *body("nested-name", b'{"name":' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "it is nested too deeply"),
    *body("digits", b'{"name": ' + b"9" * 10_000 + b"}", 400, "a number in it has too many digits"),
    *body("exponent", b'{"name": 1e999999999}', 422, "body.name must be text"),
    *body("many-fields", b"{" + b",".join(b'"k%d":1' % n for n in range(20_000)) + b"}", 422, "more."),
    *body("30-megabytes", b'{"name": "' + b"x" * 30_000_000 + b'"}', 413, "The body is larger than 4,194,304 bytes"),
    *body("undeclared", json.dumps(USER).encode(), 415, "there is no Content-Type", []),
    *body("declared-text", json.dumps(USER).encode(), 415, "not as text/plain", [(b"Content-Type", b"text/plain")]),
    *body("declared-latin", b"{}", 415, "not as", [(b"Content-Type", b"\xff\xfe")]),
    *body("declared-form", b"name=A", 415, "not as", [(b"Content-Type", b"application/x-www-form-urlencoded")]),
    # URLs.
    *(
        Bad(f"{method}-id-{number[:24]}", method, f"/users/{number}", 422, says)
        for method in ("GET", "DELETE")
        for number, says in (
            ("0", "must be at least 1"),
            (str(2**63), "must be at most 9223372036854775807"),
            ("9" * 23, "must be at most 9223372036854775807"),
            ("9" * 5000, "is too large"),
            ("-1", WHOLE),
            ("1.0", WHOLE),
            ("true", WHOLE),
            ("%221%22", WHOLE),
            ("%00", WHOLE),
            ("%F0%9F%98%80", WHOLE),
        )
    ),
    Bad("patch-id", "PATCH", f"/users/{2**63}", 422, "path.user_id must be at most", b'{"name": "New"}', JSON),
    Bad("delete-sku-nul", "DELETE", "/products/KETTLE-1%00", 422, "path.sku must not contain control characters"),
    Bad("delete-sku-break", "DELETE", "/products/KETTLE-1%0A", 422, "path.sku must not contain control characters"),
    Bad("delete-sku-long", "DELETE", "/products/" + "x" * 5000, 422, "path.sku must have at most 64 characters"),
    Bad("delete-sku-empty", "DELETE", "/products/", 422, "path.sku must not be empty"),
    Bad("not-utf8-path", "DELETE", "/products/%FF", 400, "The URL is not UTF-8"),
    Bad("not-utf8-query", "GET", "/products?sku=%FF", 400, "The URL is not UTF-8"),
    Bad("surrogate-query", "GET", "/products?sku=%ED%A0%80", 400, "The URL is not UTF-8"),
    Bad("overlong-query", "GET", "/products?sku=%C0%80", 400, "The URL is not UTF-8"),
    Bad("limit-text", "GET", "/users?limit=ten", 422, WHOLE),
    Bad("limit-large", "GET", "/users?limit=" + "9" * 20_000, 422, "query.limit is too large"),
    Bad("limit-twice", "GET", "/users?limit=5&limit=0", 422, "must be at least 1"),
    Bad("after-nul", "GET", "/products?after=%00", 422, "query.after must not contain a NUL character"),
    Bad("skus-101", "GET", "/products?" + "&".join(["sku=A"] * 101), 422, "may be given at most 100 times"),
    Bad("skus-9000", "GET", "/products?" + "&".join(["sku=A"] * 9000), 422, "may be given at most 100 times"),
    Bad("sku-blank", "GET", "/products?sku=", 422, "query.sku.0 must not be empty"),
    Bad("nowhere", "POST", "/nowhere", 404, "There is nothing at /nowhere", json.dumps(USER).encode(), JSON),
    Bad("put", "PUT", "/users/1", 405, "/users/1 does not take PUT", json.dumps(USER).encode(), JSON),
    # Headers.
    *(
        Bad(f"{method}-if-match-{tags[:8]!r}", method, "/users/1", 400, says, body_, [*JSON, (b"If-Match", tags)])
        for method, body_ in (("DELETE", None), ("PATCH", b'{"name": "New"}'))
        for tags, says in (
            (b"1", TAGS),
            (b"", TAGS),
            (b'"1', TAGS),
            (b'"1" ' + b" " * 20_000 + b"x", TAGS),
            (b"\xff", TAGS),
            (b",".join(b'"%d"' % number for number in range(10_000)), "at most 100 entity tags, and not 10,000"),
        )
    ),
    Bad("if-none-match", "GET", "/users/1", 400, TAGS, None, [(b"If-None-Match", b"1")]),
]


def check(bad: Bad, answer: Answer | httpx.Response) -> None:
    """The answer is the problem that was expected."""
    status, text = (answer.status, answer.body) if isinstance(answer, Answer) else (answer.status_code, answer.content)
    problem = json.loads(text)
    assert (status, problem["status"]) == (bad.status, bad.status), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert bad.says in problem["detail"]
    assert len(text) < 5000


async def test_bad_input_is_refused_in_words_and_nothing_is_written(
    client: httpx.AsyncClient, sql: asyncpg.Connection, rows: Contents, subtests: pytest.Subtests
) -> None:
    for bad in BAD:
        with subtests.test(bad.name):
            check(bad, await client.request(bad.method, bad.target, content=bad.body, headers=bad.headers))
            assert await contents(sql) == rows


async def test_bad_input_is_refused_in_words_and_nothing_is_written_over_real_uvicorn(
    service: Service, sql: asyncpg.Connection, rows: Contents, subtests: pytest.Subtests
) -> None:
    for bad in BAD:
        with subtests.test(bad.name):
            check(bad, await exchange(service, request(bad.method, bad.target.encode(), bad.headers, bad.body)))
            assert await contents(sql) == rows


CHUNKED = request("POST", b"/users", [*JSON, (b"Transfer-Encoding", b"chunked")])


@pytest.mark.parametrize(
    ("chunks", "status", "says"),
    [
        ((b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 480 + b"0\r\n\r\n", 413, "The body is larger than 4,194,304 bytes"),
        (b"1\r\n{\r\n0\r\n\r\n", 400, "The body is not JSON"),
        (b"0\r\n\r\n", 422, "body is missing"),
    ],
    ids=["30-megabytes", "cut-off", "empty"],
)
async def test_a_bad_body_in_chunks_is_refused(
    service: Service, sql: asyncpg.Connection, rows: Contents, chunks: bytes, status: int, says: str
) -> None:
    answer = await exchange(service, CHUNKED + chunks)
    assert (answer.status, answer.headers["content-type"]) == (status, "application/problem+json")
    assert says in json.loads(answer.body)["detail"]
    assert await contents(sql) == rows


@pytest.mark.parametrize(
    "sent",
    [
        b"nonsense\r\n\r\n",
        b"GET /users/\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /users?after=\xff HTTP/1.1\r\nHost: x\r\n\r\n",
        "GET /products/é HTTP/1.1\r\nHost: x\r\n\r\n".encode(),
        b"GET /users/\x00 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /users/1 HTTP/9.9\r\nHost: x\r\n\r\n",
        b"DELETE /users/1 HTTP/1.1\r\nHost x\r\n\r\n",
        b"DELETE /users/1 HTTP/1.1\r\nIf-Match : *\r\n\r\n",
        b"DELETE /users/1 HTTP/1.1\r\nX: a\x00b\r\n\r\n",
        b"POST /users HTTP/1.1\r\nContent-Length: x\r\n\r\n",
        b"POST /users HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"POST /users HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n{}",
        b"POST /users HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        CHUNKED + b"zz\r\n",
        CHUNKED + b"-1\r\n",
        b"GET /users?" + b"a" * 1_000_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=lambda sent: repr(sent[:40]),
)
async def test_what_is_no_http_is_refused_by_uvicorn_itself(
    service: Service, sql: asyncpg.Connection, rows: Contents, sent: bytes
) -> None:
    # It never reaches the application, so the answer is a plain one.
    answer = await exchange(service, sent)
    assert (answer.status, answer.body) == (400, b"Invalid HTTP request received.")
    assert await contents(sql) == rows


async def test_a_body_that_never_ends_as_declared_writes_nothing(
    service: Service, sql: asyncpg.Connection, rows: Contents
) -> None:
    body_ = json.dumps(USER).encode()
    head = request("POST", b"/users", [*JSON, (b"Content-Length", b"%d" % (len(body_) + 1))])
    await abandon(service, head + body_)
    async with service.client() as client:
        assert (await client.get("/users")).json()["next"] is None
    assert await contents(sql) == rows


async def abandon(service: Service, sent: bytes) -> None:
    """Sends the beginning of a request and hangs up."""
    url = httpx.URL(service.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(sent)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
