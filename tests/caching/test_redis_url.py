"""The URL of a Redis: what it may say, and what is refused before anything is asked."""

import ssl
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import URL_QUERY_ARGUMENT_PARSERS, SSLConnection, UnixDomainSocketConnection

from app.caching import open_cache, open_redis
from app.caching.redis_url import TAKEN, Discovery, node_url, read_redis_url
from app.embedded import Endpoints
from tests.faults.certificates import PASSWORD, Certificates


def in_a(name: str) -> dict[str, Any]:
    """The arguments for a socket."""
    return {"path": name, "connection_class": UnixDomainSocketConnection}


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("redis://", {}),
        ("redis://localhost", {"host": "localhost"}),
        ("redis://localhost:/", {"host": "localhost"}),
        ("redis://my_redis.example:7000/12", {"host": "my_redis.example", "port": 7000, "db": 12}),
        ("redis://h?db=3&client_name=shop", {"host": "h", "db": 3, "client_name": "shop"}),
        ("redis://[::1]:7000", {"host": "::1", "port": 7000}),
        ("redis://[fe80::1%25eth0]", {"host": "fe80::1%eth0"}),
        ("redis://:secret@h", {"host": "h", "password": "secret"}),
        ("redis://me@h", {"host": "h", "username": "me"}),
        ("redis://m%40e:p:a+%2F%23%3F%40%25%20%C3%A9@h", {"host": "h", "username": "m@e", "password": "p:a+/#?@% é"}),
        ("redis://h?username=me&password=p%26w@x", {"host": "h", "username": "me", "password": "p&w@x"}),
        ("rediss://h", {"host": "h", "connection_class": SSLConnection}),
        ("redis+cluster://h,[::1]:2", {"nodes": [("h", 6379), ("::1", 2)]}),
        ("redis+cluster://me:pw@h:1/0?db=0", {"nodes": [("h", 1)], "username": "me", "password": "pw"}),
        ("rediss+cluster://h", {"nodes": [("h", 6379)], "connection_class": SSLConnection}),
        ("redis+sentinel://h/shop", {"discovery": Discovery((("h", 26379),), "shop")}),
        ("redis+sentinel:///shop", {"discovery": Discovery((("localhost", 26379),), "shop")}),
        (
            "redis+sentinel://me:p%2Cw@h:1,[::1]:2,i/shop.eu_1/3?client_name=c",
            {
                "discovery": Discovery((("h", 1), ("::1", 2), ("i", 26379)), "shop.eu_1"),
                "username": "me",
                "password": "p,w",
                "db": 3,
                "client_name": "c",
            },
        ),
        (
            "redis+sentinel://h/shop?db=3&sentinel_username=you&sentinel_password=p%26w",
            {"discovery": Discovery((("h", 26379),), "shop", "you", "p&w"), "db": 3},
        ),
        (
            "rediss+sentinel://h/shop?ssl_cert_reqs=none",
            {
                "discovery": Discovery((("h", 26379),), "shop"),
                "ssl_cert_reqs": "none",
                "connection_class": SSLConnection,
            },
        ),
        ("unix:///run/redis.sock", in_a("/run/redis.sock")),
        ("unix://me:secret@/run/r%20@1?db=1", {**in_a("/run/r @1"), "username": "me", "password": "secret", "db": 1}),
    ],
)
def test_a_url_says_where_redis_is_and_who_asks(url: str, arguments: dict[str, Any]) -> None:
    assert read_redis_url(url) == arguments


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        (
            "localhost:6379",
            "The Redis URL must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.",
        ),
        (
            "http://geheim@h",
            "The Redis URL must begin with redis://, rediss://, unix://, redis+sentinel:// or redis+cluster://.",
        ),
        (
            "redis://h x",
            "The Redis URL contains a blank or a control character: write it as %20, or as what its code is.",
        ),
        ("redis://me@h:http", "The port in the Redis URL is 'http', and must be a number from 1 to 65535."),
        ("redis://me@h:0", "The port in the Redis URL is '0', and must be a number from 1 to 65535."),
        ("redis://me@h:99999999", "The port in the Redis URL is '99999999', and must be a number from 1 to 65535."),
        ("redis://default:geheim", "The port in the Redis URL must be a number from 1 to 65535."),
        ("redis://h~1", "The host in the Redis URL is 'h~1', and must be a name or an address."),
        ("redis://h,i", "The host in the Redis URL is 'h,i', and must be a name or an address."),
        (
            "redis://::1",
            "The host in the Redis URL must be a name or an address, and an IPv6 address must have brackets.",
        ),
        ("redis://[h]", "The host in the Redis URL is '[h]', and must be an IPv6 address where it has brackets."),
        ("redis://h/x", "The database in the Redis URL is 'x', and must be a number after the host, as in /1."),
        ("redis://h/1/2", "The database in the Redis URL is '1/2', and must be a number after the host, as in /1."),
        ("redis://h/1/", "The database in the Redis URL is '1/', and must be a number after the host, as in /1."),
        ("redis://h/-1", "The database in the Redis URL is '-1', and must be a number after the host, as in /1."),
        ("redis://h?db=x", "The db in the Redis URL is 'x', and must be a number like 1."),
        ("redis://h/1?db=1", "The Redis URL has two database numbers: keep the one after the host, or db=."),
        ("redis://:a@h?password=b", "The Redis URL has two passwords: keep the one before the @, or password=."),
        ("redis://h?protocol=3", "The Redis URL has the parameter protocol, which a URL may not set: the cache"),
        ("redis://h?decode_responses=1", "The Redis URL has the parameter decode_responses, which a URL may not set"),
        ("redis://h?foo=bar", "The Redis URL has the unknown parameter foo: perhaps one of db, username, password,"),
        ("redis://h?pasword=geheim", "The Redis URL has the unknown parameter pasword: perhaps password is meant."),
        ("redis://h?db=1&db=2", "The Redis URL has the parameter db twice."),
        ("redis://h?db=", "The Redis URL has the parameter db without a value."),
        ("redis://h?db", "The Redis URL must have parameters like name=value after its ?, with & between."),
        ("redis://h?ssl_cert_reqs=none", "The Redis URL has the parameter ssl_cert_reqs, which needs rediss:// or"),
        ("redis+cluster://h/1", "The Redis URL names a database, and a cluster has only the database 0: leave it out."),
        ("redis+cluster://h?db=1", "The Redis URL names a database, and a cluster has only the database 0: leave it"),
        ("redis+cluster://h,", "The Redis URL has a comma without a host before and after it."),
        ("redis+cluster://h?ssl_ciphers=x", "The Redis URL has the parameter ssl_ciphers, which needs rediss://"),
        ("redis+sentinel://h", "The Redis URL must have the name that the Sentinels monitor after the hosts, as in h1"),
        ("redis+sentinel://h//1", "The Redis URL must have the name that the Sentinels monitor after the hosts, as"),
        ("redis+sentinel://h/a~b", "The Redis URL must have the name that the Sentinels monitor after the hosts, as"),
        ("redis+sentinel://h/a/x", "The database in the Redis URL is 'x', and must be a number after the host, as in"),
        ("redis+sentinel://h/a/1?db=1", "The Redis URL has two database numbers: keep the one after the host, or"),
        ("redis+sentinel://h,,i/a", "The Redis URL has a comma without a host before and after it."),
        ("redis+sentinel://h,i~/a", "The host in the Redis URL is 'i~', and must be a name or an address."),
        ("redis+sentinel://me@h:1,i:x/a", "The port in the Redis URL is 'x', and must be a number from 1 to 65535."),
        ("redis+sentinel://me:geheim,i/a", "The port in the Redis URL must be a number from 1 to 65535."),
        ("redis+sentinel://h/a?sentinel_username=x", "The Redis URL has a sentinel_username without a sentinel_pass"),
        ("redis+sentinel://h/a?sentinel_pasword=geheim", "The Redis URL has the unknown parameter sentinel_pasword: "),
        ("redis+sentinel://h/a?sentinel_password=geheim&x=y", "The Redis URL has an unknown parameter, which may be a"),
        ("redis+sentinel://h/a?ssl_ciphers=x", "The Redis URL has the parameter ssl_ciphers, which needs rediss:// or"),
        ("redis://h?sentinel_password=geheim", "The Redis URL has the parameter sentinel_password, which needs redis+"),
        ("redis://default:x?geheim=1", "The port in the Redis URL must be a number from 1 to 65535."),
        ("rediss://:x?ssl_cert_reqs=geheim@h", "The ssl_cert_reqs in the Redis URL cannot be used: it must be none, "),
        ("rediss://x?ssl_ca_certs=geheim@h", "The ssl_ca_certs in the Redis URL cannot be used: there is no such"),
        ("rediss://x?ssl_ciphers=geheim@h", "The ssl_ciphers in the Redis URL cannot be loaded: "),
        ("redis://:x?db=geheim@h", "The db in the Redis URL must be a number like 1."),
        ("unix://run/redis.sock", "The Redis URL must name its socket after three slashes, as in unix:///run/redis."),
        ("unix://", "The Redis URL must name its socket after three slashes, as in unix:///run/redis.sock."),
        ("redis://:geheim%@h", "The Redis URL has a % in its password without two hexadecimal digits: write it as"),
        ("redis://:geheim%ff@h", "The Redis URL has a password that is not UTF-8 once it is decoded."),
    ],
)
def test_a_url_that_would_not_do_what_it_says_is_refused_by_the_part(url: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        read_redis_url(url)
    assert str(refused.value).startswith(sentence)
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("name", sorted({*URL_QUERY_ARGUMENT_PARSERS, "retry", "encoding", "parser_class"} - {*TAKEN}))
def test_what_the_cache_decides_cannot_be_set_by_a_url(name: str) -> None:
    with pytest.raises(
        ValueError, match=f"^The Redis URL has the parameter {name}, which a URL may not set: the cache"
    ):
        read_redis_url(f"redis://h?{name}=1")


@pytest.mark.parametrize("user", ["", "me"])
@pytest.mark.parametrize("rest", ["@h", "@h:6379/0", "@h:6379/0?db=1", "@h?client_name=a@b", "@h/0?x=y"])
@pytest.mark.parametrize("scheme", ["redis", "redis+sentinel", "rediss"])
@pytest.mark.parametrize(
    "password", ["geh/eim", "geh#eim", "geh?eim", "geh@eim", "12/geheim", "12?geheim=1", "12#geheim", "a/?#@geheim"]
)
def test_a_password_with_an_unencoded_character_is_refused_and_not_shown(
    scheme: str, user: str, password: str, rest: str
) -> None:
    """Otherwise another host would be asked, and might get the rest of the password."""
    with pytest.raises(ValueError, match=r"in a password, write it as %[0-9A-F]{2}\.$") as refused:
        read_redis_url(f"{scheme}://{user}:{password}{rest}")
    for piece in ("geh", "eim", "12"):
        assert piece not in str(refused.value)


@pytest.mark.parametrize("text", ["none", "CERT_NONE", "ssl.CERT_NONE", "None"])
def test_requirements_of_a_certificate_are_taken_in_each_spelling(text: str) -> None:
    assert read_redis_url(f"rediss://h?ssl_cert_reqs={text}")["ssl_cert_reqs"] == "none"


def test_the_options_of_tls_are_taken(certificates: Certificates) -> None:
    files = {
        "ssl_ca_certs": certificates.path("ca.crt"),
        "ssl_certfile": certificates.path("client.crt"),
        "ssl_keyfile": certificates.path("locked.key"),
        "ssl_ca_path": certificates.directory,
    }
    query = "&".join(f"{name}={path}" for name, path in files.items())
    others = (
        f"ssl_password={PASSWORD}&ssl_check_hostname=no&ssl_min_version=TLSv1.3&ssl_cert_reqs=CERT_REQUIRED"
        "&ssl_ciphers=HIGH&ssl_include_verify_flags=[VERIFY_X509_STRICT,VERIFY_X509_TRUSTED_FIRST]"
    )
    arguments = read_redis_url(f"rediss://h?{query}&{others}")
    assert arguments == {
        **{name: str(path) for name, path in files.items()},
        "host": "h",
        "connection_class": SSLConnection,
        "ssl_password": PASSWORD,
        "ssl_check_hostname": False,
        "ssl_min_version": ssl.TLSVersion.TLSv1_3,
        "ssl_cert_reqs": "required",
        "ssl_ciphers": "HIGH",
        "ssl_include_verify_flags": [ssl.VerifyFlags.VERIFY_X509_STRICT, ssl.VerifyFlags.VERIFY_X509_TRUSTED_FIRST],
    }
    SSLConnection(**{name: value for name, value in arguments.items() if name.startswith("ssl_")}).ssl_context.get()
    assert read_redis_url("rediss://h?ssl_min_version=771")["ssl_min_version"] is ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("ssl_cert_reqs=maybe", "is 'maybe': it must be none, optional or required."),
        ("ssl_check_hostname=perhaps", "is 'perhaps': it must be true or false."),
        ("ssl_check_hostname=true&ssl_cert_reqs=none", "is 'true': with ssl_cert_reqs=none, no host is checked."),
        ("ssl_min_version=2", "is '2': it must be TLSv1, TLSv1.1, TLSv1.2 or TLSv1.3."),
        ("ssl_include_verify_flags=STRICT", "is 'STRICT': it must be any of VERIFY_DEFAULT,"),
        ("ssl_ca_certs={}/no.crt", "is '{}/no.crt': there is no such file."),
        ("ssl_ca_path={}/ca.crt", "is '{}/ca.crt': there is no such directory."),
        ("ssl_certfile={}/no.crt", "is '{}/no.crt': there is no such file."),
        ("ssl_keyfile={}/client.key", "is '{}/client.key': its certificate is missing, which ssl_certfile names."),
        ("ssl_ca_certs={}/ca.key", "('{}/ca.key') cannot be loaded: "),
        ("ssl_certfile={0}/client.crt&ssl_keyfile={0}/server.key", "('{}/client.crt') cannot be loaded: KEY_VALUES"),
        ("ssl_certfile={0}/client.crt&ssl_keyfile={0}/locked.key", "('{}/client.crt') cannot be loaded: "),
        (
            "ssl_certfile={0}/client.crt&ssl_keyfile={0}/locked.key&ssl_password=geheim",
            "('{}/client.crt') cannot be loaded: ",
        ),
        ("ssl_ciphers=nonsense", "('nonsense') cannot be loaded: No cipher can be selected."),
        ("ssl_ca_data=geheim", " cannot be loaded: "),
    ],
)
def test_an_option_of_tls_that_cannot_work_is_refused(query: str, sentence: str, certificates: Certificates) -> None:
    with pytest.raises(ValueError) as refused:
        read_redis_url(f"rediss://h?{query.format(certificates.directory)}", "REDIS_URL")
    expected = f"The {query.partition('=')[0]} in REDIS_URL {sentence.format(certificates.directory).lstrip()}"
    assert str(refused.value).startswith(expected)
    assert "geheim" not in str(refused.value)


