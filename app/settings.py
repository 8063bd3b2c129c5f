"""The settings: read once from the environment (or a `.env` file), validated, frozen, and passed down.

`REDIS_URL` and `DATABASE_URL` name the stores; without them the application starts its own. All other settings have
working defaults. Durations are in seconds.
"""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, AliasChoices, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from app.caching.redis_url import read_redis_url
from app.database_url import DatabaseUrl
from app.plain_path import plain_path


class SettingsError(ValueError):
    """A variable has an invalid value. The message names both."""


ENV_FILE = ".env"
SHORTEST = timedelta(milliseconds=1)
"""The shortest duration: Redis and Postgres count in milliseconds, and Postgres reads 0 as "no limit"."""


def _seconds(longest: timedelta) -> BeforeValidator:
    def checked(value: Any) -> timedelta:
        try:
            duration = value if isinstance(value, timedelta) else timedelta(seconds=float(value))
        except (TypeError, ValueError, OverflowError):
            raise ValueError("it must be a number of seconds") from None
        if not SHORTEST <= duration <= longest:
            raise ValueError(f"it must be from {SHORTEST.total_seconds()} to {longest.total_seconds():.0f} seconds")
        return duration

    return BeforeValidator(checked)


Lifetime = Annotated[timedelta, _seconds(timedelta(days=30))]
Timeout = Annotated[timedelta, _seconds(timedelta(hours=1))]


def _redis_url(value: str) -> str:
    read_redis_url(value, "REDIS_URL")
    return value


def _database_url(value: str) -> str:
    DatabaseUrl.read(value, "DATABASE_URL").check_files()
    return value


def _owner_url(value: str) -> str:
    DatabaseUrl.read(value, "OWNER_URL").check_files()
    return value


def _prefix(value: str) -> str:
    # Braces would make a Redis hash tag, and a glob character would match keys of other applications.
    if not re.fullmatch(r"[A-Za-z0-9_.:-]{0,64}", value):
        raise ValueError("it may have up to 64 letters, digits, and any of . _ : -")
    return value


def _names(value: str | tuple[str, ...]) -> tuple[str, ...]:
    names = tuple(name.strip().lower() for name in value.split(",")) if isinstance(value, str) else value
    if not all(re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", name) for name in names):
        raise ValueError("it must be names without ports, with commas between, like shop.example.com or *.example.com")
    return names


def _root_path(value: str) -> str:
    path = plain_path(value) if value else ""
    if path is None:
        raise ValueError("it must be a path like /api, of letters, digits, and any of . _ ~ - /, without //")
    return path


_LOWER = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)


def _env(name: str) -> Any:
    """Returns the alias that names the environment variable of a field. Code uses the field's own name."""
    return AliasChoices(name)


class DatabaseSettings(BaseSettings):
    """The settings that the migrations need. They work without Redis."""

    model_config = SettingsConfigDict(
        frozen=True,
        env_file=ENV_FILE,
        extra="ignore",
        populate_by_name=True,
        env_ignore_empty=True,
        hide_input_in_errors=True,
    )

    database_url: Annotated[str, AfterValidator(_database_url)] | None = Field(
        None, validation_alias=_env("DATABASE_URL"), repr=False
    )


class OwnerSettings(DatabaseSettings):
    """The settings that `fourways grants apply` needs, besides."""

    owner_url: Annotated[str, AfterValidator(_owner_url)] | None = Field(
        None, validation_alias=_env("OWNER_URL"), repr=False
    )


