"""Bad input: the answer is always a 4xx that says what is wrong, never a 500, and nothing is written: no row, and no
pending view.

Each request is sent twice: to the application in this process, and as bytes on a socket to a real uvicorn, whose
parser reads them first.
"""

import asyncio
import json
from dataclasses import dataclass, field

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from tests.routers.conftest import Contents, contents, waiting
from tests.routers.wire import Answer, exchange, request
from tests.service import Service

USER = {"name": "Grace", "email": "grace@example.com"}
PRODUCT = {"sku": "CUP-1", "name": "Cup", "price": "6.20"}
JSON = [(b"Content-Type", b"application/json")]
DEEP = 13_000


@dataclass(frozen=True, slots=True)
class Bad:
    """A request, the status of its answer, and words that the answer must contain."""

    name: str
    method: str
    target: str
    status: int
    says: str
    body: bytes | None = None
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)


def post_user(name: str, says: str, /, **fields: object) -> Bad:
    """Returns a request that creates a user with these fields; `...` omits one."""
    body = {key: value for key, value in (USER | fields).items() if value is not ...}
    return Bad(f"user-{name}", "POST", "/users", 422, says, json.dumps(body).encode(), JSON)


def post_product(name: str, says: str, /, **fields: object) -> Bad:
    """Returns a request that creates a product with these fields; `...` omits one."""
    body = {key: value for key, value in (PRODUCT | fields).items() if value is not ...}
    return Bad(f"product-{name}", "POST", "/products", 422, says, json.dumps(body).encode(), JSON)


def patch(name: str, target: str, body: object, says: str) -> Bad:
    """Returns a request that changes an existing row."""
    return Bad(f"patch-{name}", "PATCH", target, 422, says, json.dumps(body).encode(), JSON)


def put_stock(name: str, body: object, says: str, status: int = 422, target: str = "/inventory/KETTLE-1") -> Bad:
    """Returns a request that sets another quantity of existing stock."""
    return Bad(f"stock-{name}", "PUT", target, status, says, json.dumps(body).encode(), JSON)


def adjust(name: str, body: object, says: str, status: int = 422, target: str = "/inventory/KETTLE-1") -> Bad:
    """Returns a request that adjusts stock."""
    return Bad(f"adjust-{name}", "POST", f"{target}/adjustments", status, says, json.dumps(body).encode(), JSON)


def view(name: str, body: object, says: str, target: str = "/page-views/home") -> Bad:
    """Returns a request that adds views of one page."""
    return Bad(f"view-{name}", "POST", target, 422, says, json.dumps(body).encode(), JSON)


def views(name: str, items: object, says: str) -> Bad:
    """Returns a request that adds views of many pages."""
    return Bad(f"views-{name}", "POST", "/page-views", 422, says, json.dumps({"views": items}).encode(), JSON)


NAMED = [("POST", "/users"), ("PATCH", "/users/1"), ("POST", "/products"), ("PATCH", "/products/KETTLE-1")]
BODIES = [
    *NAMED,
    ("PUT", "/inventory/KETTLE-1"),
    ("POST", "/inventory/KETTLE-1/adjustments"),
    ("POST", "/page-views"),
    ("POST", "/page-views/home"),
]
"""The calls that read a body. Those whose body has a name come first. The last one does not need a body: without one,
or with null, it counts one view."""


def body(
    name: str,
    raw: bytes,
    status: int,
    says: str,
    headers: list[tuple[bytes, bytes]] = JSON,
    targets: list[tuple[str, str]] = BODIES,
) -> list[Bad]:
    """Returns a request with the same bytes for each call that reads a body."""
    return [Bad(f"{name}-{method}{target}", method, target, status, says, raw, headers) for method, target in targets]


SURROGATE = "holds half of a surrogate pair, which is not text"
EMAIL = "body.email must look like name@example.com"
PRICE = "body.price must be a decimal number as text"
SKU = "body.sku must not contain control characters, nor begin or end with a blank"
WHOLE = "must be a whole number"
TAGS = "a list of entity tags in double quotes"
LARGEST = 2**53 - 1

