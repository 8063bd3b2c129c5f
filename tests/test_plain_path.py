"""Which paths may stand before a link."""

import pytest

from app.plain_path import plain_path


@pytest.mark.parametrize(("text", "path"), [("/api", "/api"), ("/a-b/c_d/~e.f/", "/a-b/c_d/~e.f"), ("/", "")])
def test_a_plain_path_is_taken_without_its_last_slash(text: str, path: str) -> None:
    assert plain_path(text) == path


@pytest.mark.parametrize(
    "text",
    [
        "", "api", "//evil.example", "/api//x", "/a//", "https://evil.example", "/\\evil.example", "/a b",
        '/"><script>',
        "/a\r\nX: y", "/api\n", "/a?b", "/a#b", "/%2F%2Fevil", "/a:b@c", "/api, /v1", "/é", "/" + "a" * 256,
    ],
)  # fmt: skip
def test_any_other_text_is_no_plain_path(text: str) -> None:
    assert plain_path(text) is None
