"""The settings: read once from the environment (or a file `.env`), checked, frozen, and passed down.

Two name the stores, `REDIS_URL` and `DATABASE_URL`; without them the application brings its own. The others have
defaults that work. Durations are in seconds.
"""

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any

from pydantic import AliasChoices, BeforeValidator, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict


class SettingsError(ValueError):
    """A variable has a value that cannot work; the message names both."""


def _seconds(value: Any) -> Any:
    try:
        return timedelta(seconds=float(value)) if isinstance(value, str | int | float) else value
    except (ValueError, OverflowError):
        raise ValueError("it must be a number of seconds") from None


Seconds = Annotated[timedelta, BeforeValidator(_seconds), Field(gt=timedelta(0), le=timedelta(days=30))]


def _env(name: str) -> Any:
    """The variable that sets a field; in code the field has its own name."""
    return AliasChoices(name)


class Settings(BaseSettings):
    """Everything that can be set from outside."""

    model_config = SettingsConfigDict(
        frozen=True, env_file=".env", extra="ignore", populate_by_name=True, env_ignore_empty=True
    )

    redis_url: str | None = Field(None, validation_alias=_env("REDIS_URL"), pattern=r"^(redis|rediss|unix)://")
    database_url: str | None = Field(
        None, validation_alias=_env("DATABASE_URL"), pattern=r"^(postgres|postgresql|postgresql\+asyncpg)://"
    )
    port: int = Field(8000, validation_alias=_env("PORT"), ge=1, le=65_535)
    host: str = Field("127.0.0.1", validation_alias=_env("FOURWAYS_HOST"), min_length=1)
    directory: Path = Field(Path(".fourways"), validation_alias=_env("FOURWAYS_DIRECTORY"))

    users_ttl: Seconds = Field(timedelta(minutes=5), validation_alias=_env("FOURWAYS_USERS_TTL"))
    products_ttl: Seconds = Field(timedelta(minutes=5), validation_alias=_env("FOURWAYS_PRODUCTS_TTL"))
    absent_ttl: Seconds = Field(timedelta(seconds=30), validation_alias=_env("FOURWAYS_ABSENT_TTL"))
    stale_for: Seconds = Field(timedelta(minutes=10), validation_alias=_env("FOURWAYS_STALE_FOR"))

    redis_timeout: Seconds = Field(timedelta(seconds=0.5), validation_alias=_env("FOURWAYS_REDIS_TIMEOUT"))
    redis_connections: int = Field(16, validation_alias=_env("FOURWAYS_REDIS_CONNECTIONS"), ge=1, le=1000)
    database_connections: int = Field(8, validation_alias=_env("FOURWAYS_DATABASE_CONNECTIONS"), ge=2, le=1000)
    database_timeout: Seconds = Field(timedelta(seconds=2), validation_alias=_env("FOURWAYS_DATABASE_TIMEOUT"))

    @model_validator(mode="after")
    def _both_stores_or_neither(self) -> "Settings":
        if (self.redis_url is None) != (self.database_url is None):
            missing = "REDIS_URL" if self.redis_url is None else "DATABASE_URL"
            raise ValueError(f"{missing} is missing: set REDIS_URL and DATABASE_URL, or neither of them.")
        return self


def read_settings() -> Settings:
    """The settings of this process. Raises SettingsError, with a sentence for each variable that is wrong."""
    try:
        return Settings()
    except ValidationError as error:
        raise SettingsError("\n".join(_sentence(detail) for detail in error.errors())) from None


def _sentence(detail: Any) -> str:
    message = str(detail["msg"]).removeprefix("Value error, ")
    if not detail["loc"]:
        return message
    # Pydantic names the field by its variable. The value is shown: none of the settings but the URLs can hold a secret.
    name = detail["loc"][0]
    value = "" if name.endswith("_URL") else f" is {detail['input']!r}"
    return f"{name}{value}: {message[0].lower()}{message[1:]}."
