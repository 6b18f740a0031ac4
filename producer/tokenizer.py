"""A model's own tokenizer for exact counts, from a model directory or a GGUF's vocabulary, without the weights.

Text is always encoded with special tokens disabled: `<|im_end|>` in a document is text.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Encoding, Tokenizer

from docmill.catalogue.fingerprint import quick_fingerprint
from docmill.catalogue.gguf_file import GgufHeader, read_header
from docmill.catalogue.local_model import Model, ModelKind
from docmill.producer.chunking.token_window import splits_at_words
from docmill.producer.errors import TokenizerUnsupported
from docmill.producer.gguf_tokenizer import USER_DEFINED, build_tokenizer

_CONTROL = 3
_CACHE_VERSION = 2
# A chat model ends its turn with a token that some files do not list as an end token.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>")
_MARK = re.compile(r"<.+>|\[.+\]")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Special tokens and chat template of a model. `eos_ids` are all tokens that end a text."""

    special_ids: Mapping[str, int]
    bos_id: int | None
    add_bos: bool
    eos_ids: tuple[int, ...]
    chat_template: str | None
    bos_token: str = ""
    eos_token: str = ""


class ModelTokenizer:
    """Counts and encodes text exactly as the model reads it."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: Vocabulary) -> None:
        tokenizer.no_padding()
        tokenizer.no_truncation()
        added = {token.content for token in tokenizer.get_added_tokens_decoder().values() if not token.special}
        tokenizer.add_special_tokens([token for token in vocabulary.special_ids if token in added])
        tokenizer.encode_special_tokens = True  # special tokens in a text are encoded as the text they are
        self._tokenizer = tokenizer
        self.vocabulary = vocabulary
        self.splits_at_words = splits_at_words(tokenizer)  # see docmill.producer.chunking.token_window

    @property
    def eos_ids(self) -> tuple[int, ...]:
        """All tokens that end a text."""
        return self.vocabulary.eos_ids

    def encode(self, text: str) -> list[int]:
        """The text's token ids."""
        ids: list[int] = self._fast(text).ids
        return ids

    def count(self, text: str) -> int:
        """The length of the text in tokens."""
        return len(self._fast(text))

    def _fast(self, text: str) -> Encoding:
        return self._tokenizer.encode_batch_fast([text], add_special_tokens=False)[0]  # without offsets

    def encode_with_offsets(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """The ids, each with the span of characters that it covers."""
        encoding = self._tokenizer.encode(text, add_special_tokens=False)
        return encoding.ids, encoding.offsets

    def pieces(self, text: str) -> list[str]:
        """The text of each token. Tokens that share a character are shown by their names in the vocabulary."""
        ids, offsets = self.encode_with_offsets(text)
        names = [self._tokenizer.id_to_token(i) or "" for i in ids]
        seen_to = 0
        pieces: list[str] = []
        for (start, end), name in zip(offsets, names, strict=True):
            shared = start < seen_to or (start == end)
            pieces.append(name if shared else text[start:end])
            seen_to = max(seen_to, end)
        return pieces

    def decode(self, ids: Sequence[int]) -> str:
        """The text of token ids, without special tokens."""
        text: str = self._tokenizer.decode(list(ids), skip_special_tokens=True)
        return text


def load_tokenizer(model: Model, home: Path) -> ModelTokenizer:
    """The tokenizer of a model. That of a GGUF is cached under `home` by the file's content. Raises ProducerError."""
    if model.kind is ModelKind.DIRECTORY:
        return _from_directory(model)
    return _from_gguf(model, home)


def _from_gguf(model: Model, home: Path) -> ModelTokenizer:
    cached = home / "cache" / f"tokenizer-{_CACHE_VERSION}-{quick_fingerprint(model.path)}.json"
    try:
        content = json.loads(cached.read_text("utf-8"))
    except (OSError, ValueError):  # missing or damaged
        content = _build(model)
        with suppress(OSError):  # disk full: it is built again next time
            _keep(cached, json.dumps(content))
    vocabulary = content["vocabulary"] | {"eos_ids": tuple(content["vocabulary"]["eos_ids"])}
    return ModelTokenizer(Tokenizer.from_str(content["tokenizer"]), Vocabulary(**vocabulary))


def _keep(path: Path, content: str) -> None:
    """Write a file atomically, also with other threads and processes writing it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        part.write_text(content, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _build(model: Model) -> dict[str, Any]:
    header = read_header(model.path)
    return {"tokenizer": build_tokenizer(header, model.name).to_str(), "vocabulary": _gguf_vocabulary(header)}


def _gguf_vocabulary(header: GgufHeader) -> dict[str, Any]:
    def token(i: int | None) -> str:
        return "" if i is None else header.tokens[i]

    control = {
        name: i
        for i, (name, kind) in enumerate(zip(header.tokens, header.token_types, strict=True))
        if kind == _CONTROL or (kind == USER_DEFINED and _separates_turns(name, header.chat_template))
    }
    eos_ids = [*header.eos_ids, *(control[name] for name in _TURN_ENDS if name in control)]
    return {
        "special_ids": control,
        "bos_id": header.bos_id,
        "add_bos": header.add_bos,
        "eos_ids": list(dict.fromkeys(eos_ids)),
        "chat_template": header.chat_template,
        "bos_token": token(header.bos_id),
        "eos_token": token(header.eos_ids[0] if header.eos_ids else None),
    }


def _from_directory(model: Model) -> ModelTokenizer:
    path = model.path / "tokenizer.json"
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise TokenizerUnsupported(model.name, f"{path} cannot be read: {error}") from error
    config = _json(model, "tokenizer_config.json")
    generation = _json(model, "generation_config.json")
    bos, eos = _token_text(config.get("bos_token")), _token_text(config.get("eos_token"))
    template = _chat_template(model, config)
    specials = {
        added.content: i
        for i, added in tokenizer.get_added_tokens_decoder().items()
        if added.special or _separates_turns(added.content, template)
    }
    listed = generation.get("eos_token_id", _json(model, "config.json").get("eos_token_id"))
    eos_ids = [listed] if isinstance(listed, int) else list(listed or [])
    eos_ids += [specials[name] for name in (eos, *_TURN_ENDS) if name in specials]
    vocabulary = Vocabulary(
        special_ids=specials,
        bos_id=specials.get(bos),
        add_bos=bool(config.get("add_bos_token", False)),
        eos_ids=tuple(dict.fromkeys(eos_ids)),
        chat_template=template,
        bos_token=bos,
        eos_token=eos,
    )
    return ModelTokenizer(tokenizer, vocabulary)


def _separates_turns(token: str, template: str | None) -> bool:
    """True for a token that separates the turns of a conversation, even if the model does not list it as special."""
    return token in _TURN_ENDS or (_MARK.fullmatch(token) is not None and token in (template or ""))


def _chat_template(model: Model, config: Mapping[str, Any]) -> str | None:
    file = model.path / "chat_template.jinja"
    template = file.read_text("utf-8") if file.is_file() else config.get("chat_template")
    if isinstance(template, list):  # several named templates
        template = next((t["template"] for t in template if t.get("name") == "default"), None)
    return template


def _json(model: Model, name: str) -> dict[str, Any]:
    path = model.path / name
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise TokenizerUnsupported(model.name, f"{path} cannot be read: {error}") from error
    return content if isinstance(content, dict) else {}


def _token_text(token: Any) -> str:
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")