def test_the_password_of_the_sentinels_is_not_shown() -> None:
    assert "geheim" not in repr(read_redis_url("redis+sentinel://h/shop?sentinel_password=geheim")["discovery"])


async def test_a_cache_is_not_opened_at_a_url_that_is_refused() -> None:
    with pytest.raises(ValueError, match=r"^The Redis URL has the parameter protocol, which a URL may not set"):
        async with open_cache("redis://localhost?protocol=3"):
            pass


async def test_a_user_and_a_password_may_have_any_character(redis: Redis, endpoints: Endpoints) -> None:
    user, password = "m:e@/", "p:a+/#?@%&= é"
    await redis.acl_setuser(user, enabled=True, passwords=[f"+{password}"], categories=["+@all"])
    try:
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        url = endpoints.redis_url.replace("unix://", f"unix://{login}@")
        async with open_redis(url, timeout=timedelta(seconds=10), connections=1) as theirs:
            assert await theirs.acl_whoami() == user
    finally:
        await redis.acl_deluser(user)


async def test_a_client_has_the_name_and_the_database_that_its_url_names(endpoints: Endpoints) -> None:
    url = f"{endpoints.redis_url.partition('?')[0]}?db=7&client_name=shop"
    async with open_redis(url, timeout=timedelta(seconds=10), connections=1) as redis:
        assert (await redis.client_info())["db"] == 7
        assert await redis.client_getname() == "shop"


def test_the_url_of_a_node_has_the_login_of_the_cluster() -> None:
    url = node_url("redis+cluster://cache:a%2Fb%40c@h:1,i:2", ("node.example", 7000))
    read = {"host": "node.example", "port": 7000, "username": "cache", "password": "a/b@c"}
    assert read_redis_url(url) == read


def test_the_url_of_a_node_has_the_tls_of_the_cluster() -> None:
    url = node_url("rediss+cluster://h?ssl_cert_reqs=none", ("::1", 7000))
    assert url == "rediss://[::1]:7000?ssl_cert_reqs=none"
    assert read_redis_url(url)["host"] == "::1"
