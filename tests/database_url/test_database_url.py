"""`DATABASE_URL`: what asyncpg is told of it, and what is refused before anything connects."""

import getpass
import re
import socket
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from app.database_url import DatabaseUrl
from app.database_url.parameters import CHOICES, IMPOSSIBLE, KNOWN, NEVER
from app.database_url.places import OTHERWISE
from tests.faults.certificates import PASSWORD, Certificates

LIBPQ_17 = """
host hostaddr port dbname user password passfile require_auth channel_binding connect_timeout client_encoding options
application_name fallback_application_name keepalives keepalives_idle keepalives_interval keepalives_count
tcp_user_timeout replication gssencmode sslmode requiressl sslnegotiation sslcompression sslcert sslkey sslpassword
sslcertmode sslrootcert sslcrl sslcrldir sslsni requirepeer ssl_min_protocol_version ssl_max_protocol_version krbsrvname
gsslib gssdelegation service target_session_attrs load_balance_hosts
"""


def read(url: str) -> DatabaseUrl:
    """Reads it under the name of its variable, and its files."""
    target = DatabaseUrl.read(url, "DATABASE_URL")
    target.check_files()
    return target


def told(url: str) -> list[dict[str, Any]]:
    """Returns what asyncpg is told in each attempt, with the parameters in its URL."""
    attempts = read(url).attempts()
    return [{**attempt, "dsn": dict(parse_qsl(urlsplit(attempt["dsn"]).query))} for attempt in attempts]


def test_every_parameter_of_libpq_is_known() -> None:
    assert set(LIBPQ_17.split()) == KNOWN


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("postgresql://me@h/db", {"host": "h", "port": 5432, "user": "me", "database": "db", "password": None}),
        ("postgres://me@h", {"host": "h", "database": "me"}),
        ("postgresql+asyncpg://me:secret@h:6000/db", {"host": "h", "port": 6000, "password": "secret"}),
        ("postgresql://m%40e:p:a+%2F%23%3F%40%25%20%C3%A9@h/a%2Fb", {"user": "m@e", "password": "p:a+/#?@% é"}),
        ("postgresql://h/a%2Fb?user=me@corp&password=p+%26", {"user": "me@corp", "password": "p+&", "database": "a/b"}),
        ("postgresql://me@[::1]:6000/db", {"host": "::1", "port": 6000}),
        ("postgresql://me@/db?host=::1", {"host": "::1"}),
        ("postgresql://me@/db?host=/run/postgresql&port=6000", {"host": "/run/postgresql", "port": 6000}),
        ("postgresql://me@%2Frun%2Fpostgresql/db", {"host": "/run/postgresql"}),
        (
            "postgresql://u:p@/db?host=/cloudsql/project:region:instance",
            {"host": "/cloudsql/project:region:instance", "port": 5432, "user": "u", "password": "p"},
        ),
        ("postgresql:///?dbname=db&user=me&hostaddr=10.0.0.1", {"host": "10.0.0.1", "database": "db", "user": "me"}),
        ("postgresql://h/db?user=me&user=you", {"user": "you"}),
        ("postgresql://:@/", {"user": getpass.getuser(), "database": getpass.getuser()}),
    ],
)
def test_a_url_says_where_postgres_is_and_who_asks(url: str, expected: dict[str, Any]) -> None:
    (attempt,) = told(url)
    assert {name: attempt[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "places"),
    [
        ("postgresql://a,b/db", [("a", 5432), ("b", 5432)]),
        ("postgresql://a:1,b:2/db", [("a", 1), ("b", 2)]),
        ("postgresql://a:1,b/db", [("a", 1), ("b", 5432)]),
        ("postgresql://[::1]:1,[::2]/db", [("::1", 1), ("::2", 5432)]),
        ("postgresql:///db?host=a,/run&port=6000", [("a", 6000), ("/run", 6000)]),
        ("postgresql:///db?hostaddr=10.0.0.1,::1&port=1,2", [("10.0.0.1", 1), ("::1", 2)]),
    ],
)
def test_several_hosts_are_tried_in_order(url: str, places: list[tuple[str, int]]) -> None:
    assert [(attempt["host"], attempt["port"]) for attempt in told(url)] == places


