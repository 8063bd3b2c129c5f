"""A password in a URL is shown nowhere: not when the URL is refused, and not when a store refuses the password."""

import traceback
from pathlib import Path

import pytest

from app.embedded import Endpoints
from app.settings import SettingsError, read_settings
from tests.eventually import eventually
from tests.home import Home
from tests.service import free_port
from tests.terminal import terminal
from tests.test_readiness import limited, prepared

CANARY = "kanarienvogel"
REDIS, POSTGRES = f"redis://:{CANARY}@127.0.0.1:1", f"postgresql://me:{CANARY}@127.0.0.1:1/db"

WRONG_REDIS = [
    f"redis://:{CANARY}",
    f"redis://{CANARY}/x@h",
    f"redis://:{CANARY}#x@h",
    f"redis://:x?{CANARY}@h",
    f"redis://:x@{CANARY}@h",
    f"redis://:{CANARY}%@h",
    f"redis://:{CANARY}@h:x",
    f"redis://:{CANARY}@h/x",
    f"redis://:{CANARY}@h?protocol=3",
    f"redis://h?password={CANARY}&foo=bar",
    f"redis://h?password=x&{CANARY}=y",
    f"redis://h?{CANARY}@x",
    f"rediss://:{CANARY}@h?ssl_ca_certs=/none",
    f"rediss://h?ssl_password={CANARY}&ssl_certfile=/none",
    f"rediss://:x?ssl_cert_reqs={CANARY}@h",
    f"rediss://x?ssl_ca_certs={CANARY}@h",
    f"redis://default:x?{CANARY}=1",
    f"redis+sentinel://:{CANARY}",
    f"redis+sentinel://:{CANARY},h/shop",
    f"redis+sentinel://:{CANARY}@h,/shop",
    f"redis+sentinel://h/shop?sentinel_password={CANARY}&sentinel_pasword=x",
    f"redis+sentinel://h/shop?sentinel_password=x&{CANARY}=y",
    f"rediss+sentinel://:{CANARY}@h/shop?ssl_ca_certs=/none",
    f"redis+tls://:{CANARY}@h",
    f":{CANARY}@h",
]
WRONG_POSTGRES = [
    f"postgresql://me:{CANARY}/db",
    f"postgresql://me:{CANARY}/x@h/db",
    f"postgresql://me:x#{CANARY}@h/db",
    f"postgresql://me:x?{CANARY}=1@h/db",
    f"postgresql://me:x@{CANARY}@h/db",
    f"postgresql://me:{CANARY}%x@h/db",
    f"postgresql://me:{CANARY}@h:x/db",
    f"postgresql://me:{CANARY}@[h/db",
    f"postgresql://me:{CANARY}@h/db?sslmode=bogus",
    f"postgresql://h/db?password={CANARY}&foo=bar",
    f"postgresql://h/db?password=x&{CANARY}=y",
    f"postgresql://me:x@y?{CANARY}=y@h/db",
    f"postgresql://h/db?sslpassword={CANARY}&sslcert=/none",
    f"postgresql://h/db?options=-c%20statement_timeout={CANARY}",
    f"postgresql://h/db?password={CANARY}&service=none",
    f"mysql://me:{CANARY}@h/db",
    f"host=h password={CANARY}",
]
WRONG = [(url, POSTGRES) for url in WRONG_REDIS] + [(REDIS, url) for url in WRONG_POSTGRES]
PATHS = (
    *("/health/ready", "/metrics", "/users/1", "/users", "/products/MUG", "/inventory/MUG", "/page-views/home"),
    *("/page-views?top=5", "/write-behind", "/write-behind/dead-letters", "/strategies", "/", "/openapi.json"),
)
COMMANDS = {
    "fourways": ("fourways", "serve"),
    "uvicorn": ("uvicorn", "app.main:app"),
    "alembic": ("alembic", "upgrade", "head"),
    "dead letters": ("fourways", "dead-letters", "list"),
}


@pytest.mark.parametrize(("redis_url", "database_url"), WRONG, ids=range(len(WRONG)))
def test_a_refused_url_is_one_sentence_and_its_password_is_not_in_the_traceback(
    redis_url: str, database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)  # There is no file `.env`.
    monkeypatch.setenv("REDIS_URL", redis_url)
    monkeypatch.setenv("DATABASE_URL", database_url)
    with pytest.raises(SettingsError) as refused:
        read_settings()
    (sentence,) = str(refused.value).splitlines()
    assert ("REDIS_URL" if database_url == POSTGRES else "DATABASE_URL") in sentence
    assert CANARY not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
async def test_each_command_refuses_a_url_without_a_traceback(command: tuple[str, ...], home: Home) -> None:
    environment = {"REDIS_URL": REDIS, "DATABASE_URL": f"{POSTGRES}?sslmode=bogus", "UVICORN_PORT": str(free_port())}
    async with terminal(home.screen(), *command, **{**home.environment, **environment}) as running:
        assert await running.code() != 0
        assert "The sslmode in DATABASE_URL is 'bogus': it must be disable, " in running.screen
        assert "Traceback" not in running.screen
        assert CANARY not in running.screen


async def test_a_variable_of_libpq_that_cannot_be_used_with_our_own_postgres_is_named(home: Home) -> None:
    code, screen = await home.complains("serve", PGOPTIONS=f"-c statement_timeout={CANARY}", PGPORT="1")
    assert code == 1
    assert "The parameter options in PGOPTIONS is refused: it may not set statement_timeout: " in screen
    assert "Traceback" not in screen
    assert CANARY not in screen


async def test_a_password_that_a_store_refuses_is_shown_nowhere(servers: Endpoints, home: Home, tmp_path: Path) -> None:
    async with prepared(servers) as stage, limited(stage):
        await stage.redis.config_set("requirepass", "another")
        urls = {"REDIS_URL": stage.redis_as(f":{CANARY}"), "DATABASE_URL": stage.database_as(f"limited:{CANARY}")}
        async with home.runs("serve", **urls) as running, home.client() as client:
            await running.shows("Not as it should be: postgres: ")

            async def both_refuse() -> bool:
                parts = (await client.get("/health/ready")).json()["parts"]
                return "WRONGPASS" in parts["redis"] and "authentication failed" in parts["postgres"]

            await eventually(both_refuse)
            shown = [await client.get(path) for path in PATHS]
            shown.append(await client.post("/users", json={"name": "Ada", "email": "ada@example.com"}))
            shown.append(await client.post("/page-views/home"))
            assert {answer.status_code for answer in shown} >= {200, 503}
            for answer in shown:
                assert CANARY not in f"{answer.text} {answer.headers}", answer.url
        async with terminal(tmp_path / "alembic", "alembic", "upgrade", "head", **urls) as alembic:
            assert await alembic.code() != 0
            assert "password authentication failed" in alembic.screen
        assert CANARY not in running.screen + alembic.screen
        assert "Traceback" not in running.screen + alembic.screen
