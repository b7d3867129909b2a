"""What the files for a deployment promise: least rights, and that they fit the product.

That they are well-formed, ``make lint`` checks.
"""

import re
import tomllib
from collections.abc import Iterator
from fnmatch import fnmatch
from functools import cache
from typing import Any

import click
import pytest
import yaml
from pydantic import SecretStr

from jobs import metrics
from stageline import postgres_install, roles
from stageline.cli import main
from stageline.config import PROJECT_ROOT, Settings
from tests.checkout import PARTS
from tests.unit.test_lint_rules import systemd_units

DOCKERFILE = (PROJECT_ROOT / "deploy" / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((PROJECT_ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if name != "postgres"}
KUBERNETES = list(
    yaml.safe_load_all((PROJECT_ROOT / "deploy" / "kubernetes" / "stageline.yaml").read_text())
)
PODS = {
    each["metadata"]["name"]: each["spec"]["template"]["spec"]
    for each in KUBERNETES
    if "template" in each.get("spec", {})
}
UNITS = {
    path.stem: [setting[2:] for setting in systemd_units.settings(path.read_text())]
    for path in sorted((PROJECT_ROOT / "deploy" / "systemd").glob("*.service"))
}
RULES = yaml.safe_load((PROJECT_ROOT / "deploy" / "prometheus-rules.yml").read_text())
PYPROJECT = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())

#: Folders that are written; all else may be read-only.
WRITABLE = ("/var/lib/stageline", "/run/stageline")


@cache
def variables() -> dict[str, bool]:
    """Variable that the product reads -> whether it is a secret."""
    known = {
        field.alias or f"STAGELINE_{name}".upper(): SecretStr in (field.annotation, *_args(field))
        for name, field in Settings.model_fields.items()
    }
    others = ("STAGELINE_SECRETS_DIR", "DBT_TARGET_PATH", "DBT_LOG_PATH")
    return known | dict.fromkeys(others, False)


def _args(field: Any) -> tuple[Any, ...]:
    return getattr(field.annotation, "__args__", ())


def environment(unit: str) -> dict[str, str]:
    """The variables that a unit of systemd sets."""
    return dict(value.split("=", 1) for name, value in UNITS[unit] if name == "Environment")


def dockerfile_environment() -> dict[str, str]:
    (block,) = re.findall(r"^ENV ((?:.*\\\n)*.*)", DOCKERFILE, re.MULTILINE)
    return dict(pair.split("=", 1) for pair in block.replace("\\\n", " ").split())


def all_environments() -> Iterator[tuple[str, dict[str, str]]]:
    yield "Dockerfile", dockerfile_environment()
    for name, service in SERVICES.items():
        yield name, service.get("environment", {})
    for unit in UNITS:
        yield unit, environment(unit)
    for each in KUBERNETES:
        if each["kind"] == "ConfigMap":
            yield "ConfigMap", each["data"]
    for name, pod in PODS.items():
        yield name, {each["name"]: "" for each in pod["containers"][0].get("env", [])}


def test_variables_are_known_and_none_is_a_secret() -> None:
    for where, given in all_environments():
        for name in given:
            if name.startswith(("STAGELINE_", "DBT_")):
                assert variables().get(name) is False, f"{where}: {name}"
            else:
                assert "PASSWORD" not in name or name.endswith("_FILE"), f"{where}: {name}"


def test_secrets_are_files_named_as_variables_that_are_secret() -> None:
    names = [secret["target"] for service in OURS.values() for secret in service["secrets"]] + [
        value.split(":")[0]
        for unit in UNITS.values()
        for name, value in unit
        if name == "LoadCredential"
    ]
    assert len(names) == 10
    for name in names:
        assert variables()[name.upper()] is True, name
    ignored = (PROJECT_ROOT / ".gitignore").read_text().splitlines()
    for secret in COMPOSE["secrets"].values():
        assert secret["file"].startswith("deploy/secrets/")
    assert "deploy/secrets/" in ignored


def commands() -> Iterator[tuple[str, list[str]]]:
    for name, service in OURS.items():
        yield f"compose {name}", service["command"]
    for name, pod in PODS.items():
        yield f"kubernetes {name}", pod["containers"][0]["args"]
    for name, unit in UNITS.items():
        (line,) = (value for setting, value in unit if setting == "ExecStart")
        program, *arguments = line.split()
        assert program == "/srv/stageline/.venv/bin/stageline"
        yield f"systemd {name}", arguments


@pytest.mark.parametrize(("where", "arguments"), list(commands()))
def test_commands_are_those_that_there_are(where: str, arguments: list[str]) -> None:
    name, *rest = arguments
    assert name in where or (name == "up" and "migrate" in where)
    command = main.get_command(click.Context(main), name)
    assert command is not None
    command.make_context(name, rest)  # says what is wrong with its options


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_of_compose_has_no_more_rights_than_it_needs(name: str) -> None:
    service = SERVICES[name]
    uid, gid = service["user"].split(":")
    assert int(uid) > 0 and int(gid) > 0
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"] and "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not {"privileged", "network_mode", "pid", "ipc", "devices"} & set(service)
    assert {"cpus", "memory"} <= set(service["deploy"]["resources"]["limits"])
    assert service["restart"]
    assert name == "migrate" or service["healthcheck"]["test"][0] == "CMD"


def test_the_database_is_reached_by_our_services_alone() -> None:
    assert "ports" not in SERVICES["postgres"]
    assert SERVICES["postgres"]["networks"] == ["database"]
    assert COMPOSE["networks"]["database"]["internal"] is True
    assert SERVICES["receiver"]["ports"] == ["127.0.0.1:8787:8787"]  # TLS is a proxy's


def test_the_receiver_does_not_know_the_login_of_the_owner() -> None:
    given = [secret["source"] for secret in SERVICES["receiver"]["secrets"]]
    assert given == ["receiver_database_url", "secret_key"]
    assert _secret(PODS["stageline-receiver"]) != _secret(PODS["stageline-worker"])
    of_receiver, of_worker = (
        dict(UNITS[f"stageline-{name}"])["LoadCredential"] for name in ("receiver", "worker")
    )
    assert of_receiver == of_worker  # the last one: the key
    assert (
        "LoadCredential",
        "stageline_database_url:/etc/stageline/receiver_database_url",
    ) in UNITS["stageline-receiver"]


def _secret(pod: dict[str, Any]) -> str:
    (name,) = (volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume)
    return str(name)


def test_postgres_is_one_that_the_product_is_tested_with() -> None:
    match = re.fullmatch(r"postgres:(\d+)-\w+", SERVICES["postgres"]["image"])
    assert match is not None
    assert int(match[1]) == postgres_install.VERSION >= roles.LEAST_VERSION


def test_images_have_the_version_of_the_product() -> None:
    images = [service["image"] for service in OURS.values()] + [
        container["image"] for pod in PODS.values() for container in pod["containers"]
    ]
    assert set(images) == {f"stageline:{PYPROJECT['project']['version']}"}


def test_ports_are_those_that_are_asked_for_health() -> None:
    receiver = Settings.model_fields["receiver_port"].default
    worker = int(dockerfile_environment()["STAGELINE_WORKER_METRICS_PORT"])
    asked = {name: OURS[name]["healthcheck"]["test"][-1] for name in ("receiver", "worker")}
    assert f"127.0.0.1:{receiver}/healthz" in asked["receiver"]
    assert f"127.0.0.1:{worker}/healthz" in asked["worker"]
    assert f"127.0.0.1:{receiver}/healthz" in DOCKERFILE
    for name, port in (("stageline-receiver", receiver), ("stageline-worker", worker)):
        container = PODS[name]["containers"][0]
        (served,) = container["ports"]
        assert served["containerPort"] == port
        for probe in ("livenessProbe", "startupProbe"):
            assert container[probe]["httpGet"] == {"path": "/healthz", "port": served["name"]}
    assert f"--metrics-port {worker}" in dict(UNITS["stageline-worker"])["ExecStart"]


@pytest.mark.parametrize("name", PODS)
def test_a_pod_keeps_to_the_restricted_standard(name: str) -> None:
    pod = PODS[name]
    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] > 0
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in pod["containers"]:
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert {"requests", "limits"} == set(container["resources"])
        mounted = {mount["mountPath"] for mount in container["volumeMounts"]}
        assert mounted == {"/run/secrets/stageline", "/tmp", *WRITABLE}  # noqa: S108
        volumes = {volume["name"] for volume in pod["volumes"]} | {"spool"}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_keeps_to_its_own_folders(unit: str) -> None:
    said = dict(UNITS[unit])
    assert (said["DynamicUser"], said["ProtectSystem"]) == ("yes", "strict")
    assert (said["NoNewPrivileges"], said["CapabilityBoundingSet"]) == ("yes", "")
    assert said["Restart"] in ("always", "on-failure")
    assert said["StateDirectory"] == said["RuntimeDirectory"] == unit
    for name, path in environment(unit).items():
        if name.endswith(("_HOME", "_OUTPUT", "_PATH", "_FILE")):
            assert path.startswith((f"%S/{unit}", f"%t/{unit}/")), name


