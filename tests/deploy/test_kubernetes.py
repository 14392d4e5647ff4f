"""The Kubernetes files: rendered, and held to the schemas, to a scanner, and to the daemon's own settings."""

import shlex
import shutil
import urllib.error
import urllib.request
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml
from daemon_process import DaemonProcess
from deploy.files import DEPLOY, PROJECT, README, commands, run

from pool_daemon.settings import Settings, load_settings

KUBERNETES = DEPLOY / "kubernetes"
MONITORING = KUBERNETES / "components/monitoring"
LAYERS = ("base", "overlays/example")
OLDEST, NEWEST = 27, 37
"""Kubernetes 1.27 is the first that evicts unhealthy pods as the disruption budget says."""

STOP_MARGIN_SECONDS = 5
"""What a stop may take besides the pass under way."""

Object = dict[str, Any]


@pytest.fixture
def deployment() -> Object:
    return _object("Deployment")


@pytest.fixture
def container(deployment: Object) -> Object:
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    return dict(container)


@pytest.mark.parametrize("minor", [OLDEST, NEWEST])
@pytest.mark.parametrize("layer", LAYERS)
def test_every_object_fits_the_schemas(layer: str, minor: int, tmp_path: Path) -> None:
    run("kubernetes-validate", "--strict", "--quiet", "--no-warn", "-k", f"1.{minor}", _written(layer, tmp_path, minor))


def test_a_scanner_finds_nothing_but_what_is_excused(tmp_path: Path) -> None:
    manifest = _written("overlays/example", tmp_path)

    run("checkov", "-f", manifest, "--framework", "kubernetes", "--compact", "--quiet", "--skip-download")


def test_every_excuse_has_a_reason(deployment: Object) -> None:
    excuses = {
        name: text for name, text in deployment["metadata"]["annotations"].items() if name.startswith("checkov.io/")
    }

    assert excuses
    assert all(text.partition("=")[2] for text in excuses.values())


@pytest.mark.parametrize("layer", LAYERS)
def test_the_oldest_kubectl_renders_the_same_as_the_newest(layer: str) -> None:
    oldest, newest = (list(yaml.safe_load_all(_rendered(layer, minor))) for minor in (OLDEST, NEWEST))

    assert all(one in newest for one in oldest)
    assert len(oldest) == len(newest)


def test_the_lines_of_the_readme_make_what_the_example_asks_for(tmp_path: Path) -> None:
    write, *others = commands("### Run in Kubernetes", README)
    run("bash", "-c", write, cwd=tmp_path, given="mongodb://db/\n")
    namespace, secret, apply, wait = map(shlex.split, others)

    made = [_made(command, tmp_path) for command in (namespace, secret)]

    assert made[0]["metadata"]["name"] == _object("Namespace", "overlays/example")["metadata"]["name"]
    assert made[1]["metadata"]["namespace"] == _object("Deployment", "overlays/example")["metadata"]["namespace"]
    volumes = _object("Deployment", "overlays/example")["spec"]["template"]["spec"]["volumes"]
    assert made[1]["metadata"]["name"] in [volume["secret"]["secretName"] for volume in volumes if "secret" in volume]
    assert list(made[1]["data"]) == ["database__uri"]
    deployment = _object("Deployment", "overlays/example")["metadata"]
    assert wait[3:] == [f"deployment/{deployment['name']}", "--namespace", deployment["namespace"]]
    assert apply == ["kubectl", "apply", "-k", str((KUBERNETES / "overlays/example").relative_to(PROJECT))]


