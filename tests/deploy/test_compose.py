"""The cluster's compose file, as the real docker-compose reads it. Nothing is started: there is no Docker here."""

from __future__ import annotations

import ipaddress
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from redis import Redis
from redis.exceptions import AuthenticationError

from docmill.broker.embedded_broker import _server_binary
from docmill.cli.main import cli
from docmill.settings.load import load_settings

ROOT = Path(__file__).parents[2]
COMPOSE = Path(sys.executable).parent / "docker-compose"
PASSWORDS = {"REDIS_PASSWORD": "r3d1s", "POSTGRES_PASSWORD": "p05t", "FLOWER_PASSWORD": "fl0w"}
ONCE = "migrate"
DOCMILL = ("migrate", "dispatcher", "worker-gpu", "worker-cpu", "flower")


def compose(env_file: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`docker-compose` with this .env and no other variable."""
    return subprocess.run(
        [str(COMPOSE), "--file", str(ROOT / "docker-compose.yml"), "--env-file", str(env_file), *arguments],
        capture_output=True, text=True, env={"PATH": os.environ["PATH"], "HOME": str(env_file.parent)}, check=False,
        timeout=120,
    )  # fmt: skip


def resolved(directory: Path, **variables: str) -> dict[str, Any]:
    """The file with all profiles and these variables beside the passwords."""
    env_file = directory / "test.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in (PASSWORDS | variables).items()))
    done = compose(env_file, "--profile", "*", "config", "--format", "json")
    assert (done.returncode, done.stderr) == (0, "")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return resolved(tmp_path_factory.mktemp("compose"))


@pytest.fixture(scope="module")
def services(config: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = config["services"]
    return found


def published(services: Mapping[str, Any]) -> dict[int, str]:
    return {
        port["target"]: port.get("host_ip", "0.0.0.0")  # noqa: S104 - what Docker takes where none is named
        for service in services.values()
        for port in service.get("ports", [])
    }


def test_every_port_is_on_loopback(services: Mapping[str, Any]) -> None:
    ports = published(services)
    assert set(ports) == {6379, 5432, 5555}
    assert all(ipaddress.ip_address(address).is_loopback for address in ports.values())
    assert not any(service.get("network_mode") == "host" for service in services.values())


def test_ports_go_where_the_env_file_says_and_flower_apart(tmp_path: Path) -> None:
    ports = published(resolved(tmp_path, BIND_ADDRESS="10.0.0.1")["services"])
    assert ports == {6379: "10.0.0.1", 5432: "10.0.0.1", 5555: "127.0.0.1"}


@pytest.mark.parametrize("missing", PASSWORDS)
def test_without_a_password_nothing_starts(tmp_path: Path, missing: str) -> None:
    env_file = tmp_path / "test.env"
    env_file.write_text("".join(f"{name}={value}\n" for name, value in PASSWORDS.items() if name != missing))
    done = compose(env_file, "config")
    assert done.stdout == ""  # the wheel's wrapper ends with 0 whatever happens
    assert f"required variable {missing} is missing a value: set it in .env" in done.stderr


def test_the_example_env_file_names_every_variable_and_holds_no_secret() -> None:
    example = (ROOT / ".env.example").read_text()
    names = set(re.findall(r"^#?([A-Z_]+)=", example, re.MULTILINE))
    used = set(re.findall(r"\$\{([A-Z_]+)", (ROOT / "docker-compose.yml").read_text()))
    assert used - names == {"FLOWER_USER"}
    assert names - used == {"COMPOSE_PROFILES"}  # Compose's own
    assert {name: value for name, value in re.findall(r"^(\w+PASSWORD)=(.*)$", example, re.MULTILINE) if value} == {}
    assert ".env" in (ROOT / ".gitignore").read_text().split()


def test_the_file_holds_no_secret_of_its_own(services: Mapping[str, Any]) -> None:
    raw = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    for name, service in raw["services"].items():
        for key, value in (service.get("environment") or {}).items():
            is_secret = re.search("PASSWORD|AUTH|URL", key) and "INITDB" not in key
            assert not is_secret or ":?set it in .env}" in value, f"{name}: {key}"


def test_every_service_has_a_health_check_or_runs_once(services: Mapping[str, Any]) -> None:
    without = {name for name, service in services.items() if "test" not in service.get("healthcheck", {})}
    assert without == {ONCE}
    assert services[ONCE]["restart"].startswith("on-failure")
    for name in ("dispatcher", "worker-gpu", "worker-cpu"):
        waits = services[name]["depends_on"]
        assert waits[ONCE]["condition"] == "service_completed_successfully"
        assert {waits[server]["condition"] for server in ("redis", "postgres")} == {"service_healthy"}


def docmill_commands(services: Mapping[str, Any]) -> list[list[str]]:
    """What is run inside docmill's own images, health checks included."""
    started = [services[name]["command"] for name in DOCMILL]
    checks = [services[name].get("healthcheck", {}).get("test", [])[1:] for name in DOCMILL]
    return [*started, *(check[1:] for check in checks if check[:1] == ["docmill"])]


def test_every_command_is_one_of_docmill_with_options_that_it_has(services: Mapping[str, Any]) -> None:
    commands = docmill_commands(services)
    assert len(commands) == len(DOCMILL) + 3
    for arguments in commands:
        parse(cli, arguments)


def parse(command: click.Command, arguments: list[str]) -> None:
    """Raises UsageError for what the command line of docmill does not know."""
    context = command.make_context("docmill", list(arguments), resilient_parsing=False)
    if isinstance(command, click.Group):
        name, child, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        assert child is not None, name
        parse(child, rest)


def test_a_command_that_docmill_does_not_have_would_be_noticed() -> None:
    for arguments in (["dispatch"], ["worker", "--gpu", "1"], ["db", "migrate"]):
        with pytest.raises(click.UsageError):
            parse(cli, arguments)


def test_docmill_accepts_every_variable_that_is_set_for_it(services: Mapping[str, Any]) -> None:
    for name in DOCMILL:
        environment = services[name]["environment"]
        settings = load_settings(environment=environment)
        assert settings.broker.url == "redis://:r3d1s@redis:6379/0"
        if name != "flower":
            assert settings.storage.url == "postgresql://docmill:p05t@postgres:5432/docmill"
        assert set(environment) <= {
            "DOCMILL_BROKER__URL", "DOCMILL_STORAGE__URL", "DOCMILL_LLM__MODEL", "DOCMILL_FLOWER_BASIC_AUTH",
        }  # fmt: skip
    assert services["flower"]["environment"]["DOCMILL_FLOWER_BASIC_AUTH"] == "docmill:fl0w"


def test_a_gpu_box_reaches_the_services_of_another(tmp_path: Path) -> None:
    elsewhere = resolved(
        tmp_path, REMOTE_BROKER_URL="rediss://:x@10.0.0.1:6379/0", REMOTE_STORAGE_URL="postgresql://u:y@10.0.0.1/d"
    )
    settings = load_settings(environment=elsewhere["services"]["worker-gpu"]["environment"])
    assert (settings.broker.url, settings.storage.url) == ("rediss://:x@10.0.0.1:6379/0", "postgresql://u:y@10.0.0.1/d")


def test_gpu_workers_reserve_gpus_and_can_be_scaled(services: Mapping[str, Any], tmp_path: Path) -> None:
    worker = services["worker-gpu"]
    (device,) = worker["deploy"]["resources"]["reservations"]["devices"]
    assert (device["driver"], device["capabilities"], device["count"]) == ("nvidia", ["gpu"], -1)  # all
    for name in ("worker-gpu", "worker-cpu", "dispatcher"):  # what would keep two of them from running
        assert not {"container_name", "hostname", "ports"} & set(services[name])
    assert resolved(tmp_path, GPU_WORKERS="0")["services"]["worker-gpu"]["deploy"]["replicas"] == 0
    assert services["worker-cpu"]["profiles"] == ["cpu"]
    assert "profiles" not in worker


def test_docmills_containers_have_no_rights_to_lose(services: Mapping[str, Any]) -> None:
    for name in DOCMILL:
        service = services[name]
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert service.get("privileges") is None


def test_images_are_pinned_and_data_is_on_named_volumes(config: Mapping[str, Any]) -> None:
    for name, service in config["services"].items():
        assert re.fullmatch(r"[a-z/-]+:\d+(\.\d+)+(-alpine)?", service["image"]), name
        assert {volume["type"] for volume in service.get("volumes") or []} <= {"volume"}
    targets = {volume["source"]: volume["target"] for service in config["services"].values()
               for volume in service.get("volumes") or []}  # fmt: skip
    assert targets == {"home": "/var/lib/docmill", "redis": "/data", "postgres": "/var/lib/postgresql"}
    assert set(config["volumes"]) == set(targets)


def test_a_real_valkey_takes_the_configuration_and_keeps_what_it_promises(
    config: Mapping[str, Any], tmp_path: Path
) -> None:
    content = config["configs"]["redis"]["content"].replace("/data", str(tmp_path))
    assert config["services"]["redis"]["command"] == ["valkey-server", "/etc/valkey.conf"]
    assert config["services"]["redis"]["configs"] == [{"source": "redis", "target": "/etc/valkey.conf"}]
    file, socket = tmp_path / "valkey.conf", tmp_path / "v.sock"
    file.write_text(f"{content}\nport 0\nunixsocket {socket}\n")
    server = subprocess.Popen([str(_server_binary()), str(file)], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        assert any("ready to accept" in line.lower() for line in server.stdout)
        with Redis(unix_socket_path=str(socket), password="r3d1s") as client:
            found = client.config_get("appendonly", "appendfsync", "maxmemory", "maxmemory-policy", "save")
        assert found == {
            "appendonly": "yes", "appendfsync": "everysec", "maxmemory": str(512 << 20), "save": "",
            "maxmemory-policy": "noeviction",
        }  # fmt: skip
        with Redis(unix_socket_path=str(socket)) as stranger, pytest.raises(AuthenticationError):
            stranger.ping()
    finally:
        server.terminate()
        server.wait(30)


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.gpu"])
def test_dockerfiles_have_no_fault_that_hadolint_finds_and_do_not_run_as_root(name: str) -> None:
    linted = subprocess.run(
        [str(Path(sys.executable).parent / "hadolint"), str(ROOT / name)], capture_output=True, text=True, check=False
    )
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
    stages = re.split(r"^FROM ", (ROOT / name).read_text(), flags=re.MULTILINE)[1:]
    users: dict[str, str] = {}
    for stage in stages:
        base, _, label = stage.splitlines()[0].partition(" AS ")
        found = re.findall(r"^USER (.+)$", stage, re.MULTILINE)
        users[label] = found[-1] if found else users.get(base, "0")
        assert base in users or re.fullmatch(r"[a-z/]+:\d+\.\d+\.\d+-[a-z0-9.-]+", base), base
    finals = {"Dockerfile": ("service", "worker-cpu"), "Dockerfile.gpu": ("worker-gpu",)}[name]
    assert {users[label] for label in finals} == {"10001:10001"}


def test_targets_of_the_compose_file_are_stages_of_the_dockerfiles(services: Mapping[str, Any]) -> None:
    for name in DOCMILL:
        build = services[name]["build"]
        text = (ROOT / build["dockerfile"]).read_text()
        assert f" AS {build.get('target', 'worker-gpu')}\n" in text


@pytest.mark.slow
def test_docmill_can_be_built_from_what_the_images_are_given(tmp_path: Path) -> None:
    """The context as .dockerignore leaves it: everything out, then these names in."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    context = tmp_path / "context"
    context.mkdir()
    for name in allowed:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, context / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, context / name)
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
         "--wheel-dir", str(tmp_path), str(context)],
        capture_output=True, text=True, check=False, timeout=170,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("docmill-*.whl")
    installed = tmp_path / "installed"
    shutil.unpack_archive(wheel, installed, "zip")
    look = "import docmill.cli.commands.worker, docmill.storage.schema as schema; print(schema.head(), schema.__file__)"
    shown = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(installed)!r}); {look}"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    assert str(installed) in shown.stdout
