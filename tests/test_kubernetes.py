"""Checks of the manifests in deploy/ that need no cluster."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # It has no annotations; the tests below check what it reads.

from app.caching.write_behind.flushing import DRAIN
from app.room import BACKGROUND_IN_POSTGRES
from app.routers import operations
from app.serve import GRACE
from app.settings import OwnerSettings, Settings
from tests.faults.certificates import Certificates
from tests.service import REPOSITORY

DEPLOY = REPOSITORY / "deploy"
KUBERNETES = "1.27"
"""The oldest version of which the schemas of all objects are checked."""
MOST = 100 - 3
"""Postgres' max_connections by default, without those that are kept for superusers."""
VARIABLES, OF_OWNER = (
    frozenset(str(field.validation_alias.choices[0]) for field in settings.model_fields.values())  # type: ignore[union-attr]
    for settings in (Settings, OwnerSettings)
)
Node = dict[str, Any]


def _documents() -> Iterator[Node]:
    for path in sorted(DEPLOY.glob("*.yaml")):
        yield from yaml.safe_load_all(path.read_text())


OBJECTS: dict[tuple[str, str], Node] = {
    (one["kind"], one.get("metadata", {}).get("name", "")): one for one in _documents()
}
KUSTOMIZATION = OBJECTS.pop(("Kustomization", ""))
DEPLOYMENT, JOB = OBJECTS["Deployment", "fourways"]["spec"], OBJECTS["Job", "fourways-migrate"]["spec"]
POD: Node = DEPLOYMENT["template"]["spec"]
(SERVICE,) = POD["containers"]
(MIGRATE,), (GRANTS,) = JOB["template"]["spec"]["initContainers"], JOB["template"]["spec"]["containers"]
CONTAINERS = {each["name"]: each for each in (SERVICE, MIGRATE, GRANTS)}
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


def _settings() -> dict[str, str]:
    """Returns the variables of the generated ConfigMap."""
    lines = (DEPLOY / "settings.env").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


def _secret(name: str) -> dict[str, str]:
    found: dict[str, str] = OBJECTS["Secret", name]["stringData"]
    return found


def test_kustomize_makes_one_set_of_all_files_but_the_examples() -> None:
    others = {"kustomization.yaml", "secrets.example.yaml"}
    assert set(KUSTOMIZATION["resources"]) == {path.name for path in DEPLOY.glob("*.yaml")} - others
    assert [each["name"] for each in KUSTOMIZATION["images"]] == ["fourways"]
    assert KUSTOMIZATION["configMapGenerator"] == [{"name": "fourways", "envs": ["settings.env"]}]
    assert {container["image"] for container in CONTAINERS.values()} == {"fourways"}


def test_each_object_is_as_the_schema_of_kubernetes_demands() -> None:
    program = shutil.which("kubernetes-validate")
    if program is None:
        pytest.skip("There is no kubernetes-validate here, which has the schemas.")
    files = [path for path in sorted(DEPLOY.glob("*.yaml")) if path.name != "kustomization.yaml"]
    command = [program, "--kubernetes-version", KUBERNETES, "--strict", *map(str, files)]
    compared = subprocess.run(command, capture_output=True, text=True, check=False)
    assert compared.returncode == 0, compared.stdout + compared.stderr
    # It only warns of a kind that it does not know.
    passed = re.findall(r"^INFO \S+ passed for resource (\S+)", compared.stdout, re.MULTILINE)
    assert sorted(passed) == sorted(f"{kind.lower()}/{name}" for kind, name in OBJECTS), compared.stdout


def test_kubectl_builds_what_it_would_apply() -> None:
    built = yaml.safe_load_all(_kubectl("kustomize", str(DEPLOY)))
    kinds = {(one["kind"], one["metadata"]["name"]): one for one in built}
    (name,) = (name for kind, name in kinds if kind == "ConfigMap")
    assert kinds["ConfigMap", name]["data"] == _settings()
    (pod,) = kinds["Deployment", "fourways"]["spec"]["template"]["spec"]["containers"]
    assert pod["envFrom"][0] == {"configMapRef": {"name": name}}
    assert pod["image"] == "registry.example.com/fourways:1"


def _kubectl(*arguments: str) -> str:
    """Returns what kubectl prints. Skips the test where there is none, or one from before Kubernetes 1.24."""
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("There is no kubectl here.")
    version, printed = (
        subprocess.run([program, *command], capture_output=True, text=True, check=False)
        for command in (("version", "--client", "--output=json"), arguments)
    )
    if "kustomizeVersion" not in version.stdout:
        pytest.skip("The kubectl here is too old.")
    assert printed.returncode == 0, printed.stderr
    return printed.stdout


def test_the_probes_ask_existing_paths_of_the_port_that_is_served() -> None:
    (port,) = SERVICE["ports"]
    assert port["containerPort"] == Settings.model_fields["port"].default
    for probe in PROBES:
        assert SERVICE[probe]["httpGet"]["port"] == port["name"]
        assert SERVICE[probe]["httpGet"]["path"] in {route.path for route in operations.router.routes}  # type: ignore[attr-defined]
    (exposed,) = OBJECTS["Service", "fourways"]["spec"]["ports"]
    assert exposed["targetPort"] == port["name"]