def test_two_replicas_are_replaced_one_by_one_and_only_when_the_next_is_ready(deployment: Object) -> None:
    assert deployment["spec"]["replicas"] == 2
    assert deployment["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    assert _object("PodDisruptionBudget")["spec"]["minAvailable"] == 1


def test_a_pod_has_time_to_finish_its_pass(deployment: Object) -> None:
    grace_seconds = deployment["spec"]["template"]["spec"]["terminationGracePeriodSeconds"]

    settings = Settings()
    assert grace_seconds > settings.expiry.drain_seconds + settings.lease.seconds + STOP_MARGIN_SECONDS


def test_what_restarts_a_pod_never_asks_for_its_database(container: Object) -> None:
    paths = {name: container[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}
    assert paths["readiness"] == "/readyz"
    settings = {"HTTP__PORT": "0", "DATABASE__SERVER_SELECTION_SECONDS": "1"}

    with DaemonProcess(uri="mongodb://127.0.0.1:9/", database_name="explorer", **settings) as daemon:
        daemon.wait_for_log(
            lambda record: record["event"] == "database_unavailable", within_seconds=20, what="a missing database"
        )
        (port,) = (record["port"] for record in daemon.records if record["event"] == "http_listening")
        statuses = {name: _status(f"http://127.0.0.1:{port}{path}") for name, path in paths.items()}

    assert statuses == {"startup": 200, "liveness": 200, "readiness": 503}


def test_a_pod_may_do_nothing_that_it_need_not(deployment: Object, container: Object) -> None:
    pod = deployment["spec"]["template"]["spec"]

    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "privileged": False,
        "readOnlyRootFilesystem": True,
    }
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert all(mount["readOnly"] for mount in container["volumeMounts"])


@pytest.mark.parametrize("layer", LAYERS)
def test_the_daemon_takes_its_settings_as_kubernetes_presents_them(layer: str, tmp_path: Path) -> None:
    secrets = {"database__uri": "mongodb://pool-daemon:secret@db/", "ca.pem": "-----BEGIN CERTIFICATE-----\n"}
    mounted = _mounted(tmp_path / "secrets", secrets)
    config = tmp_path / "config.toml"
    config.write_text(_object("ConfigMap", layer)["data"]["config.toml"], encoding="utf-8")
    (container,) = _object("Deployment", layer)["spec"]["template"]["spec"]["containers"]
    environ = {variable["name"]: variable.get("value", "pool-daemon-76f4d-x8zkq") for variable in container["env"]}

    settings = load_settings(config, environ | {"POOL_DAEMON_SECRETS_DIR": str(mounted)})

    assert settings.database.uri is not None
    assert settings.database.uri.get_secret_value().endswith("@db/")
    assert settings.lease.identity == "pool-daemon-76f4d-x8zkq"
    assert settings.http.host == "0.0.0.0"  # noqa: S104 - what Prometheus and the kubelet must be able to reach
    assert container["ports"] == [{"name": "http", "containerPort": settings.http.port}]
    assert environ["POOL_DAEMON_SECRETS_DIR"] in [mount["mountPath"] for mount in container["volumeMounts"]]


def test_the_component_for_webhooks_opens_one_network_to_the_pods_and_nothing_else(tmp_path: Path) -> None:
    """Beside the base, in a folder of the operator's."""
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes")
    layer = {"resources": ["../../base"], "components": ["../../components/webhooks"]}
    overlay = tmp_path / "kubernetes/overlays/mine"
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(yaml.safe_dump(layer))
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text(run(f"kubectl-1.{OLDEST}", "kustomize", overlay))

    run("kubernetes-validate", "--strict", "--quiet", "--no-warn", "-k", f"1.{OLDEST}", manifest)
    objects = {(each["kind"], each["metadata"]["name"]): each for each in yaml.safe_load_all(manifest.read_text())}
    policy = objects["NetworkPolicy", "pool-daemon-webhooks"]["spec"]
    assert policy["podSelector"] == objects["NetworkPolicy", "pool-daemon"]["spec"]["podSelector"]
    assert (policy["policyTypes"], len(policy["egress"])) == (["Egress"], 1)


def test_the_rules_are_those_of_prometheus() -> None:
    rules = yaml.safe_load((DEPLOY / "prometheus/rules.yaml").read_text(encoding="utf-8"))

    assert _object("PrometheusRule", "overlays/example")["spec"] == rules, f"run {MONITORING / 'update'}"


def test_what_is_scraped_is_the_port_of_the_pods_that_are_deployed(deployment: Object, container: Object) -> None:
    monitor = _object("PodMonitor", "overlays/example")["spec"]

    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] in [port["name"] for port in container["ports"]]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "pool-daemon"


@cache
def _rendered(layer: str, minor: int = NEWEST) -> str:
    return run(f"kubectl-1.{minor}", "kustomize", KUBERNETES / layer)


def _written(layer: str, folder: Path, minor: int = NEWEST) -> Path:
    manifest = folder / "rendered.yaml"
    manifest.write_text(_rendered(layer, minor), encoding="utf-8")
    return manifest


def _object(kind: str, layer: str = "base") -> Object:
    (found,) = (one for one in yaml.safe_load_all(_rendered(layer)) if one["kind"] == kind)
    return dict(found)


def _made(command: list[str], folder: Path) -> Object:
    """Let kubectl show what it would create."""
    _, *words = command
    shown = run(f"kubectl-1.{NEWEST}", *words, "--dry-run=client", "--output=yaml", cwd=folder)
    return dict(yaml.safe_load(shown))


def _status(url: str) -> int:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - the daemon of this test
            return int(response.status)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code


def _mounted(folder: Path, secrets: dict[str, str]) -> Path:
    """Lay out secrets as a kubelet does: the files are links into a folder that a link names."""
    dated = folder / "..2026_11_23_10_30_00.1"
    dated.mkdir(parents=True)
    (folder / "..data").symlink_to(dated.name)
    for name, text in secrets.items():
        (dated / name).write_text(text, encoding="utf-8")
        (folder / name).symlink_to(f"..data/{name}")
    return folder