@pytest.mark.parametrize("url", ["postgresql:///db", "postgresql://me@/db?port=6000"])
def test_without_a_host_postgres_is_behind_a_unix_socket_and_never_behind_tcp(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """asyncpg alone would ask whatever listens at localhost."""
    port = 6000 if "port" in url else 5432
    monkeypatch.setattr("app.database_url.places.SOCKETS", (str(tmp_path / "none"), str(tmp_path)))
    (attempt,) = told(url)
    assert (attempt["host"], attempt["port"], attempt["dsn"]["sslmode"]) == (str(tmp_path), port, "disable")
    monkeypatch.setattr("app.database_url.places.SOCKETS", ())
    (attempt,) = told(url)
    assert attempt["host"] == OTHERWISE


def test_hosts_are_tried_in_a_random_order_if_the_load_is_balanced() -> None:
    target = DatabaseUrl.read("postgresql://a,b,c,d,e,f/db?load_balance_hosts=random")
    orders = {tuple(attempt["host"] for attempt in target.attempts()) for _ in range(20)}
    assert len(orders) > 1
    assert {frozenset(order) for order in orders} == {frozenset("abcdef")}


def test_a_standby_is_preferred_and_any_host_is_taken_if_there_is_none() -> None:
    attempts = told("postgresql://a,b/db?target_session_attrs=prefer-standby")
    wanted = [(attempt["host"], attempt["dsn"]["target_session_attrs"]) for attempt in attempts]
    assert wanted == [("a", "standby"), ("b", "standby"), ("a", "any"), ("b", "any")]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {}),
        ("sslmode=require", {"sslmode": "require"}),
        ("ssl=true", {"sslmode": "require"}),
        ("requiressl=1", {"sslmode": "require"}),
        ("requiressl=0", {"sslmode": "prefer"}),
        ("requiressl=1&sslmode=allow", {"sslmode": "allow"}),
        ("sslmode=require&sslnegotiation=direct", {"sslmode": "require", "sslnegotiation": "direct"}),
        ("ssl_min_protocol_version=tlsv1.2", {"ssl_min_protocol_version": "TLSv1.2"}),
        ("krbsrvname=pg&gsslib=gssapi", {"krbsrvname": "pg", "gsslib": "gssapi"}),
        ("target_session_attrs=read-write", {"target_session_attrs": "read-write"}),
        (
            "channel_binding=prefer&gssencmode=prefer&sslcertmode=allow&sslcompression=0&sslsni=1&gssdelegation=0"
            "&replication=false&client_encoding=UTF8&load_balance_hosts=disable",
            {},
        ),
    ],
)
def test_what_asyncpg_knows_is_passed_on_and_what_changes_nothing_is_left_out(
    query: str, expected: dict[str, str]
) -> None:
    (attempt,) = told(f"postgresql://me@h/db?{query}")
    assert attempt["dsn"] == {"target_session_attrs": "any", **expected}


def test_server_settings_are_read_from_options_and_the_name_of_the_application() -> None:
    options = r"-c%20search_path=shop,public%20--work-mem=8MB%20-cDateStyle=ISO,\%20YMD"
    target = read(f"postgresql://h/db?options={options}&fallback_application_name=shop")
    assert target.settings == {
        "search_path": "shop,public",
        "work_mem": "8MB",
        "datestyle": "ISO, YMD",
        "application_name": "shop",
    }
    assert read("postgresql://h/db?application_name=a&fallback_application_name=b").settings["application_name"] == "a"


