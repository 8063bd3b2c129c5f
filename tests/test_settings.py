"""The settings: each has a default, and each refusal is a sentence."""

import re
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import AliasChoices, ValidationError

from app.caching.redis_url import TAKEN
from app.database_url.options import DECIDED
from app.database_url.parameters import KNOWN
from app.settings import Settings, SettingsError, read_database_url, read_settings

REPOSITORY = Path(__file__).parent.parent
VARIABLES = {
    str(field.validation_alias.choices[0]): name
    for name, field in Settings.model_fields.items()
    if isinstance(field.validation_alias, AliasChoices)
}
VALUES = {
    "FOURWAYS_ROOT_PATH": "/api",
    "FOURWAYS_LOG_LEVEL": "info",
    "FOURWAYS_LOG_FORMAT": "json",
    "FOURWAYS_ACCESS_LOG": "true",
}
"""Where 5 is no value."""
REDIS, POSTGRES = "redis://localhost:6379/0", "postgresql://localhost/fourways"


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable is set, and there is no .env file."""
    for variable in VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)


def test_every_setting_has_a_variable_and_a_default() -> None:
    assert set(VARIABLES.values()) == set(Settings.model_fields)
    settings = read_settings()
    assert (settings.redis_url, settings.database_url) == (None, None)
    assert (settings.host, settings.port, settings.directory) == ("127.0.0.1", 8000, Path(".fourways"))


def test_an_idle_connection_is_kept_longer_than_most_proxies_keep_it() -> None:
    """Otherwise a proxy may send a request on a connection that is being closed, and answer 502."""
    assert read_settings().keep_alive > timedelta(minutes=1)


def test_the_example_names_every_setting_with_its_default(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.removeprefix("# ") for line in (REPOSITORY / ".env.example").read_text().splitlines() if "=" in line]
    example = dict(line.split("=", 1) for line in lines)
    assert set(example) == set(VARIABLES)
    for variable, value in example.items():
        if not variable.endswith("_URL"):  # The URLs have no default, so the example cannot show one.
            monkeypatch.setenv(variable, value)
    assert read_settings() == Settings(_env_file=None)


def test_the_page_for_operators_names_every_setting_and_no_other() -> None:
    page = (REPOSITORY / "docs" / "operate.md").read_text()
    table = page.partition("\n## Settings\n")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == set(VARIABLES)


def test_the_page_for_operators_says_what_becomes_of_each_parameter_of_a_url() -> None:
    section = (REPOSITORY / "docs" / "operate.md").read_text().partition("\n## URLs\n")[2].partition("\n## ")[0]
    said = set(re.findall(r"`(\w+)`", section))
    assert {*KNOWN, *TAKEN, *DECIDED} <= said


@pytest.mark.parametrize("variable", sorted(VARIABLES))
def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    default = getattr(read_settings(), VARIABLES[variable])
    monkeypatch.setenv("REDIS_URL", "redis://elsewhere")
    monkeypatch.setenv("DATABASE_URL", "postgresql://elsewhere/db")
    if not variable.endswith("_URL"):
        monkeypatch.setenv(variable, VALUES.get(variable, "5"))
    assert getattr(read_settings(), VARIABLES[variable]) != default


def test_the_env_file_sets_only_what_the_environment_does_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("PORT=9000\nFOURWAYS_USERS_TTL=1.5\n")
    monkeypatch.setenv("PORT", "9001")
    settings = read_settings()
    assert (settings.port, settings.users_ttl) == (9001, timedelta(seconds=1.5))


def test_allowed_hosts_are_a_list_and_ignore_case(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOURWAYS_ALLOWED_HOSTS", "Shop.example, *.internal.example,my_app")
    assert read_settings().allowed_hosts == ("shop.example", "*.internal.example", "my_app")


def test_an_empty_variable_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "")
    monkeypatch.setenv("REDIS_URL", "")
    assert read_settings() == Settings(_env_file=None)


def test_settings_do_not_change_once_they_are_read() -> None:
    settings = read_settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 9000  # type: ignore[misc]  # the point of the test


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("PORT", "0", "PORT is '0': input should be greater than or equal to 1."),
        ("PORT", "65536", "PORT is '65536': input should be less than or equal to 65535."),
        ("PORT", "http", "PORT is 'http': input should be a valid integer, unable to parse string as an integer."),
        ("FOURWAYS_USERS_TTL", "abc", "FOURWAYS_USERS_TTL is 'abc': it must be a number of seconds."),
        ("FOURWAYS_USERS_TTL", "nan", "FOURWAYS_USERS_TTL is 'nan': it must be a number of seconds."),
        ("FOURWAYS_USERS_TTL", "inf", "FOURWAYS_USERS_TTL is 'inf': it must be a number of seconds."),
        ("FOURWAYS_USERS_TTL", "0", "FOURWAYS_USERS_TTL is '0': it must be from 0.001 to 2592000 seconds."),
        (
            "FOURWAYS_PREFIX",
            "{a}",
            "FOURWAYS_PREFIX is '{a}': it may have up to 64 letters, digits, and any of . _ : -.",
        ),
        *(
            (
                "FOURWAYS_ALLOWED_HOSTS",
                value,
                f"FOURWAYS_ALLOWED_HOSTS is '{value}': it must be names without ports, with commas between, like "
                "shop.example.com or *.example.com.",
            )
            for value in ("app:8000", "https://app", "app,", "*app", "a b", "app/")
        ),
        (
            "FOURWAYS_ROOT_PATH",
            "api",
            "FOURWAYS_ROOT_PATH is 'api': it must be a path like /api, of letters, digits, and any of . _ ~ - /, "
            "without //.",
        ),
        ("FOURWAYS_LOG_FORMAT", "xml", "FOURWAYS_LOG_FORMAT is 'xml': input should be 'text' or 'json'."),
        ("FOURWAYS_ABSENT_TTL", "-1", "FOURWAYS_ABSENT_TTL is '-1': it must be from 0.001 to 2592000 seconds."),
        # Postgres treats 0 ms as "no limit", and accepts at most as many ms as fit an int.
        (
            "FOURWAYS_DATABASE_TIMEOUT",
            "0.0001",
            "FOURWAYS_DATABASE_TIMEOUT is '0.0001': it must be from 0.001 to 3600 seconds.",
        ),
        (
            "FOURWAYS_DATABASE_TIMEOUT",
            "2592000",
            "FOURWAYS_DATABASE_TIMEOUT is '2592000': it must be from 0.001 to 3600 seconds.",
        ),
    ],
)
def test_a_refusal_names_the_variable_and_its_value(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert str(refusal.value) == sentence


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("REDIS_URL", "geheim", "REDIS_URL must begin with redis://, rediss://, unix://, redis+sentinel:// or"),
        ("REDIS_URL", "redis://h:geheim", "The port in REDIS_URL must be a number from 1 to 65535."),
        (
            "REDIS_URL",
            "redis://:geheim@h?protocol=3",
            "REDIS_URL has the parameter protocol, which a URL may not set: ",
        ),
        ("REDIS_URL", "redis://:geheim@h?foo=bar", "REDIS_URL has the unknown parameter foo: perhaps one of db,"),
        (
            "REDIS_URL",
            "rediss://:geheim@h?ssl_ca_certs=/none.crt",
            "The ssl_ca_certs in REDIS_URL is '/none.crt': there",
        ),
        ("DATABASE_URL", "postgresql://[::1/db", "DATABASE_URL has a host that cannot be read: write : as %3A, and"),
        ("DATABASE_URL", "http://me:geheim@host/db?password=geheim", "DATABASE_URL must begin with postgresql:// or"),
        ("DATABASE_URL", "me:gehe?im@gehe@host/db", "DATABASE_URL must begin with postgresql:// or postgres://."),
        (
            "DATABASE_URL",
            "postgresql://me:geheim@h:99999999/db",
            "The port in DATABASE_URL is '99999999': it must be a",
        ),
        (
            "DATABASE_URL",
            "postgresql://me:geheim@h/db?sslmode=bogus",
            "The sslmode in DATABASE_URL is 'bogus': it must",
        ),
        (
            "DATABASE_URL",
            "postgresql://me:geheim@h/db?sslrootcert=/none",
            "The sslrootcert in DATABASE_URL is '/none': ",
        ),
    ],
)
def test_a_refused_url_is_named_by_its_part_and_no_password_is_shown(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str, sentence: str
) -> None:
    monkeypatch.setenv("REDIS_URL", REDIS)
    monkeypatch.setenv("DATABASE_URL", POSTGRES)
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert str(refusal.value).startswith(sentence)
    assert "gehe" not in str(refusal.value)


def test_settings_do_not_show_their_urls() -> None:
    settings = Settings(_env_file=None, redis_url="redis://:geheim@h", database_url="postgresql://me:geheim@h/db")
    assert "geheim" not in f"{settings} {settings!r}"


def test_an_invalid_url_is_not_quoted_by_the_error_behind_the_sentence() -> None:
    with pytest.raises(ValidationError) as refused:
        Settings(_env_file=None, redis_url="redis://:geheim@h?protocol=3", database_url=POSTGRES)
    assert "geheim" not in str(refused.value)


def test_each_invalid_variable_has_its_own_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PORT", "0")
    monkeypatch.setenv("FOURWAYS_USERS_TTL", "abc")
    with pytest.raises(SettingsError) as refusal:
        read_settings()
    assert [line.split()[0] for line in str(refusal.value).splitlines()] == ["PORT", "FOURWAYS_USERS_TTL"]


@pytest.mark.parametrize(("url", "missing"), [("REDIS_URL", "DATABASE_URL"), ("DATABASE_URL", "REDIS_URL")])
def test_one_store_alone_is_refused(monkeypatch: pytest.MonkeyPatch, url: str, missing: str) -> None:
    monkeypatch.setenv(url, REDIS if url == "REDIS_URL" else POSTGRES)
    with pytest.raises(SettingsError, match=f"^{missing} is missing: set REDIS_URL and DATABASE_URL, or neither"):
        read_settings()


def test_the_migrations_need_no_redis(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", POSTGRES)
    assert read_database_url() == POSTGRES
