"""Split a document into chunks according to a plan."""

from __future__ import annotations

from collections.abc import Iterator

from docmill.producer.batch_plan import Plan
from docmill.producer.chunking.chunker import Chunk, split
from docmill.producer.chunking.token_window import EncodedText
from docmill.producer.intake.documents import Document
from docmill.producer.model_text import ModelText
from docmill.producer.prompts import RenderedPrompt
from docmill.producer.task_files import MergeStrategy, Task


def split_document(document: Document, plan: Plan, task: Task, text: ModelText) -> Iterator[Chunk]:
    """The document's chunks with their prompts, exactly as they would be submitted.

    With merge strategy refine, every chunk but the first is fitted into the refine prompt.
    """
    position = 0  # of the chunk being cut

    def render(content: EncodedText) -> RenderedPrompt:
        values = {"text": content.text, "document": document.name, "index": position + 1}
        if position and plan.merge_strategy is MergeStrategy.REFINE and task.refine is not None:
            user = task.refine.render(summary="", **values)
        else:
            user = task.chunk.render(**values)
        return text.renderer.render(plan.task.system, user, content)

    for chunk in split(
        document.open(),
        text.tokenizer,
        render,
        max_prompt_tokens=plan.max_prompt_tokens - plan.carried_tokens,
        max_chunk_tokens=plan.chunk_tokens,
        overlap_tokens=plan.overlap_tokens,
    ):
        position = chunk.index + 1
        yield chunk