def test_limits_of_the_connection_are_read() -> None:
    target = read(
        "postgresql://h/db?connect_timeout=3&keepalives_idle=10&keepalives_interval=5&keepalives_count=2&tcp_user_timeout=9000"
    )
    assert target.connect_timeout == timedelta(seconds=3)
    assert target.socket_options == (
        (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 10),
        (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
        (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 2),
        (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
    )
    assert read("postgresql://h/db?connect_timeout=0&keepalives=0&keepalives_idle=5").socket_options == ()
    assert read("postgresql://h/db?connect_timeout=-1").connect_timeout is None


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("host=h dbname=db", "DATABASE_URL must begin with postgresql:// or postgres://."),
        ("postgresql+psycopg://h/db", "DATABASE_URL must begin with postgresql:// or postgres://."),
        ("postgresql://me@h:http/db", "The port in DATABASE_URL is 'http': it must be a number from 1 to 65535."),
        (
            "postgresql://me@h:99999999/db",
            "The port in DATABASE_URL is '99999999': it must be a number from 1 to 65535.",
        ),
        ("postgresql://me:99999999/db", "DATABASE_URL has a port that is not a number from 1 to 65535."),
        ("postgresql://me:geheim/db", "DATABASE_URL has a port that is not a number from 1 to 65535."),
        ("postgresql://h/db?port=0", "The port in DATABASE_URL is '0': it must be a number from 1 to 65535."),
        ("postgresql:///db?port=1,2,3", "The port in DATABASE_URL is '1,2,3': 3 ports are for 1 host."),
        ("postgresql://a,b/db?port=1,2,3", "The port in DATABASE_URL is '1,2,3': 3 ports are for 2 hosts."),
        (
            "postgresql://a,,b/db",
            "DATABASE_URL has a host '' that cannot be read: write : as %3A, and an IPv6 address in brackets.",
        ),
        (
            "postgresql://me@::1/db",
            "DATABASE_URL has a host '::1' that cannot be read: write : as %3A, and an IPv6 address in brackets",
        ),
        (
            "postgresql://me@h~1/db",
            "The host in DATABASE_URL is 'h~1': it must be a name, an address, or the directory of",
        ),
        (
            "postgresql://h/db?hostaddr=::1",
            "The hostaddr in DATABASE_URL is '::1': asyncpg cannot connect to one address",
        ),
        ("postgresql:///db?hostaddr=~", "The hostaddr in DATABASE_URL is '~': it must be a name, an address, or the"),
        ("postgresql://h/db?sslmode", "DATABASE_URL must have parameters like name=value after its ?, with & between."),
        (
            "postgresql://h/db?sslmod=require",
            "DATABASE_URL has the unknown parameter sslmod: perhaps sslmode is meant.",
        ),
        (
            "postgresql://h/db?search_path=shop",
            "DATABASE_URL has the unknown parameter search_path: if it is a setting of Postgres, write "
            "options=-c%20search_path%3D….",
        ),
        (
            "postgresql://h/db?ssl_max_protocol_version=SSLv3",
            "The ssl_max_protocol_version in DATABASE_URL is 'SSLv3': ",
        ),
        (
            "postgresql://h/db?ssl_min_protocol_version=TLSv1.3&ssl_max_protocol_version=TLSv1.2",
            "The ssl_min_protocol_version in DATABASE_URL is 'TLSv1.3': it is later than ssl_max_protocol_version.",
        ),
        (
            "postgresql://h/db?sslnegotiation=direct",
            "The sslnegotiation in DATABASE_URL is 'direct': it needs sslmode=",
        ),
        ("postgresql://h/db?sslsni=yes", "The sslsni in DATABASE_URL is 'yes': it must be 0 or 1."),
        ("postgresql://h/db?connect_timeout=soon", "The connect_timeout in DATABASE_URL is 'soon': it must be a whole"),
        ("postgresql://h/db?client_encoding=LATIN1", "The client_encoding in DATABASE_URL is 'LATIN1': asyncpg speaks"),
        (
            "postgresql://h/db?options=-d",
            "The parameter options in DATABASE_URL is refused: it may have settings only, as in -c ",
        ),
        (
            "postgresql://h/db?options=-c%20geheim",
            "The parameter options in DATABASE_URL is refused: it may have settings only,",
        ),
        *(
            (
                f"postgresql://h/db?options={option}5s",
                f"The parameter options in DATABASE_URL is refused: it may not set {name}: ",
            )
            for option, name in (
                ("-c%20statement_timeout=", "statement_timeout"),
                ("-c statement_timeout=", "statement_timeout"),
                ("--lock-timeout=", "lock_timeout"),
                ("-cTimeZone=", "timezone"),
            )
        ),
        (
            "postgresql://h/db?replication=database",
            "The replication in DATABASE_URL is 'database': the service needs an",
        ),
        ("postgresql://h/db?service=shop", "The service in DATABASE_URL is 'shop': none of "),
        (
            "postgresql://me:geheim%@h/db",
            "DATABASE_URL has a % in its password without two hexadecimal digits: write it",
        ),
        ("postgresql://me:geheim%00@h/db", "DATABASE_URL has a password with the character %00, which Postgres cannot"),
        (
            "postgresql://me:geh eim@h/db",
            "DATABASE_URL contains a blank or a control character: write it as %20, or as",
        ),
    ],
)
def test_a_part_that_cannot_be_used_is_refused_by_name(url: str, sentence: str) -> None:
    with pytest.raises(ValueError) as refused:
        read(url)
    assert str(refused.value).startswith(sentence)
    assert str(refused.value).endswith(".")
    assert "geh" not in str(refused.value)