def test_the_image_writes_only_where_it_may() -> None:
    for name, path in dockerfile_environment().items():
        if name.endswith(("HOME", "_OUTPUT", "_PATH", "_FILE")):
            assert path.startswith(WRITABLE), name
    assert re.search(r"^USER [1-9]\d*:[1-9]\d*$", DOCKERFILE, re.MULTILINE)
    last_stage = DOCKERFILE[DOCKERFILE.rindex("\nFROM ") :]
    assert "pip install" not in last_stage and "apt-get" not in DOCKERFILE
    for service in OURS.values():
        written = {each.split(":")[0] for each in (*service["tmpfs"], *service.get("volumes", ()))}
        assert "/run/stageline" in written


def test_the_image_has_all_that_runs_and_nothing_else() -> None:
    copied = [
        source
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in sources.split()
    ]
    assert {*PARTS, *(path.name for path in PROJECT_ROOT.glob("*.yml"))} - {
        "docker-compose.yml"
    } <= set(copied)
    let_through = [
        line.removeprefix("!")
        for line in (PROJECT_ROOT / ".dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert set(let_through) == set(copied)
    assert not any(fnmatch(".env", line) or "secrets" in line for line in let_through)


def pins(lock: str) -> dict[str, str]:
    """Package -> its entry, hashes included."""
    entries = re.split(r"\n(?=\S)", (PROJECT_ROOT / lock).read_text().strip())
    return {entry.split("==")[0]: entry for entry in entries}


def test_the_image_installs_what_was_tested() -> None:
    runtime = pins("requirements.runtime.lock")
    assert runtime.items() <= pins("requirements.lock").items()
    for requirement in PYPROJECT["project"]["dependencies"]:
        assert re.split(r"[\[<>=]", requirement)[0].lower() in runtime
    assert "pytest" not in runtime


def told() -> set[str]:
    """Names of all metrics of a worker, as Prometheus has them."""
    gauges = [metrics.POSTGRES_UP, *(g for reading in metrics.READINGS for g in reading.gauges)]
    events = [each for each in vars(metrics).values() if isinstance(each, metrics.Event)]
    return {f"stageline_{gauge.name}" for gauge in gauges} | {
        f"stageline_{event.name}" + ("_total" if isinstance(event, metrics.Count) else "")
        for event in events
    }


def test_rules_ask_for_metrics_that_there_are() -> None:
    of_receiver = (PROJECT_ROOT / "webhook_receiver" / "metrics.py").read_text()
    for rule in RULES["groups"][0]["rules"]:
        asked = set(re.findall(r"stageline_\w+", rule["expr"]))
        assert asked
        for name in asked - told():
            assert f'"{name}"' in of_receiver, name
        assert rule["annotations"]["summary"] and rule["labels"]["severity"]


def test_every_metric_is_described() -> None:
    page = (PROJECT_ROOT / "docs" / "monitoring.md").read_text()
    assert set(re.findall(r"^\| `(stageline_\w+)`", page, re.MULTILINE)) == told()
