"""A model's tokenizer and chat template, without its weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from docmill.catalogue.chat_templates import template_for, without_thinking
from docmill.catalogue.find_model import find_model
from docmill.catalogue.fingerprint import model_fingerprint
from docmill.catalogue.local_model import Model, architecture_of
from docmill.producer.prompts import PromptRenderer
from docmill.producer.tokenizer import ModelTokenizer, load_tokenizer


@dataclass(frozen=True, slots=True)
class ModelText:
    """Everything the producer needs of a model. `fingerprint` identifies its weights."""

    model: Model
    tokenizer: ModelTokenizer
    renderer: PromptRenderer
    fingerprint: str

    def cut(self, text: str, tokens: int) -> str:
        """The longest beginning of the text that is at most `tokens` long."""
        keep = tokens
        while keep > 0:
            _, offsets = self.tokenizer.encode_with_offsets(text)
            if len(offsets) <= tokens:
                return text
            text = text[: offsets[keep - 1][1]]
            if self.tokenizer.count(text) <= tokens:
                return text
            keep -= 1
        return ""


def load_model_text(name_or_path: str, home: Path) -> ModelText:
    """Find the model, without downloading it, and read its vocabulary. Raises CatalogueError or ProducerError."""
    model = find_model(name_or_path, home)
    tokenizer = load_tokenizer(model, home)
    tokenizer.vocabulary = replace(tokenizer.vocabulary, chat_template=_chat_template(model, tokenizer))
    return ModelText(model, tokenizer, PromptRenderer(tokenizer), model_fingerprint(model))


def _chat_template(model: Model, tokenizer: ModelTokenizer) -> str | None:
    """The model's own template, or else that of its catalogue entry or family. None: prompts are plain text."""
    own = tokenizer.vocabulary.chat_template
    template = own if own is not None else template_for(model.name, architecture_of(model))
    return without_thinking(template) if template is not None else None
