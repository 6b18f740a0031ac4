"""Render a system prompt and a user prompt to the token ids that the model reads, with its own chat template.

The rendered template is split at the special tokens that the *template* wrote. Everything between them, including the
document's text, is encoded with special tokens disabled. So a document cannot end its own turn, and for text without
special tokens the ids are those of the whole string encoded at once.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from jinja2 import Environment, StrictUndefined, TemplateError, meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from docmill.producer.chunking.token_window import EncodedText, encode_around
from docmill.producer.errors import TemplateInvalid, UnknownTemplateVariable
from docmill.producer.tokenizer import ModelTokenizer

Message = dict[str, str]
_CHAT_TEMPLATE = "the model's chat template"
_EDGE = "\x0b"  # white space that no template contains
_SAMPLE = "\"a' <b> & {{c}} \\n\u00e9"  # characters that an escaping template would change
_TEMPLATE_ERRORS = (
    TemplateError, ArithmeticError, AttributeError, LookupError, MemoryError, RecursionError, TypeError, ValueError,
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as token ids and as text."""

    ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class _Slot:
    """A place where a template inserts a text, and the sides on which it strips that text."""

    text: int
    strips_left: bool
    strips_right: bool

    def fill(self, text: str) -> str:
        text = text.lstrip() if self.strips_left else text
        return text.rstrip() if self.strips_right else text


_Layout = list[str | _Slot]  # a rendered template: its own text, and slots for other texts


class PromptRenderer:
    """Renders the prompts of one model. Its chat template runs in a sandbox, once per kind of prompt."""

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._special_ids = tokenizer.vocabulary.special_ids
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._layouts: dict[bool, _Layout] = {}

    def render(self, system: str | None, user: str, known: EncodedText | None = None) -> RenderedPrompt:
        """The prompt of one turn, up to the beginning of the model's answer. Raises TemplateInvalid.

        `known` is a part of the texts that is already encoded and is not encoded again.
        """
        has_system = bool(system)
        if has_system not in self._layouts:
            self._layouts[has_system] = self._layout(has_system=has_system)
        return self._encode(self._layouts[has_system], (system or "", user), known)

    def _layout(self, *, has_system: bool) -> _Layout:
        """Render the template with marks in place of the texts; white space around them shows where it strips."""
        marks = [secrets.token_hex(16) for _ in range(2)]
        system, user = (f"{_EDGE}{mark}{_EDGE}" for mark in marks)
        rendered = self._apply(system if has_system else "", user)
        layout: _Layout = []
        for piece in re.split(f"({_EDGE}?(?:{'|'.join(marks)}){_EDGE}?)", rendered):
            bare = piece.strip(_EDGE)
            if bare in marks:
                layout.append(_Slot(marks.index(bare), not piece.startswith(_EDGE), not piece.endswith(_EDGE)))
            else:
                layout.append(piece)
        found = sorted(part.text for part in layout if isinstance(part, _Slot))
        samples = (_SAMPLE if has_system else "", _SAMPLE[::-1])
        if found != ([0, 1] if has_system else [1]) or self._apply(*samples) != _filled(layout, samples):
            raise TemplateInvalid(_CHAT_TEMPLATE, "it does not insert each text once and unchanged")
        return layout

    def _apply(self, system: str, user: str) -> str:
        if self._chat_template is None:
            return "\n\n".join(part for part in (system, user) if part)
        if system:
            with suppress(TemplateInvalid):
                rendered = self._render_messages(({"role": "system", "content": system}, _user(user)))
                if system.strip() in rendered:
                    return rendered
            user = f"{system}\n\n{user}"  # a template without a system role, such as Gemma's
        return self._render_messages((_user(user),))

    def _render_messages(self, messages: Sequence[Message]) -> str:
        vocabulary = self._tokenizer.vocabulary
        try:
            rendered: str = self._chat_template.render(
                messages=list(messages),
                add_generation_prompt=True,
                bos_token=vocabulary.bos_token,
                eos_token=vocabulary.eos_token,
                tools=None,
                documents=None,
            )
        except _TEMPLATE_ERRORS as error:
            raise TemplateInvalid(_CHAT_TEMPLATE, str(error)) from error
        return rendered

    @cached_property
    def _chat_template(self) -> Any:
        source = self._tokenizer.vocabulary.chat_template
        if source is None:
            return None
        environment = _sandbox()
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda form: datetime.now().astimezone().strftime(form)
        try:
            return environment.from_string(source)
        except TemplateError as error:
            raise TemplateInvalid(_CHAT_TEMPLATE, str(error)) from error

    def _encode(self, layout: _Layout, texts: Sequence[str], known: EncodedText | None) -> RenderedPrompt:
        """Replace the template's special tokens by their ids; encode each text between them in one call."""
        ids: list[int] = []
        run = ""
        for part in layout:
            if isinstance(part, _Slot):
                run += part.fill(texts[part.text])
                continue
            end = 0
            for found in self._special.finditer(part):
                ids += encode_around(run + part[end : found.start()], known, self._tokenizer)
                ids.append(self._special_ids[found.group()])
                run, end = "", found.end()
            run += part[end:]
        ids += encode_around(run, known, self._tokenizer)
        vocabulary = self._tokenizer.vocabulary
        if vocabulary.add_bos and vocabulary.bos_id is not None and ids[:1] != [vocabulary.bos_id]:
            ids.insert(0, vocabulary.bos_id)
        return RenderedPrompt(ids, _filled(layout, texts))


def _filled(layout: _Layout, texts: Sequence[str]) -> str:
    return "".join(part.fill(texts[part.text]) if isinstance(part, _Slot) else part for part in layout)


class TaskTemplate:
    """A prompt template of a task: sandboxed Jinja with a fixed set of variables."""

    def __init__(self, source: str, allowed: frozenset[str], where: str) -> None:
        environment = _sandbox()
        try:
            used = meta.find_undeclared_variables(environment.parse(source))
            self._template = environment.from_string(source)
        except TemplateError as error:
            raise TemplateInvalid(where, str(error)) from None
        for name in sorted(used - allowed):
            raise UnknownTemplateVariable(where, name, allowed)
        self.where = where
        self.variables = frozenset(used)

    def render(self, **values: object) -> str:
        """The prompt with these values. Raises TemplateInvalid."""
        try:
            return self._template.render(**values)
        except _TEMPLATE_ERRORS as error:
            raise TemplateInvalid(self.where, str(error)) from error


def braces_to_jinja(prompt: str) -> str:
    """`List every date in: {text}` as a Jinja template; `{{ text }}` is left unchanged."""
    return re.sub(r"(?<!\{)\{\s*([A-Za-z_]\w*)\s*\}(?!\})", r"{{ \1 }}", prompt)


def _user(content: str) -> Message:
    return {"role": "user", "content": content}


def _sandbox() -> Environment:
    return ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
        undefined=StrictUndefined,
        autoescape=False,
        extensions=["jinja2.ext.loopcontrols"],
    )


def _raise_exception(message: str) -> NoReturn:
    raise TemplateInvalid(_CHAT_TEMPLATE, message)
