"""`fourways demo`, and what all commands have in common. The other commands have their own test files."""

import tomllib

from tests.command_line import says
from tests.home import Home
from tests.service import REPOSITORY


async def test_demo_while_serving_leaves_existing_rows_alone(home: Home) -> None:
    async with home.serves() as (_, client):
        await client.patch("/users/2", json={"name": "Changed"})
        await client.delete("/users/1")
        assert (await client.get("/users/1")).status_code == 404
        # The start has already added the demo data.
        told = "Demo data is there: 9 users, 8 products, stock of 8, views of 6 pages\n"
        assert await home.complains("demo") == (0, told)
        assert (await client.get("/users/1")).status_code == 404
        assert (await client.get("/users/2")).json()["name"] == "Changed"


async def test_demo_without_running_servers_says_what_to_start(home: Home) -> None:
    code, said = await says("demo", **home.environment)
    assert code == 1
    assert said == (
        f"Nothing runs in {home.environment['FOURWAYS_DIRECTORY']}: start it with `make run` or `fourways serve`, or "
        "set REDIS_URL and DATABASE_URL.\n"
    )


async def test_demo_reports_that_its_database_is_away() -> None:
    nowhere = {"REDIS_URL": "redis://127.0.0.1:1", "DATABASE_URL": "postgresql://127.0.0.1:1/fourways"}
    assert await says("demo", **nowhere) == (1, "The database refuses connections.\n")


async def test_an_invalid_setting_is_named_with_its_value(home: Home) -> None:
    code, said = await home.complains("serve", FOURWAYS_REDIS_CONNECTIONS="[many]")
    assert code == 1
    assert said.startswith("FOURWAYS_REDIS_CONNECTIONS is '[many]': ")
    assert said.count("\n") == 1


async def test_help_works_whatever_the_settings_are(home: Home) -> None:
    for code, said in (await home.complains("serve", "--help", PORT="0"), await says("demo", "--help", PORT="0")):
        assert code == 0
        assert "DATABASE_URL" in said


async def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert await says("--version", PORT="0") == (0, f"fourways {project['version']}\n")


async def test_a_root_path_that_leads_elsewhere_is_refused() -> None:
    assert await says("serve", "--root-path", "//evil.example") == (
        1,
        "FOURWAYS_ROOT_PATH is '//evil.example': it must be a path like /api, of letters, digits, and any of . _ ~ - /"
        ", without //.\n",
    )
