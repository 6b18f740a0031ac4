"""Poor text: too much randomness, answers that repeat themselves, are cut or empty, a missing chat template."""

from __future__ import annotations

from collections.abc import Iterator

import regex

from docmill.insight.diagnosis.registry import Host, RuleSection
from docmill.insight.findings import Finding
from docmill.storage.reads.batch_evidence import Evidence

QUALITY = RuleSection("quality")
_HIGH_TEMPERATURE = 0.8
_LOOPING, _CUT, _EMPTY = 0.1, 0.6, 0.02  # shares of the answers
_REPEATED = 0.5  # an answer loops if this share of its runs of words are repetitions
_RUN_WORDS = 6  # shorter runs of words recur in normal prose
_SHORTEST_WORDS = 30  # a shorter text can hardly be told from a list
_WORD = regex.compile(r"\w+")


@QUALITY.rule
def temperature(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """The temperature is too high for a task that must keep to the text."""
    value = float(evidence.plan.get("sampling", {}).get("temperature", 0.0))
    yield QUALITY.judged(
        "temperature",
        f"the temperature is {value:g}",
        is_bad=value > _HIGH_TEMPERATURE,
        advice=(
            "too high to keep to a text: set llm.temperature to 0.2 (--preset focused), or to 0 for the same answer "
            "every time"
        ),
    )


@QUALITY.rule
def loops(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Answers that repeat the same text."""
    if not evidence.texts:
        return
    looping = sum(_share_repeated(text) >= _REPEATED for text in evidence.texts)
    yield QUALITY.judged(
        "loops",
        f"{looping} of {len(evidence.texts)} sampled answers repeat themselves",
        is_bad=looping > _LOOPING * len(evidence.texts),
        advice="set llm.repetition_penalty to 1.1 or llm.temperature to 0.2 to 0.7, or use a larger model",
    )


@QUALITY.rule
def cut_answers(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Answers that reached the maximum length."""
    if evidence.answers:
        cut = evidence.finish_reasons.get("length", 0)
        yield QUALITY.judged(
            "cut answers",
            f"{cut:,} of {evidence.answers:,} answers were cut at their maximum length (finish_reason length)",
            is_bad=cut > _CUT * evidence.answers,
            advice="raise --summary-tokens or llm.max_tokens, or ask for shorter answers in the task's prompt",
        )


@QUALITY.rule
def empty_answers(evidence: Evidence, _: Host) -> Iterator[Finding]:
    """Answers without text."""
    if evidence.answers:
        yield QUALITY.judged(
            "empty answers",
            f"{evidence.empty_texts:,} of {evidence.answers:,} answers are empty",
            is_bad=evidence.empty_texts > _EMPTY * evidence.answers,
            advice=(
                "read a prompt: the task's template may leave nothing to answer, the answer may "
                "begin with a stop string, or the model may need its chat template"
            ),
        )


@QUALITY.rule
def chat_template(evidence: Evidence, host: Host) -> Iterator[Finding]:
    """The model has no chat template, so its prompts are plain text."""
    if host.has_chat_template is not None:
        yield QUALITY.judged(
            "chat template",
            f"{evidence.model} has {'a' if host.has_chat_template else 'no'} chat template",
            is_bad=not host.has_chat_template,
            advice="use an instruction-tuned model, or add the model's template to its tokenizer_config.json",
        )


def _share_repeated(text: str) -> float:
    """The share of the text's runs of six words that occurred earlier in it, 0 to 1; 0 for a short text."""
    words = [word.lower() for word in _WORD.findall(text)]
    if len(words) < _SHORTEST_WORDS:
        return 0.0
    runs = [tuple(words[at : at + _RUN_WORDS]) for at in range(len(words) - _RUN_WORDS + 1)]
    return 1.0 - len(set(runs)) / len(runs)
