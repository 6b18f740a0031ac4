"""Carry out the next step of a document whose level has ended: store another level, its end or its failure.

`docmill.producer.merge_levels` decides what that step is and packs answers into jobs.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from docmill.catalogue.errors import CatalogueError
from docmill.formatting import counted
from docmill.producer.batch_plan import SPARE_TOKENS, Plan
from docmill.producer.errors import NoRoomForText, ProducerError
from docmill.producer.jobs import new_job
from docmill.producer.merge_levels import Done, GiveUp, NextChunk, NextLevel, decide
from docmill.producer.model_text import ModelText, load_model_text
from docmill.producer.prompts import RenderedPrompt
from docmill.producer.task_files import Task
from docmill.storage.errors import StorageError
from docmill.storage.moves.documents import Documents, EndedLevel
from docmill.storage.moves.new_jobs import NewJob

log = logging.getLogger(__name__)

Render = Callable[[str], RenderedPrompt]


class MergeRunner:
    """Plans and stores what follows an ended level. Each model's tokenizer is loaded once and kept."""

    def __init__(self, documents: Documents, home: Path) -> None:
        self._documents = documents
        self._home = home
        self._texts: dict[str, ModelText] = {}

    def advance(self, ended: EndedLevel) -> None:
        """Take one document to its next level or its end. An error in its planning fails this document only.

        Raises errors that are not the document's fault: StorageError, OSError, MemoryError.
        """
        store_step = self._next_step(ended)
        store_step()

    def _next_step(self, ended: EndedLevel) -> Callable[[], bool]:
        if ended.failed_jobs:
            failure = self._documents.first_failure(ended.document_id)
            return self._fail(ended, f"{counted(ended.failed_jobs, 'job')} failed; the first: {failure}")
        try:
            plan = Plan.from_json(ended.plan)
            return self._planned(_Document(ended, plan, plan.checked_task(), self._model_text(plan.model)))
        except (ProducerError, CatalogueError) as error:
            reason = str(error)
        except (StorageError, OSError, MemoryError):
            raise
        except Exception as error:
            log.exception("unexpected error while planning %s of batch %s", ended.name, ended.batch_id)
            reason = f"{type(error).__name__}: {error}"
        return self._fail(ended, f"level {ended.level + 1} could not be planned: {reason}")

    def _planned(self, document: _Document) -> Callable[[], bool]:
        ended, plan, text = document.ended, document.plan, document.text
        results = self._documents.results(ended.document_id, ended.level)
        decision = decide(
            ended.level,
            ended.chunk_count,
            results,
            plan,
            room_tokens=plan.max_prompt_tokens - len(document.render_merge("").ids) - SPARE_TOKENS,
            count=text.tokenizer.count,
            cut=text.cut,
        )
        match decision:
            case Done(summary):
                is_stored = len(results) == 1 and summary == results[0].text
                return partial(
                    self._documents.finish, ended,
                    text=None if is_stored else summary, has_one_result=summary is not None,
                )  # fmt: skip
            case NextLevel(groups, max_tokens, remark):
                made = [
                    document.job(group.text, document.render_merge, position, (group.first, group.last), max_tokens)
                    for position, group in enumerate(groups)
                ]
                cuts = sum(was_cut for _, was_cut in made)
                remark = remark or (f"{cuts} groups of answers were cut to fit their prompts" if cuts else None)
                return self._begin_level(ended, [job for job, _ in made], remark)
            case NextChunk(position, summary):
                render = document.refine_renderer(self._documents.chunk_text(ended.document_id, position), position)
                job, was_cut = document.job(summary, render, 0, (0, 0), plan.output_tokens(1))
                remark = f"the summary carried to part {position + 1} was cut to fit its prompt" if was_cut else None
                return self._begin_level(ended, [job], remark)
            case GiveUp(reason):
                return self._fail(ended, reason)

    def _begin_level(self, ended: EndedLevel, jobs: list[NewJob], remark: str | None) -> Callable[[], bool]:
        return partial(self._documents.begin_level, ended, jobs, remark=remark)

    def _fail(self, ended: EndedLevel, reason: str) -> Callable[[], bool]:
        return partial(self._documents.fail, ended, reason)

    def _model_text(self, model: str) -> ModelText:
        if model not in self._texts:
            self._texts[model] = load_model_text(model, self._home)
        return self._texts[model]


@dataclass(frozen=True, slots=True)
class _Document:
    """A document with everything its next level is planned with."""

    ended: EndedLevel
    plan: Plan
    task: Task
    text: ModelText

    def render_merge(self, joined: str) -> RenderedPrompt:
        """The merge prompt for joined answers."""
        return self._render(self.task.merge.render(text=joined, document=self.ended.name, level=self.ended.level + 1))

    def refine_renderer(self, chunk: str, position: int) -> Render:
        """Renders the refine prompt of a chunk with the summary carried to it."""
        template = self.task.refine
        if template is None:
            raise ProducerError(f"the task {self.plan.task.name} has no refine prompt")
        return lambda summary: self._render(
            template.render(text=chunk, summary=summary, document=self.ended.name, index=position + 1)
        )

    def job(
        self, content: str, render: Render, position: int, inputs: tuple[int, int], max_tokens: int
    ) -> tuple[NewJob, bool]:
        """A job of the next level, its content shortened until its prompt fits, and whether that was needed.

        A rendered prompt can be longer than its parts counted apart, and a text longer than the tokens it was
        generated as.
        """
        limit = self.plan.max_prompt_tokens
        prompt, was_cut = render(content), False
        while len(prompt.ids) > limit:
            room = self.text.tokenizer.count(content) - (len(prompt.ids) - limit)
            if room < 1:
                raise NoRoomForText(needed=len(prompt.ids), limit=limit)
            content = self.text.cut(content, room)
            prompt, was_cut = render(content), True
        job = new_job(
            self.plan, self.text, prompt, level=self.ended.level + 1, position=position, inputs=inputs,
            max_tokens=max_tokens, priority=self.ended.priority,
        )  # fmt: skip
        return job, was_cut

    def _render(self, user: str) -> RenderedPrompt:
        return self.text.renderer.render(self.task.file.system, user)
