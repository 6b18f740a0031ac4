"""Poor quality: too much chance, answers that loop, end too early or are empty, a model not spoken to in its form."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.insight.diagnosis.rule_input import Surroundings, judged
from docmill.insight.findings import Finding
from docmill.insight.repetition import share_repeated
from docmill.storage.reads.batch_evidence import Evidence

_SECTION = "quality"
_HOT = 0.8
_LOOPING_ANSWERS, _REPEATED = 0.1, 0.5  # share of answers that loop, share of such an answer that is repetition
_CUT = 0.6  # share of answers
_EMPTY = 0.02  # share of answers


def temperature(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Too much chance for a task that shall keep to the text."""
    value = float(evidence.plan.get("sampling", {}).get("temperature", 0.0))
    yield judged(
        _SECTION,
        "temperature",
        f"temperature {value:g}",
        is_bad=value > _HOT,
        advice=(
            "too high for keeping to a text: llm.temperature: 0.2 (--preset focused), or 0 for the same answer each "
            "time"
        ),
    )


def loops(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Answers that say the same again and again."""
    if not evidence.texts:
        return
    looping = sum(share_repeated(text) >= _REPEATED for text in evidence.texts)
    yield judged(
        _SECTION,
        "loops",
        f"{looping} of {len(evidence.texts)} answers looked at repeat themselves",
        is_bad=looping > _LOOPING_ANSWERS * len(evidence.texts),
        advice=(
            "llm.repetition_penalty: 1.1, or a little temperature (0.2 to 0.7); a very small model may need a larger "
            "one in its place"
        ),
    )


def cut_answers(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Answers that ended because they might be no longer."""
    answers, cut = _answers(evidence), evidence.finish_reasons.get("length", 0)
    if answers:
        yield judged(
            _SECTION,
            "cut answers",
            f"{cut:,} of {answers:,} answers ended at their longest (finish_reason length)",
            is_bad=cut > _CUT * answers,
            advice="a larger --summary-tokens or llm.max_tokens, or ask for less in the task's prompt",
        )


def empty_answers(evidence: Evidence, _: Surroundings) -> Iterator[Finding]:
    """Answers without a word."""
    answers = _answers(evidence)
    if answers:
        yield judged(
            _SECTION,
            "empty answers",
            f"{evidence.empty_texts:,} of {answers:,} answers are empty",
            is_bad=evidence.empty_texts > _EMPTY * answers,
            advice=(
                "look at a prompt: the task's template may leave nothing to answer, a stop string may stand at the "
                "beginning, or the model may want its chat template"
            ),
        )


def chat_template(evidence: Evidence, around: Surroundings) -> Iterator[Finding]:
    """An instruction model that is not spoken to in its own form."""
    if around.has_template is None:
        return
    has = "has one" if around.has_template else "has none: its prompts are bare text"
    yield judged(
        _SECTION,
        "chat template",
        f"{evidence.model} {has}",
        is_bad=not around.has_template,
        advice="use an instruction-tuned model, or put the model's template into its tokenizer_config.json",
    )


def _answers(evidence: Evidence) -> int:
    return sum(evidence.finish_reasons.values())
