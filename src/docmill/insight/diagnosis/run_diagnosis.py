"""Read the evidence on a batch and apply every rule to it."""

from __future__ import annotations

import socket
from pathlib import Path

from docmill.catalogue.errors import CatalogueError
from docmill.insight.diagnosis.registry import Host
from docmill.insight.diagnosis.rules import SECTIONS
from docmill.insight.findings import Finding
from docmill.producer.errors import ProducerError
from docmill.producer.model_text import load_model_text
from docmill.sizing.machine import read_machine
from docmill.storage.database import Database
from docmill.storage.reads.batch_evidence import Evidence, read_evidence


def diagnose_batch(database: Database, batch_id: str, home: Path) -> tuple[Evidence, list[Finding]]:
    """The evidence on a batch, and the findings. Raises NoSuchBatch."""
    evidence = read_evidence(database, batch_id)
    return evidence, diagnose(evidence, _read_host(evidence, home))


def diagnose(evidence: Evidence, host: Host) -> list[Finding]:
    """The findings of all rules, section by section."""
    return [finding for section in SECTIONS for rule in section.rules for finding in rule(evidence, host)]


def _read_host(evidence: Evidence, home: Path) -> Host:
    machine = read_machine(home)
    ran_here = evidence.peak_worker.partition("/")[0] == socket.gethostname()
    return Host(
        cores=machine.cpu.engine_threads,
        memory_bytes=machine.memory.usable_bytes if ran_here else 0,
        vram_bytes=machine.vram_bytes if ran_here else 0,
        has_chat_template=_has_chat_template(str(evidence.plan.get("model", evidence.model)), home),
    )


def _has_chat_template(model: str, home: Path) -> bool | None:
    try:
        text = load_model_text(model, home)
    except (CatalogueError, ProducerError):
        return None
    return text.tokenizer.vocabulary.chat_template is not None
