"""New jobs: a prompt as the model will read it, with everything a worker needs to run it."""

from __future__ import annotations

from collections.abc import Sequence

from docmill.producer.batch_plan import Plan
from docmill.producer.chunking.chunker import Chunk
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import RenderedPrompt
from docmill.producer.task_files import MergeStrategy
from docmill.storage.moves.new_jobs import NewJob
from docmill.storage.moves.reuse import reuse_key_of


def chunk_jobs(plan: Plan, text: ModelText, chunks: Sequence[Chunk], *, priority: int) -> list[NewJob]:
    """The first level: one job for each chunk. With merge strategy refine, only the first chunk gets one yet."""
    return [
        new_job(
            plan, text, chunk.prompt, level=0, position=chunk.index, inputs=(chunk.index, chunk.index),
            max_tokens=plan.output_reserve, priority=priority,
        )
        for chunk in chunks
        if chunk.index == 0 or plan.merge_strategy is not MergeStrategy.REFINE
    ]  # fmt: skip


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
    """A job at `position` of a level. `inputs` are the first and last chunk (level 0) or answer that it reads."""
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
        # Later levels run first, so that documents finish one after the other and not all at the end.
        priority=max(0, priority - 1) if level else priority,
        reuse_key=(
            reuse_key_of(text.fingerprint, prompt.ids, sampling, stops) if plan.sampling.is_deterministic else None
        ),
    )
