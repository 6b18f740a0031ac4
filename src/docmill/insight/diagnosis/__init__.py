"""Why a batch was slow, ran out of memory or wrote badly: `docmill doctor --batch`.

The user's troubleshooting table made live, a row of it a module. A rule is a pure function from the evidence to
findings: the numbers that show it, and the setting to change. It passes with its numbers, too.
"""

from __future__ import annotations

from docmill.insight.diagnosis.rule_input import Rule, Surroundings
from docmill.insight.diagnosis.rules.latency import occupancy, queue_wait, unused_window
from docmill.insight.diagnosis.rules.memory import ended_for_memory, near_its_limit
from docmill.insight.diagnosis.rules.processor import busy_worker, one_thread, slow_database, slow_intake
from docmill.insight.diagnosis.rules.quality import chat_template, cut_answers, empty_answers, loops, temperature
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

RULES: tuple[Rule, ...] = (
    queue_wait,
    unused_window,
    occupancy,
    ended_for_memory,
    near_its_limit,
    temperature,
    loops,
    cut_answers,
    empty_answers,
    chat_template,
    one_thread,
    busy_worker,
    slow_database,
    slow_intake,
)


def diagnose(evidence: Evidence, around: Surroundings) -> list[Finding]:
    """Every rule's findings, in the order of the table: latency, memory, quality, processor."""
    return [finding for rule in RULES for finding in rule(evidence, around)]
