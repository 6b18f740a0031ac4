"""Gather all facts and judge them: `docmill doctor`."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from docmill.insight.checkup.machine_checks import check_machine, check_software
from docmill.insight.checkup.service_checks import check_services
from docmill.insight.checkup.service_facts import Services, read_services
from docmill.insight.checkup.software_facts import Software, read_software
from docmill.insight.findings import Finding
from docmill.settings.defaults import Settings
from docmill.sizing.machine import Machine, read_machine


@dataclass(frozen=True, slots=True)
class Checkup:
    """The facts, and the findings about them."""

    machine: Machine
    software: Software
    services: Services
    findings: tuple[Finding, ...]


def run_checkup(settings: Settings, profile: str | None) -> Checkup:
    """Read all facts and judge them. Takes seconds, because engine libraries are imported in separate processes."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        imports = pool.submit(read_software)
        machine = read_machine(settings.home)
        services = read_services(settings, profile)
        software = imports.result()
    findings = (
        *check_machine(machine),
        *check_software(software, machine),
        *check_services(services, machine),
    )
    return Checkup(machine, software, services, findings)
