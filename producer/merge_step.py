"""Take a document whose level has ended one step on: plan and queue its next level, finish it or fail it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from docmill.catalogue.errors import CatalogueError
from docmill.producer.batch_plan import Plan
from docmill.producer.errors import NoRoomForText, ProducerError
from docmill.producer.merge_levels import Done, GiveUp, Group, NextChunk, NextLevel, decide
from docmill.producer.model_text import ModelText, load_model_text
from docmill.producer.prompts import RenderedPrompt
from docmill.producer.tasks import MergeStrategy, Task
from docmill.storage.errors import StorageError
from docmill.storage.moves.documents import EndedLevel, Levels
from docmill.storage.moves.new_jobs import NewJob
from docmill.storage.moves.reuse import reuse_key_of

log = logging.getLogger(__name__)
SPARE_TOKENS = 2  # joining texts may add a token or two at the seams


@dataclass(frozen=True, slots=True)
class _Finish:
    """`text` None: the one result's is the document's."""

    text: str | None
    has_one_result: bool


@dataclass(frozen=True, slots=True)
class _Begin:
    jobs: list[NewJob]
    remark: str | None


class Advancer:
    """The dispatcher's planner. Tokenizers are loaded once a model and kept."""

    def __init__(self, levels: Levels, home: Path) -> None:
        self._levels = levels
        self._home = home
        self._texts: dict[str, ModelText] = {}

    def advance(self, ended: EndedLevel) -> None:
        """Do the next step of one document. What goes wrong with planning it fails it, and nothing else.

        Raises what is no fault of the document's: StorageError, OSError, MemoryError.
        """
        match self._next_step(ended):
            case _Finish(text, has_one_result):
                self._levels.finish(ended, text=text, has_one_result=has_one_result)
            case _Begin(jobs, remark):
                self._levels.begin_level(ended, jobs, remark=remark)
            case GiveUp(reason):
                self._levels.fail(ended, reason)

    def _next_step(self, ended: EndedLevel) -> _Finish | _Begin | GiveUp:
        if ended.failed_jobs:
            return GiveUp(self._failure(ended))
        try:
            plan = Plan.from_json(ended.plan)
            return self._planned(ended, plan, plan.checked_task(), self._model_text(plan.model))
        except (ProducerError, CatalogueError) as error:
            reason = str(error)
        except (StorageError, OSError, MemoryError):
            raise
        except Exception as error:
            log.exception("%s of batch %s could not be planned, which should not be", ended.name, ended.batch_id)
            reason = f"{type(error).__name__}: {error}"
        return GiveUp(f"level {ended.level + 1} could not be planned: {reason}")

    def _planned(self, ended: EndedLevel, plan: Plan, task: Task, text: ModelText) -> _Finish | _Begin | GiveUp:
        results = self._levels.results(ended.document_id, ended.level)
        render_merge = _merge_renderer(task, text, ended)
        decision = decide(
            ended.level,
            ended.chunk_count,
            results,
            plan,
            room_tokens=plan.max_prompt_tokens - len(render_merge("").ids) - SPARE_TOKENS,
            count=text.tokenizer.count,
            cut=text.cut,
        )
        match decision:
            case Done(summary):
                as_written = summary is not None and len(results) == 1 and summary == results[0].text
                return _Finish(None if as_written else summary, plan.merge_strategy is not MergeStrategy.NONE)
            case NextLevel(groups, max_tokens, remark):
                made = [
                    _merge_job(position, group, max_tokens, plan, text, render_merge, ended)
                    for position, group in enumerate(groups)
                ]
                cuts = sum(was_cut for _, was_cut in made)
                remark = remark or (f"{cuts} groups of answers were cut to fit their prompts" if cuts else None)
                return _Begin([job for job, _ in made], remark)
            case NextChunk(position, summary):
                job, was_cut = self._refine_job(position, summary, plan, task, text, ended)
                remark = f"the summary carried to part {position + 1} was cut to fit its prompt" if was_cut else None
                return _Begin([job], remark)
            case GiveUp():
                return decision

    def _refine_job(
        self, position: int, summary: str, plan: Plan, task: Task, text: ModelText, ended: EndedLevel
    ) -> tuple[NewJob, bool]:
        if task.refine is None:
            raise ProducerError(f"the task {plan.task.name} has no refine prompt")
        template = task.refine
        chunk = self._levels.chunk_text(ended.document_id, position)

        def render(carried: str) -> RenderedPrompt:
            user = template.render(text=chunk, summary=carried, document=ended.name, index=position + 1)
            return text.renderer.render(plan.task.system, user)

        prompt, was_cut = _fitting(summary, plan.max_prompt_tokens, render, text)
        job = new_job(
            plan, text, prompt, level=ended.level + 1, position=0, inputs=(0, 0),
            max_tokens=plan.output_tokens(1), priority=ended.priority,
        )  # fmt: skip
        return job, was_cut

    def _failure(self, ended: EndedLevel) -> str:
        return f"{ended.failed_jobs} jobs failed; the first: {self._levels.first_failure(ended.document_id)}"

    def _model_text(self, model: str) -> ModelText:
        if model not in self._texts:
            self._texts[model] = load_model_text(model, self._home)
        return self._texts[model]


def new_job(
    plan: Plan,
    text: ModelText,
    prompt: RenderedPrompt,
    *,
    level: int,
    position: int,
    inputs: tuple[int, int],
    max_tokens: int,
    priority: int,
) -> NewJob:
    """A job of this batch, its prompt as the model will read it."""
    sampling, stops = plan.sampling.to_json(), text.tokenizer.eos_ids
    return NewJob(
        level=level,
        position=position,
        first_input=inputs[0],
        last_input=inputs[1],
        prompt_ids=prompt.ids,
        max_tokens=max_tokens,
        sampling=sampling,
        stop_token_ids=stops,
        # Later levels go first: documents finish one after the other, not all at the end.
        priority=max(0, priority - 1) if level else priority,
        reuse_key=(
            reuse_key_of(text.fingerprint, prompt.ids, sampling, stops) if plan.sampling.is_deterministic else None
        ),
    )


def _merge_renderer(task: Task, text: ModelText, ended: EndedLevel) -> Callable[[str], RenderedPrompt]:
    def render(joined: str) -> RenderedPrompt:
        user = task.merge.render(text=joined, document=ended.name, level=ended.level + 1)
        return text.renderer.render(task.file.system, user)

    return render


def _merge_job(
    position: int,
    group: Group,
    max_tokens: int,
    plan: Plan,
    text: ModelText,
    render: Callable[[str], RenderedPrompt],
    ended: EndedLevel,
) -> tuple[NewJob, bool]:
    prompt, was_cut = _fitting(group.text, plan.max_prompt_tokens, render, text)
    job = new_job(
        plan, text, prompt, level=ended.level + 1, position=position, inputs=(group.first, group.last),
        max_tokens=max_tokens, priority=ended.priority,
    )  # fmt: skip
    return job, was_cut


def _fitting(
    content: str, limit: int, render: Callable[[str], RenderedPrompt], text: ModelText
) -> tuple[RenderedPrompt, bool]:
    """The rendered prompt, its content shortened until it fits, and whether that was needed.

    A count of parts may differ from the whole's, and a text from the tokens that wrote it.
    """
    prompt, was_cut = render(content), False
    while len(prompt.ids) > limit:
        room = text.tokenizer.count(content) - (len(prompt.ids) - limit)
        if room < 1:
            raise NoRoomForText(needed=len(prompt.ids), limit=limit)
        content = text.cut(content, room)
        prompt, was_cut = render(content), True
    return prompt, was_cut