@pytest.mark.parametrize("name", sorted(CHOICES))
def test_an_invalid_choice_is_answered_with_the_valid_ones(name: str) -> None:
    with pytest.raises(ValueError) as refused:
        read(f"postgresql://h/db?{name}=bogus")
    *others, last = CHOICES[name]
    assert str(refused.value) == f"The {name} in DATABASE_URL is 'bogus': it must be {', '.join(others)} or {last}."


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in IMPOSSIBLE for value in sorted(IMPOSSIBLE[name][0])]
)
def test_what_asyncpg_cannot_do_is_refused_with_the_reason(name: str, value: str) -> None:
    with pytest.raises(ValueError, match=f"^The {name} in DATABASE_URL is '{value}': {re.escape(IMPOSSIBLE[name][1])}"):
        read(f"postgresql://h/db?{name}={value}")


@pytest.mark.parametrize("name", sorted(NEVER))
def test_a_parameter_that_is_not_taken_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(ValueError, match=f"^The {name} in DATABASE_URL is 'x': {re.escape(NEVER[name])}"):
        read(f"postgresql://h/db?{name}=x")


def test_a_value_that_may_be_the_end_of_a_password_is_not_shown() -> None:
    """The password is `12345?sslmode=geheim`, and its ? is not encoded."""
    with pytest.raises(ValueError) as refused:
        read("postgresql://ada:12345?sslmode=geheim@h/db")
    assert "geheim" not in str(refused.value)


@pytest.mark.parametrize("user", ["", "me"])
@pytest.mark.parametrize("rest", ["@h/db", "@h:5432/db", "@h,i/db?sslmode=require", "@h/db?application_name=a@b"])
@pytest.mark.parametrize(
    "password", ["geh/eim", "geh#eim", "geh?eim", "geh@eim", "12/geheim", "12?geheim=1", "12#geheim", "a/?#@geheim"]
)
def test_a_password_with_an_unencoded_character_is_refused_and_not_shown(user: str, password: str, rest: str) -> None:
    """Otherwise another host would be asked, and might get the rest of the password."""
    with pytest.raises(ValueError, match=r"in a password, write it as %[0-9A-F]{2}\.$") as refused:
        read(f"postgresql://{user}:{password}{rest}")
    for piece in ("geh", "eim", "12"):
        assert piece not in str(refused.value)


def test_the_environment_counts_where_the_url_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in {"PGHOST": "a", "PGPORT": "6000", "PGUSER": "you", "PGSSLMODE": "require"}.items():
        monkeypatch.setenv(variable, value)
    (attempt,) = told("postgresql://me@/db")
    assert (attempt["host"], attempt["port"], attempt["user"]) == ("a", 6000, "me")
    assert attempt["dsn"]["sslmode"] == "require"
    monkeypatch.setenv("PGSSLMODE", "bogus")
    with pytest.raises(ValueError, match=r"^The sslmode in PGSSLMODE is 'bogus': it must be disable, "):
        read("postgresql://h/db")