NO_TEXT: list[object] = [
    True, False, 0, 7, 12.50, 2**63, int("9" * 23), float("nan"), float("inf"), -float("inf"), [], ["x"], {}, {"x": 1},
]  # fmt: skip
EMAILS = [
    "", "ada", "@", "ada@", "@example.com", "ada@example", "ada@@example.com", "a@b@example.com", "a@.com",
    "ada@example.", "ada@example..com", "a da@example.com", "ada@exam ple.com", " ada@example.com",
    "ada@example.com ", "ada@example.com\n", "ada\t@example.com", "ada@example.com\x85", "ada\x7f@example.com",
]  # fmt: skip
NO_INTEGERS: list[object] = [
    True, False, "7", "", "seven", 1.5, float("nan"), float("inf"), -float("inf"), [], [7], {"x": 1},
]  # fmt: skip
KEYS = [b"a b", b"a\tb", "ключ".encode(), b"\xff", b"\x80"]
PRICES = [
    "", " ", "12,50", "-1", "+1", ".5", "5.", "1.23456", "12345678901", "1e3", "0x1F", "1_000", " 1", "1 ",
    "1\n", "1.5\n", "NaN", "Infinity", "12.50 EUR", "1.2.3", "١٢", "１２", "²", "1.٥", "9" * 60_000, "1\0",
]  # fmt: skip

