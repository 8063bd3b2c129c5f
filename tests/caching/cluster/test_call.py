"""A call is packed as Redis expects it."""

from app.caching.cluster import Call


def test_many_gets_are_what_each_of_them_would_be() -> None:
    names = ["things:{1}", "{é}:value", "{}", "", "a" * 1_000]
    assert Call.gets(names) == [Call.get(name) for name in names]