class Settings(DatabaseSettings):
    """All settings."""

    redis_url: Annotated[str, AfterValidator(_redis_url)] | None = Field(
        None, validation_alias=_env("REDIS_URL"), repr=False
    )
    port: int = Field(8000, validation_alias=_env("PORT"), ge=1, le=65_535)
    host: str = Field("127.0.0.1", validation_alias=_env("FOURWAYS_HOST"), min_length=1)
    allowed_hosts: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_names)] = Field(
        (), validation_alias=_env("FOURWAYS_ALLOWED_HOSTS")
    )
    directory: Path = Field(Path(".fourways"), validation_alias=_env("FOURWAYS_DIRECTORY"))
    prefix: Annotated[str, AfterValidator(_prefix)] = Field("", validation_alias=_env("FOURWAYS_PREFIX"))

    users_ttl: Lifetime = Field(timedelta(minutes=5), validation_alias=_env("FOURWAYS_USERS_TTL"))
    products_ttl: Lifetime = Field(timedelta(minutes=5), validation_alias=_env("FOURWAYS_PRODUCTS_TTL"))
    inventory_ttl: Lifetime = Field(timedelta(minutes=5), validation_alias=_env("FOURWAYS_INVENTORY_TTL"))
    absent_ttl: Lifetime = Field(timedelta(seconds=30), validation_alias=_env("FOURWAYS_ABSENT_TTL"))
    stale_for: Lifetime = Field(timedelta(minutes=10), validation_alias=_env("FOURWAYS_STALE_FOR"))

    flush_views: int = Field(1000, validation_alias=_env("FOURWAYS_FLUSH_VIEWS"), ge=1, le=1_000_000)
    # With a longer interval, other instances would take the flusher for dead.
    flush_interval: Timeout = Field(
        timedelta(seconds=0.2), validation_alias=_env("FOURWAYS_FLUSH_INTERVAL"), le=timedelta(seconds=5)
    )

    # Limits for all four shards together.
    backlog_entries: int = Field(40_000, validation_alias=_env("FOURWAYS_BACKLOG_ENTRIES"), ge=4, le=1_000_000)
    backlog_bytes: int = Field(128 * 2**20, validation_alias=_env("FOURWAYS_BACKLOG_BYTES"), ge=4, le=2**40)
    keys_bytes: int = Field(512 * 2**20, validation_alias=_env("FOURWAYS_KEYS_BYTES"), ge=4, le=2**40)

    redis_timeout: Timeout = Field(timedelta(seconds=0.5), validation_alias=_env("FOURWAYS_REDIS_TIMEOUT"))
    redis_connections: int = Field(16, validation_alias=_env("FOURWAYS_REDIS_CONNECTIONS"), ge=1, le=1000)
    database_connections: int = Field(8, validation_alias=_env("FOURWAYS_DATABASE_CONNECTIONS"), ge=2, le=1000)
    database_timeout: Timeout = Field(timedelta(seconds=2), validation_alias=_env("FOURWAYS_DATABASE_TIMEOUT"))

    # What a client may send, and how long that may take. `url_bytes` limits the URL, `header_bytes` all header fields
    # together.
    url_bytes: int = Field(64 * 2**10, validation_alias=_env("FOURWAYS_URL_BYTES"), ge=1, le=2**20)
    header_bytes: int = Field(32 * 2**10, validation_alias=_env("FOURWAYS_HEADER_BYTES"), ge=1, le=2**20)
    header_count: int = Field(100, validation_alias=_env("FOURWAYS_HEADER_COUNT"), ge=1, le=10_000)
    body_bytes: int = Field(64 * 2**10, validation_alias=_env("FOURWAYS_BODY_BYTES"), ge=1, le=2**26)
    batch_bytes: int = Field(4 * 2**20, validation_alias=_env("FOURWAYS_BATCH_BYTES"), ge=1, le=2**26)
    bodies_bytes: int = Field(64 * 2**20, validation_alias=_env("FOURWAYS_BODIES_BYTES"), ge=1, le=2**40)
    header_timeout: Timeout = Field(timedelta(seconds=10), validation_alias=_env("FOURWAYS_HEADER_TIMEOUT"))
    body_timeout: Timeout = Field(timedelta(seconds=30), validation_alias=_env("FOURWAYS_BODY_TIMEOUT"))
    keep_alive: Timeout = Field(timedelta(seconds=75), validation_alias=_env("FOURWAYS_KEEP_ALIVE"))
    connections: int = Field(10_000, validation_alias=_env("FOURWAYS_CONNECTIONS"), ge=1, le=1_000_000)
    listen_backlog: int = Field(2048, validation_alias=_env("FOURWAYS_LISTEN_BACKLOG"), ge=1, le=65_535)

    root_path: Annotated[str, AfterValidator(_root_path)] = Field("", validation_alias=_env("FOURWAYS_ROOT_PATH"))
    log_level: Annotated[Literal["debug", "info", "warning", "error", "critical"], _LOWER] = Field(
        "warning", validation_alias=_env("FOURWAYS_LOG_LEVEL")
    )
    log_format: Annotated[Literal["text", "json"], _LOWER] = Field("text", validation_alias=_env("FOURWAYS_LOG_FORMAT"))
    access_log: bool = Field(False, validation_alias=_env("FOURWAYS_ACCESS_LOG"))

    @model_validator(mode="after")
    def _both_stores_or_neither(self) -> "Settings":
        if (self.redis_url is None) != (self.database_url is None):
            missing = "REDIS_URL" if self.redis_url is None else "DATABASE_URL"
            raise ValueError(f"{missing} is missing: set REDIS_URL and DATABASE_URL, or neither of them.")
        return self

    @property
    def store_connections(self) -> int:
        """How many connections the stores may take. Of a cluster, the nodes in the URL are counted."""
        nodes = read_redis_url(self.redis_url).get("nodes", [None]) if self.redis_url else [None]
        return self.redis_connections * len(nodes) + self.database_connections


S = TypeVar("S", bound=DatabaseSettings)


def read_settings() -> Settings:
    """Reads the settings of this process. Raises SettingsError, with a sentence for each invalid variable."""
    return _read(Settings)


def read_database_url() -> str | None:
    """Reads DATABASE_URL alone, for callers that need no Redis. Raises SettingsError."""
    return _read(DatabaseSettings).database_url


def read_role_urls() -> tuple[str, str]:
    """Reads OWNER_URL and DATABASE_URL: whose role owns the tables, and whose role serves. Raises SettingsError."""
    settings = _read(OwnerSettings)
    if settings.owner_url is None or settings.database_url is None:
        missing = "OWNER_URL" if settings.owner_url is None else "DATABASE_URL"
        raise SettingsError(
            f"{missing} is missing: the role of OWNER_URL permits the role of DATABASE_URL what the service needs."
        )
    return settings.owner_url, settings.database_url


def _read(kind: type[S]) -> S:
    try:
        return kind()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    name = str(detail["loc"][0])  # Pydantic reports the alias, which is the environment variable.
    if name.endswith("_URL"):
        return message  # A whole sentence, without what may be a password.
    value = detail["input"]
    shown = f"{value.total_seconds():g}" if isinstance(value, timedelta) else value
    return f"{name} is {shown!r}: {message[0].lower()}{message[1:]}."