BAD = [
    # Fields that are unknown, missing, or of the wrong type.
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
    # Text that is invalid, too short, or too long.
    post_user("name-surrogate", SURROGATE, name="\ud800"),
    post_user("email-surrogate", SURROGATE, email="\udfff@example.com"),
    post_user("field-surrogate", SURROGATE, **{"\ud800": 1}),
    post_user("name-nul", "body.name must not contain a NUL character", name="a\0b"),
    post_user("email-nul", EMAIL, email="a\0@example.com"),
    post_user("field-nul", "is not a field that can be set here", **{"\0": 1}),
    post_user("field-long", "is not a field that can be set here", **{"x" * 60_000: 1}),
    post_user("name-empty", "body.name must not be empty", name=""),
    post_user("name-201", "body.name must have at most 200 characters", name="x" * 201),
    post_user("name-60000", "body.name must have at most 200 characters", name="x" * 60_000),
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
    # Stock.
    *(
        put_stock(f"number-{json.dumps(value)}", {"quantity": value}, "body.quantity must be a whole number")
        for value in NO_INTEGERS
    ),
    put_stock("null", {"quantity": None}, "body.quantity must not be null"),
    put_stock("nothing", {}, "body.quantity is missing"),
    put_stock("negative", {"quantity": -1}, "body.quantity must be at least 0"),
    put_stock("too-many", {"quantity": LARGEST + 1}, f"body.quantity must be at most {LARGEST}"),
    put_stock("2^63", {"quantity": 2**63}, f"body.quantity must be at most {LARGEST}"),
    put_stock("23-digits", {"quantity": int("9" * 23)}, f"body.quantity must be at most {LARGEST}"),
    put_stock("minus-23-digits", {"quantity": -int("9" * 23)}, "body.quantity must be at least 0"),
    put_stock("unknown", {"quantity": 7, "sku": "A"}, "body.sku is not a field that can be set here"),
    put_stock("version", {"quantity": 7, "version": 7}, "body.version is not a field that can be set here"),
    put_stock("surrogate", {"\ud800": 7}, SURROGATE),
    put_stock("sku-65", {"quantity": 7}, "path.sku must have at most 64 characters", target="/inventory/" + "x" * 65),
    put_stock(
        "sku-5000", {"quantity": 7}, "path.sku must have at most 64 characters", target="/inventory/" + "x" * 5000
    ),
    put_stock("sku-empty", {"quantity": 7}, "path.sku must not be empty", target="/inventory/"),
    put_stock("sku-nul", {"quantity": 7}, SKU.replace("body", "path"), target="/inventory/KETTLE-1%00"),
    put_stock("sku-break", {"quantity": 7}, SKU.replace("body", "path"), target="/inventory/KETTLE-1%0A"),
    put_stock("sku-blank", {"quantity": 7}, SKU.replace("body", "path"), target="/inventory/%20KETTLE-1"),
    put_stock("sku-not-utf8", {"quantity": 7}, "The URL is not UTF-8", 400, "/inventory/KETTLE-1%FF"),
    put_stock("sku-surrogate", {"quantity": 7}, "The URL is not UTF-8", 400, "/inventory/%ED%A0%80"),
    *(
        adjust(f"number-{json.dumps(value)}", {"delta": value}, "body.delta must be a whole number")
        for value in NO_INTEGERS
    ),
    adjust("null", {"delta": None}, "body.delta must not be null"),
    adjust("nothing", {}, "body.delta is missing"),
    adjust("zero", {"delta": 0}, "body.delta must not be 0"),
    adjust("too-many", {"delta": LARGEST + 1}, f"body.delta must be at most {LARGEST}"),
    adjust("too-few", {"delta": -LARGEST - 1}, f"body.delta must be at least -{LARGEST}"),
    adjust("2^63", {"delta": 2**63}, f"body.delta must be at most {LARGEST}"),
    adjust("-2^63", {"delta": -(2**63)}, f"body.delta must be at least -{LARGEST}"),
    adjust("23-digits", {"delta": int("9" * 23)}, f"body.delta must be at most {LARGEST}"),
    adjust("unknown", {"delta": 1, "quantity": 1}, "body.quantity is not a field that can be set here"),
    adjust("below-zero", {"delta": -31}, "Only 30 of KETTLE-1 are left, and 31 were asked for", 409),
    adjust("above-the-largest", {"delta": LARGEST}, "are too many to count"),
    adjust("missing", {"delta": 1}, "There is no stock of CUP", 404, "/inventory/CUP"),
    adjust("sku-empty", {"delta": 1}, "path.sku must not be empty", target="/inventory/"),
    adjust("sku-nul", {"delta": 1}, SKU.replace("body", "path"), target="/inventory/KETTLE-1%00"),
    adjust("sku-break", {"delta": 1}, SKU.replace("body", "path"), target="/inventory/KETTLE-1%0A"),
    adjust("sku-5000", {"delta": 1}, "path.sku must have at most 64 characters", target="/inventory/" + "x" * 5000),
    Bad("adjust-break", "POST", "/inventory/KETTLE-1/adjustments%0A", 405, "does not take POST", b'{"delta": 1}', JSON),
    Bad("adjust-no-sku", "POST", "/inventory/adjustments", 405, "does not take POST", b'{"delta": 1}', JSON),
    Bad("post-stock", "POST", "/inventory/KETTLE-1", 405, "does not take POST", b'{"quantity": 1}', JSON),
    Bad("patch-stock", "PATCH", "/inventory/KETTLE-1", 405, "does not take PATCH", b'{"quantity": 1}', JSON),
    Bad("stock-list", "GET", "/inventory", 404, "There is nothing at /inventory"),
    *(
        Bad(
            f"stock-if-none-match-{tag!r}",
            "PUT",
            "/inventory/KETTLE-1",
            400,
            TAGS,
            b'{"quantity": 7}',
            [*JSON, (b"If-None-Match", tag)],
        )
        for tag in (b"7", b"", b"**", b'*, "7"', b"\xff")
    ),
    *(
        Bad(
            f"stock-{method}-if-match-{tag[:8]!r}",
            method,
            "/inventory/KETTLE-1",
            400,
            TAGS,
            body_,
            [*JSON, (b"If-Match", tag)],
        )
        for method, body_ in (("DELETE", None), ("PUT", b'{"quantity": 7}'))
        for tag in (b"7", b"", b'"7', b'"7" ' + b" " * 20_000 + b"x", b"\xff")
    ),
    Bad("stock-read-if-none-match", "GET", "/inventory/KETTLE-1", 400, TAGS, None, [(b"If-None-Match", b"7")]),
    Bad("stock-read-sku-nul", "GET", "/inventory/%00", 422, SKU.replace("body", "path")),
    Bad("stock-delete-sku-break", "DELETE", "/inventory/KETTLE-1%0A", 422, SKU.replace("body", "path")),
    # Page views.
    *(
        view(f"number-{json.dumps(value)}", {"count": value}, "body.count must be a whole number")
        for value in NO_INTEGERS
    ),
    view("null", {"count": None}, "body.count must not be null"),
    view("zero", {"count": 0}, "body.count must be at least 1"),
    view("negative", {"count": -1}, "body.count must be at least 1"),
    view("million-and-one", {"count": 1_000_001}, "body.count must be at most 1000000"),
    view("2^53", {"count": 2**53}, "body.count must be at most 1000000"),
    view("2^63", {"count": 2**63}, "body.count must be at most 1000000"),
    view("23-digits", {"count": int("9" * 23)}, "body.count must be at most 1000000"),
    view("unknown", {"page": "home"}, "body.page is not a field that can be set here"),
    view("views", {"views": [{"page": "home"}]}, "body.views is not a field that can be set here"),
    view("surrogate", {"\ud800": 1}, SURROGATE),
    *(
        bad
        for name, page, says in (
            ("empty", "", "must not be empty"),
            ("nul", "home%00", "must not contain a NUL character"),
            ("5000", "x" * 5000, "must have at most 2,048 bytes"),
            ("2049", "x" * 2049, "must have at most 2,048 bytes"),
            ("2049-bytes", "%C3%A9" * 1024 + "x", "must have at most 2,048 bytes"),
        )
        for bad in (
            view(f"page-{name}", {"count": 1}, f"path.page {says}", "/page-views/" + page),
            Bad(f"view-page-{name}-no-body", "POST", "/page-views/" + page, 422, f"path.page {says}"),
            Bad(f"view-read-page-{name}", "GET", "/page-views/" + page, 422, f"path.page {says}"),
        )
    ),
    Bad("view-not-utf8", "POST", "/page-views/home%FF", 400, "The URL is not UTF-8"),
    Bad("view-surrogate", "POST", "/page-views/%ED%A0%80", 400, "The URL is not UTF-8"),
    Bad("view-put", "PUT", "/page-views/home", 405, "does not take PUT", b'{"count": 1}', JSON),
    Bad("view-delete", "DELETE", "/page-views/home", 405, "does not take DELETE"),
    Bad("view-read-if-none-match", "GET", "/page-views/home", 400, TAGS, None, [(b"If-None-Match", b"7")]),
    views("none", [], "body.views must not be empty"),
    views("null", None, "body.views must not be null"),
    *(
        views(f"type-{json.dumps(value)}", value, "body.views must be a JSON array")
        for value in (True, 7, 1.5, "home", {"page": "home"})
    ),
    *(
        views(f"item-{json.dumps(value)}", [value], "body.views.0 must be a JSON object")
        for value in (None, True, 7, 1.5, "home", ["home"], [])
    ),
    *(views(f"page-{json.dumps(value)}", [{"page": value}], "body.views.0.page must be text") for value in NO_TEXT),
    *(
        views(
            f"count-{json.dumps(value)}",
            [{"page": "home", "count": value}],
            "body.views.0.count must be a whole number",
        )
        for value in NO_INTEGERS
    ),
    views("without-page", [{"count": 1}], "body.views.0.page is missing"),
    views("page-null", [{"page": None}], "body.views.0.page must not be null"),
    views("count-null", [{"page": "home", "count": None}], "body.views.0.count must not be null"),
    views("page-empty", [{"page": ""}], "body.views.0.page must not be empty"),
    views("page-nul", [{"page": "home\0"}], "body.views.0.page must not contain a NUL character"),
    views("page-surrogate", [{"page": "\ud800"}], SURROGATE),
    views("page-5000", [{"page": "x" * 5000}], "body.views.0.page must have at most 2,048 bytes"),
    views("page-2049-bytes", [{"page": "é" * 1024 + "x"}], "body.views.0.page must have at most 2,048 bytes"),
    views("count-zero", [{"page": "home", "count": 0}], "body.views.0.count must be at least 1"),
    views("count-negative", [{"page": "home", "count": -7}], "body.views.0.count must be at least 1"),
    views("count-2^63", [{"page": "home", "count": 2**63}], "body.views.0.count must be at most 1000000"),
    views("unknown", [{"page": "home", "key": "k"}], "body.views.0.key is not a field that can be set here"),
    views("one-bad-at-the-end", [{"page": "home"}] * 9_999 + [{"page": ""}], "body.views.9999.page must not be empty"),
    views("10001", [{"page": "home"}] * 10_001, "body.views must have at most 10,000 items"),
    views("10000-bad", [{"page": ""}] * 10_000, "has 10,000 mistakes."),
    Bad(
        "views-unknown",
        "POST",
        "/page-views",
        422,
        "body.page is not a field that can be set here",
        b'{"page": "home", "views": [{"page": "home"}]}',
        JSON,
    ),
    Bad("views-missing", "POST", "/page-views", 422, "body.views is missing", b"{}", JSON),
    Bad("views-no-body", "POST", "/page-views", 422, "body is missing"),
    *(
        Bad(f"top-{number[:8]}", "GET", f"/page-views?top={number}", 422, f"query.top {says}")
        for number, says in (
            ("0", "must be at least 1"),
            ("201", "must be at most 200"),
            ("9" * 23, "must be at most 200"),
            ("9" * 5000, "is too large"),
            ("-1", WHOLE),
            ("1.0", WHOLE),
            ("", WHOLE),
            ("true", WHOLE),
            ("%00", WHOLE),
        )
    ),
    # Idempotency keys.
    *(
        Bad(
            f"key-{key[:8]!r}-{target}",
            "POST",
            target,
            422,
            f"header.idempotency-key {says}",
            body_,
            [*JSON, (b"Idempotency-Key", key)],
        )
        for target, body_ in (
            ("/inventory/KETTLE-1/adjustments", b'{"delta": 1}'),
            ("/page-views/home", b'{"count": 1}'),
            ("/page-views", b'{"views": [{"page": "home"}]}'),
        )
        for key, says in (
            (b"", "must not be empty"),
            (b"x" * 256, "must have at most 255 characters"),
            (b"x" * 5000, "must have at most 255 characters"),
            *((key, "must be visible ASCII characters, without blanks") for key in KEYS),
        )
    ),
    # Bodies that are not an object, not JSON, or not text.
    *body("missing", b"", 422, "body is missing", targets=BODIES[:-1]),
    *body("null", b"null", 422, "body must be a JSON object", targets=BODIES[:-1]),
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
    *body("surrogate-bytes", b'{"name": "\xed\xa0\x80"}', 422, SURROGATE, targets=NAMED),
    *body("utf16", json.dumps(USER).encode("utf-16"), 400, "it is not UTF-8"),
    *body("utf32", json.dumps(USER).encode("utf-32-le"), 400, "it is not UTF-8"),
    *body("nested-arrays", b"[" * DEEP, 400, "it is nested too deeply"),
    *body("nested-arrays-closed", b"[" * DEEP + b"]" * DEEP, 400, "it is nested too deeply"),
    *body("nested-objects", b'{"a":' * DEEP, 400, "it is nested too deeply"),
    *body("nested-name", b'{"name":' + b"[" * DEEP + b"]" * DEEP + b"}", 400, "it is nested too deeply"),
    *body("digits", b'{"name": ' + b"9" * 10_000 + b"}", 400, "a number in it has too many digits"),
    *body("exponent", b'{"name": 1e999999999}', 422, "body.name must be text", targets=NAMED),
    *body("many-fields", b"{" + b",".join(b'"k%d":1' % n for n in range(4_000)) + b"}", 422, "more."),
    *body("30-megabytes", b'{"name": "' + b"x" * 30_000_000 + b'"}', 413, "The body is larger than"),
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
    *(
        Bad(f"letter-{method}-{number[:24]}", method, target.format(number), 422, f"path.letter {says}")
        for method, target in (
            ("POST", "/write-behind/dead-letters/{}/replay"),
            ("DELETE", "/write-behind/dead-letters/{}"),
        )
        for number, says in (
            ("0", "must be at least 1"),
            (str(2**63), "must be at most 9223372036854775807"),
            ("9" * 5000, "is too large"),
            ("-1", WHOLE),
            ("007", WHOLE),
            ("1.0", WHOLE),
            ("abc", WHOLE),
            ("1%0A", WHOLE),
            ("%00", WHOLE),
        )
    ),
    Bad("letter-replay-missing", "POST", "/write-behind/dead-letters/7/replay", 404, "There is no dead letter 7."),
    Bad("letter-discard-missing", "DELETE", "/write-behind/dead-letters/7", 404, "There is no dead letter 7."),
    Bad("letter-read", "GET", "/write-behind/dead-letters/7", 405, "does not take GET, but DELETE."),
    Bad("letter-not-utf8", "DELETE", "/write-behind/dead-letters/7%FF", 400, "The URL is not UTF-8"),
    *(
        Bad(
            f"letters-{name}-{number[:8]}",
            "GET",
            f"/write-behind/dead-letters?{name}={number}",
            422,
            f"query.{name} {says}",
        )
        for name, number, says in (
            ("limit", "0", "must be at least 1"),
            ("limit", "201", "must be at most 200"),
            ("limit", "ten", WHOLE),
            ("after", "-1", WHOLE),
            ("after", "01", WHOLE),
            ("after", str(2**63), "must be at most 9223372036854775807"),
            ("after", "9" * 5000, "is too large"),
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
    """Checks that the answer is the expected problem."""
    status, text = (answer.status, answer.body) if isinstance(answer, Answer) else (answer.status_code, answer.content)
    problem = json.loads(text)
    assert (status, problem["status"]) == (bad.status, bad.status), problem
    assert answer.headers["content-type"] == "application/problem+json"
    assert bad.says in problem["detail"]
    assert len(text) < 5000


async def test_bad_input_is_refused_with_a_reason_and_nothing_is_written(
    client: httpx.AsyncClient, sql: asyncpg.Connection, redis: Redis, rows: Contents, subtests: pytest.Subtests
) -> None:
    for bad in BAD:
        with subtests.test(bad.name):
            check(bad, await client.request(bad.method, bad.target, content=bad.body, headers=bad.headers))
            # Pending views are checked first: a view leaves the stream only once it is in the tables.
            assert (await waiting(redis), await contents(sql)) == ([], rows)


async def test_bad_input_is_refused_with_a_reason_and_nothing_is_written_over_real_uvicorn(
    service: Service, sql: asyncpg.Connection, redis: Redis, rows: Contents, subtests: pytest.Subtests
) -> None:
    for bad in BAD:
        with subtests.test(bad.name):
            check(bad, await exchange(service, request(bad.method, bad.target.encode(), bad.headers, bad.body)))
    # Pending views are checked first: a view leaves the stream only once it is in the tables.
    assert (await waiting(redis), await contents(sql)) == ([], rows)


CHUNKED = request("POST", b"/users", [*JSON, (b"Transfer-Encoding", b"chunked")])


@pytest.mark.parametrize(
    ("chunks", "status", "says"),
    [
        ((b"10000\r\n" + b"x" * 65_536 + b"\r\n") * 480 + b"0\r\n\r\n", 413, "The body is larger than 65,536 bytes"),
        (b"1\r\n{\r\n0\r\n\r\n", 400, "The body is not JSON"),
        (b"0\r\n\r\n", 422, "body is missing"),
    ],
    ids=["30-megabytes", "cut-off", "empty"],
)
async def test_a_bad_chunked_body_is_refused(
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
async def test_bytes_that_are_not_http_are_refused_by_uvicorn_itself(
    service: Service, sql: asyncpg.Connection, rows: Contents, sent: bytes
) -> None:
    # The bytes never reach the application, so the answer is plain text.
    answer = await exchange(service, sent)
    assert (answer.status, answer.body) == (400, b"Invalid HTTP request received.")
    assert await contents(sql) == rows


async def test_a_body_shorter_than_declared_writes_nothing(
    service: Service, sql: asyncpg.Connection, rows: Contents
) -> None:
    body_ = json.dumps(USER).encode()
    head = request("POST", b"/users", [*JSON, (b"Content-Length", b"%d" % (len(body_) + 1))])
    await abandon(service, head + body_)
    async with service.client() as client:
        assert (await client.get("/users")).json()["next"] is None
    assert await contents(sql) == rows


async def abandon(service: Service, sent: bytes) -> None:
    """Sends the beginning of a request and closes the connection."""
    url = httpx.URL(service.url)
    _, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(sent)
    await writer.drain()
    writer.close()
    await writer.wait_closed()