def test_only_readiness_depends_on_the_stores() -> None:
    """A restart repairs no store: liveness that asked them would restart all pods while one is away."""
    paths = {probe: SERVICE[probe]["httpGet"]["path"] for probe in PROBES}
    assert paths == dict(zip(PROBES, ("/health/live", "/health/live", "/health/ready"), strict=True))
    longest = Settings.model_fields["database_timeout"].default + Settings.model_fields["redis_timeout"].default
    assert timedelta(seconds=SERVICE["readinessProbe"]["timeoutSeconds"]) > longest


def test_a_pod_has_the_time_to_stop() -> None:
    """It leaves the Service, ends the requests under way, and flushes page views, before it is killed."""
    sleep, seconds = SERVICE["lifecycle"]["preStop"]["exec"]["command"]
    assert sleep == "sleep"
    wanted = timedelta(seconds=int(seconds) + GRACE) + DRAIN
    assert timedelta(seconds=POD["terminationGracePeriodSeconds"]) >= wanted + timedelta(seconds=10)


def test_a_rollout_takes_no_pod_away_before_another_is_ready() -> None:
    assert DEPLOYMENT["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert "replicas" not in DEPLOYMENT, "The autoscaler decides."
    assert OBJECTS["HorizontalPodAutoscaler", "fourways"]["spec"]["minReplicas"] >= 2
    assert OBJECTS["PodDisruptionBudget", "fourways"]["spec"]["maxUnavailable"] == 1


def test_all_pods_together_open_no_more_connections_than_postgres_allows_by_default() -> None:
    pods = OBJECTS["HorizontalPodAutoscaler", "fourways"]["spec"]["maxReplicas"]
    pods += DEPLOYMENT["strategy"]["rollingUpdate"]["maxSurge"]
    each = Settings.model_fields["database_connections"].default + BACKGROUND_IN_POSTGRES
    assert pods * each <= MOST
    assert f" up to {pods * each} connections to Postgres" in (REPOSITORY / "docs" / "operate.md").read_text()
    assert "FOURWAYS_DATABASE_CONNECTIONS" not in _settings()


def test_every_selector_finds_the_pods_of_the_service_and_not_those_of_the_job() -> None:
    labels = DEPLOYMENT["template"]["metadata"]["labels"]
    assert DEPLOYMENT["selector"]["matchLabels"] == labels
    assert OBJECTS["Service", "fourways"]["spec"]["selector"] == labels
    assert OBJECTS["PodDisruptionBudget", "fourways"]["spec"]["selector"]["matchLabels"] == labels
    assert POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"] == labels
    assert JOB["template"]["metadata"]["labels"] != labels
    target = OBJECTS["HorizontalPodAutoscaler", "fourways"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) in OBJECTS


@pytest.mark.parametrize("name", sorted(CONTAINERS))
def test_no_container_gains_rights_or_writes_to_its_image_or_takes_all_of_its_node(name: str) -> None:
    container = CONTAINERS[name]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert set(container["resources"]["requests"]) == set(container["resources"]["limits"]) == {"cpu", "memory"}


@pytest.mark.parametrize("pod", [POD, JOB["template"]["spec"]], ids=["service", "job"])
def test_no_pod_runs_as_root_or_may_call_the_cluster(pod: Node) -> None:
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False, "The cluster would set FOURWAYS_PORT and the like."


def test_the_service_has_a_directory_for_the_metrics_of_workers() -> None:
    (mount,), (volume,) = SERVICE["volumeMounts"], POD["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/tmp"}
    assert "emptyDir" in volume


def test_every_variable_is_one_that_the_application_reads() -> None:
    """A misspelt variable would be ignored silently."""
    assert _settings().keys() <= VARIABLES - {"REDIS_URL", "DATABASE_URL"}
    assert _secret("fourways-stores").keys() == {"REDIS_URL", "DATABASE_URL"}
    assert _secret("fourways-owner").keys() == {"OWNER_URL"}
    assert {one["name"] for one in GRANTS["env"]} == OF_OWNER
    assert {one["name"] for one in MIGRATE["env"]} <= OF_OWNER


def test_the_service_does_not_get_the_secret_of_the_owner() -> None:
    assert SERVICE["envFrom"] == [{"configMapRef": {"name": "fourways"}}, {"secretRef": {"name": "fourways-stores"}}]
    assert "env" not in SERVICE
    for variable in (*MIGRATE["env"], *GRANTS["env"]):
        wanted = variable["valueFrom"]["secretKeyRef"]
        assert wanted["key"] in _secret(wanted["name"])


def test_the_owner_migrates_before_it_grants() -> None:
    """Init containers come first."""
    assert (MIGRATE["command"], GRANTS["command"]) == (["alembic", "upgrade", "head"], ["fourways", "grants", "apply"])
    assert MIGRATE["env"][0]["valueFrom"]["secretKeyRef"] == {"name": "fourways-owner", "key": "OWNER_URL"}


def test_the_settings_and_the_examples_are_accepted(
    monkeypatch: pytest.MonkeyPatch, certificates: Certificates
) -> None:
    for name, value in (_settings() | _secret("fourways-stores") | _secret("fourways-owner")).items():
        # The file is in the image.
        monkeypatch.setenv(name, value.replace("/etc/ssl/certs/ca-certificates.crt", str(certificates.path("ca.crt"))))
    assert Settings(_env_file=None).log_format == "json"
    assert OwnerSettings(_env_file=None).owner_url
