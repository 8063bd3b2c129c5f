"""An address becomes the URL of one node."""

from app.caching.cluster import Address
from app.caching.redis_url import read_redis_url


def test_the_url_of_a_node_has_its_login() -> None:
    """Whatever is in the password."""
    url = Address("node.example", 7000).url({"username": "cache", "password": "a/b@c?d&e=%"}, tls=False)
    read = read_redis_url(url)
    assert (read["host"], read["port"]) == ("node.example", 7000)
    assert (read["username"], read["password"]) == ("cache", "a/b@c?d&e=%")


def test_the_url_of_a_node_has_its_tls() -> None:
    url = Address("::1", 7000).url({"ssl_cert_reqs": "none"}, tls=True)
    read = read_redis_url(url)
    assert (read["host"], read["port"], read["ssl_cert_reqs"]) == ("::1", 7000, "none")
    assert url.startswith("rediss://[::1]:7000")
