"""Gather what the rules are given, and judge it."""

from __future__ import annotations

import socket
from pathlib import Path

from docmill.catalogue.errors import CatalogueError
from docmill.insight.diagnosis import diagnose
from docmill.insight.diagnosis.rule_input import Surroundings
from docmill.insight.findings import Finding
from docmill.producer.errors import ProducerError
from docmill.producer.model_text import load_model_text
from docmill.sizing.machine import read_machine
from docmill.storage.database import Database
from docmill.storage.reads.batch_evidence import Evidence, evidence_of


def look_at_batch(database: Database, batch_id: str, home: Path) -> tuple[Evidence, list[Finding]]:
    """The evidence of a batch, and what it comes to. Raises NoSuchBatch."""
    evidence = evidence_of(database, batch_id)
    return evidence, diagnose(evidence, _surroundings(evidence, home))


def _surroundings(evidence: Evidence, home: Path) -> Surroundings:
    machine = read_machine(home)
    ran_here = evidence.peak_worker.partition("/")[0] == socket.gethostname()
    return Surroundings(
        cores=machine.cpu.engine_threads,
        memory_bytes=machine.memory.usable_bytes if ran_here else 0,
        vram_bytes=machine.vram_bytes if ran_here else 0,
        has_template=_has_template(str(evidence.plan.get("model", evidence.model)), home),
    )


def _has_template(model: str, home: Path) -> bool | None:
    try:
        text = load_model_text(model, home)
    except (CatalogueError, ProducerError):
        return None
    return text.tokenizer.vocabulary.chat_template is not None