def test_a_service_counts_more_than_the_environment_and_less_than_the_url(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / ".pg_service.conf").write_text("# ours\n[shop]\nhost=s\nport=1\npassword=a%b=c\nuser=she\n")
    monkeypatch.setenv("PGHOST", "a")
    (attempt,) = told("postgresql://me@/db?service=shop")
    assert [attempt[name] for name in ("host", "port", "user", "password")] == ["s", 1, "me", "a%b=c"]
    monkeypatch.setenv("PGSERVICE", "shop")
    assert told("postgresql://h")[0]["user"] == "she"


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("[shop]\nsslmode=bogus\n", "The sslmode in the service 'shop' is 'bogus': it must be disable, "),
        (
            "[shop]\nsslmod=require\n",
            "The service in DATABASE_URL is 'shop': in {}, it has the unknown parameter sslmod.",
        ),
        ("[other]\nhost=h\n", "The service in DATABASE_URL is 'shop': none of {} defines it."),
        ("[shop]\ngeheim\n", "The service in DATABASE_URL is 'shop': {} has a line that is neither [name] nor "),
    ],
)
def test_a_service_that_cannot_be_used_is_refused(
    content: str, sentence: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    file = tmp_path / "services"
    file.write_text(content)
    monkeypatch.setenv("PGSERVICEFILE", str(file))
    with pytest.raises(ValueError) as refused:
        read("postgresql:///db?service=shop")
    assert str(refused.value).startswith(sentence.format(file))
    assert "geheim" not in str(refused.value)


def test_a_password_is_found_in_the_password_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    file.write_text(
        "# ours\nh:5432:db:you:no\nh:5432:db:me:a\\:b\\\\c\nlocalhost:*:*:me:socket\n*:6000:*:*:any:thing\n"
    )
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    for url, password in {
        "postgresql://me@h/db": r"a:b\c",
        "postgresql://me@/db?host=/run/postgresql": "socket",
        "postgresql://who@i:6000/x": "any:thing",
        "postgresql://who@h/db": None,
        "postgresql://me:mine@h/db": "mine",
    }.items():
        assert told(url)[0]["password"] == password
    assert [attempt["password"] for attempt in told("postgresql://me@h,i:6000/db")] == [r"a:b\c", "any:thing"]
    monkeypatch.delenv("PGPASSFILE")
    file.rename(tmp_path / ".pgpass")
    assert told("postgresql://me@h/db")[0]["password"] == r"a:b\c"


def test_a_named_password_file_that_cannot_be_used_is_refused_if_it_is_needed(tmp_path: Path) -> None:
    file = tmp_path / "passwords"
    url = f"postgresql://me@h/db?passfile={file}"
    with pytest.raises(
        ValueError, match=rf"^The passfile in DATABASE_URL is '{file}': it cannot be read \(No such file"
    ):
        read(url)
    file.touch()
    file.chmod(0o640)
    with pytest.raises(
        ValueError, match=rf"^The passfile in DATABASE_URL is '{file}': others may read it; change its "
    ):
        read(url)
    read(url.replace("me@", "me:secret@"))


def test_certificates_are_passed_on(certificates: Certificates) -> None:
    files = {
        "sslrootcert": str(certificates.path("ca.crt")),
        "sslcert": str(certificates.path("client.crt")),
        "sslkey": str(certificates.path("locked.key")),
        "sslpassword": PASSWORD,
        "sslmode": "verify-full",
    }
    query = "&".join(f"{name}={value}" for name, value in files.items())
    (attempt,) = told(f"postgresql://h/db?{query}")
    assert attempt["dsn"] == {"target_session_attrs": "any", **files}
    (attempt,) = told(f"postgresql:///db?host=/run/postgresql&{query}")
    assert attempt["dsn"] == {"target_session_attrs": "any", "sslmode": "disable"}, "A unix socket has no TLS."


def test_the_certificates_of_the_system_are_a_file_that_asyncpg_can_read(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = str(certificates.path("ca.crt"))
    monkeypatch.setenv("SSL_CERT_FILE", system)
    (attempt,) = told("postgresql://h/db?sslrootcert=system")
    assert attempt["dsn"] == {"target_session_attrs": "any", "sslrootcert": system, "sslmode": "verify-full"}
    with pytest.raises(
        ValueError, match=r"^The sslmode in DATABASE_URL is 'require': with sslrootcert=system it must be"
    ):
        read("postgresql://h/db?sslrootcert=system&sslmode=require")


@pytest.mark.parametrize(
    ("query", "sentence"),
    [
        ("sslrootcert={}/no", "The sslrootcert in DATABASE_URL is '{}/no': there is no such file."),
        ("sslcrl={}/no", "The sslcrl in DATABASE_URL is '{}/no': there is no such file."),
        ("sslcert={}/no", "The sslcert in DATABASE_URL is '{}/no': there is no such file."),
        ("sslkey={}/no", "The sslkey in DATABASE_URL is '{}/no': there is no such file."),
        ("sslrootcert={}/ca.key", "The sslrootcert in DATABASE_URL is '{}/ca.key': it cannot be loaded ("),
        (
            "sslcert={0}/client.crt&sslkey={0}/server.key",
            "The sslcert in DATABASE_URL is '{}/client.crt': it cannot be loaded (KEY_VALUES_MISMATCH).",
        ),
        (
            "sslcert={0}/client.crt&sslkey={0}/locked.key&sslpassword=geheim",
            "The sslcert in DATABASE_URL is '{}/client.crt': it cannot be loaded (",
        ),
        (
            "sslmode=verify-full",
            "The sslmode in DATABASE_URL is 'verify-full': it needs an authority to trust: name its file in",
        ),
    ],
)
def test_certificates_that_cannot_be_used_are_refused(query: str, sentence: str, certificates: Certificates) -> None:
    with pytest.raises(ValueError) as refused:
        read(f"postgresql://h/db?{query.format(certificates.directory)}")
    assert str(refused.value).startswith(sentence.format(certificates.directory))
    assert "geheim" not in str(refused.value)


def test_a_process_without_a_name_must_be_told_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        raise KeyError("getpwuid(): uid not found: 4711")

    monkeypatch.setattr(getpass, "getuser", unknown)
    read("postgresql://me@h/db")
    with pytest.raises(ValueError, match=r"^There is no user in DATABASE_URL, and this process has none: write user@"):
        read("postgresql://h/db")


def test_no_password_shows_in_a_traceback() -> None:
    assert "geheim" not in repr(read("postgresql://me:geheim@h/db?sslpassword=geheim"))
