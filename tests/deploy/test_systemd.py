"""The systemd units, as systemd itself reads them where it is there."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from docmill.cli.main import cli
from docmill.settings.defaults import Worker
from docmill.settings.load import load_settings
from tests.deploy.test_compose import parse

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"
SERVICES = sorted(path.name for path in UNITS.glob("*.service"))


class _Unit(configparser.RawConfigParser):
    """A unit file; of a key that is set twice, the last counts."""

    def __init__(self, name: str) -> None:
        super().__init__(strict=False, interpolation=None)
        self.optionxform = str  # type: ignore[assignment, method-assign]
        self.read(UNITS / name)


def test_there_is_a_unit_for_every_service_of_a_cluster() -> None:
    assert SERVICES == [
        "docmill-dispatcher.service", "docmill-flower.service", "docmill-migrate.service", "docmill-worker@.service",
    ]  # fmt: skip


def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze on this machine")
    program = tmp_path / "docmill"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    for name in SERVICES:  # it looks for the programs and pages that units name
        text = (UNITS / name).read_text().replace("/opt/docmill/bin/docmill", str(program))
        (tmp_path / name.replace("@", "@llm")).write_text(text)
    for unit in sorted(tmp_path.glob("*.service")):
        done = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False,
            env={"SYSTEMD_UNIT_PATH": f"{tmp_path}:", "PATH": "/usr/bin:/bin"},
        )  # fmt: skip
        ours = [line for line in done.stderr.splitlines() if "docmill" in line]
        assert (done.returncode, ours) == (0, [])


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_starts_a_command_that_docmill_has(name: str) -> None:
    program, *arguments = shlex.split(_Unit(name)["Service"]["ExecStart"].replace("%i", "llm"))
    assert program == "/opt/docmill/bin/docmill"
    parse(cli, arguments)


@pytest.mark.parametrize("name", SERVICES)
def test_a_unit_gives_its_service_no_rights_that_it_does_not_need(name: str) -> None:
    service = _Unit(name)["Service"]
    assert service["User"] == "docmill"
    assert service["CapabilityBoundingSet"] == ""
    assert service["ProtectSystem"] == "strict"
    for key in ("NoNewPrivileges", "ProtectHome", "PrivateTmp", "RestrictNamespaces", "RestrictSUIDSGID"):
        assert service[key] == "yes", key
    assert ("PrivateDevices" in service) == (name != "docmill-worker@.service")  # GPUs are devices
    assert service["LimitCORE"] == "0"  # a core file would hold passwords and documents


def test_a_worker_is_stopped_so_that_it_can_put_its_jobs_back() -> None:
    service = _Unit("docmill-worker@.service")["Service"]
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > float(Worker().drain_timeout_s) + 20
    assert service["Restart"] == "always"


def test_docmill_takes_every_variable_of_the_environment_file() -> None:
    lines = (UNITS / "docmill.env.example").read_text().splitlines()
    variables = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    config = variables.pop("DOCMILL_CONFIG")
    assert config == "/etc/docmill/config.yaml"
    settings = load_settings(environment=variables)
    assert settings.broker.url is not None
    assert settings.broker.url.startswith("rediss://")
    assert "sslmode=verify-full" in str(settings.storage.url)
