"""From a system prompt and a user prompt to the token ids the model reads, by the model's own chat template.

The rendered template is split at the special tokens that the *template* wrote; everything between them, the
document's text included, is encoded with special tokens off. So a document cannot end its own turn, and for text
without special tokens the ids are those of the whole string encoded at once.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any, NoReturn

from jinja2 import Environment, StrictUndefined, TemplateError, meta
from jinja2.exceptions import SecurityError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from producer.errors import TemplateInvalid, UnknownTemplateVariable
from producer.tokens import ModelTokenizer

Message = dict[str, str]
_CHAT_TEMPLATE = "the model's chat template"


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt as the model reads it, and as people do."""

    ids: list[int]
    text: str


@dataclass(frozen=True, slots=True)
class _Layout:
    """A rendered template: its own text, with 0 and 1 where system and user text go; which of them it strips."""

    parts: list[str | int]
    strips: tuple[bool, bool]


class PromptRenderer:
    """Renders prompts of one model. The chat template runs in a sandbox, once for each shape of conversation."""

    def __init__(self, tokenizer: ModelTokenizer) -> None:
        self._tokenizer = tokenizer
        self._special_ids = tokenizer.vocabulary.special_ids
        longest_first = sorted(self._special_ids, key=len, reverse=True)
        self._special = re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")
        self._layouts: dict[bool, _Layout] = {}

    def render(self, system: str | None, user: str) -> RenderedPrompt:
        """The prompt of one turn, ready for the model's answer. Raises TemplateInvalid."""
        has_system = bool(system)
        if has_system not in self._layouts:
            self._layouts[has_system] = self._layout(has_system=has_system)
        layout = self._layouts[has_system]
        contents = [
            text.strip() if strips else text for text, strips in zip((system or "", user), layout.strips, strict=True)
        ]
        return self._encode(layout.parts, contents)

    def _layout(self, *, has_system: bool) -> _Layout:
        """Render the template with marks for the texts; white space around them shows whether it strips."""
        marks = [secrets.token_hex(16) for _ in range(2)]
        probes = [f" {mark} " for mark in marks]
        rendered = self._apply(probes[0] if has_system else "", probes[1])
        strips = (probes[0] not in rendered, probes[1] not in rendered)
        shown = [mark if stripped else probe for mark, probe, stripped in zip(marks, probes, strips, strict=True)]
        pieces = re.split(f"({'|'.join(map(re.escape, shown))})", rendered)
        parts = [shown.index(piece) if piece in shown else piece for piece in pieces if piece]
        if parts.count(1) != 1 or parts.count(0) != int(has_system):
            raise TemplateInvalid(_CHAT_TEMPLATE, "it does not insert each text once and unchanged")
        return _Layout(parts, strips)

    def _apply(self, system: str, user: str) -> str:
        if self._chat_template is None:
            return "\n\n".join(part for part in (system, user) if part)
        messages: list[Message] = [{"role": "user", "content": user}]
        try:
            if not system:
                return self._render_messages(messages)
            try:
                return self._render_messages([{"role": "system", "content": system}, *messages])
            except TemplateInvalid:  # a template without a system role, as Gemma's
                return self._render_messages([{"role": "user", "content": f"{system}\n\n{user}"}])
        except (TemplateError, SecurityError, TypeError) as error:
            raise TemplateInvalid(_CHAT_TEMPLATE, str(error)) from error

    def _render_messages(self, messages: Sequence[Message]) -> str:
        vocabulary = self._tokenizer.vocabulary
        template = self._chat_template
        assert template is not None  # noqa: S101 - checked by the caller
        rendered: str = template.render(
            messages=messages,
            add_generation_prompt=True,
            bos_token=vocabulary.bos_token,
            eos_token=vocabulary.eos_token,
            tools=None,
            documents=None,
        )
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

    def _encode(self, parts: Sequence[str | int], contents: Sequence[str]) -> RenderedPrompt:
        """Special tokens of the template become ids; the text between them is encoded in one go each."""
        ids: list[int] = []
        text: list[str] = []
        run = ""
        for part in parts:
            if isinstance(part, int):
                text.append(contents[part])
                run += contents[part]
                continue
            text.append(part)
            end = 0
            for found in self._special.finditer(part):
                ids += self._tokenizer.encode(run + part[end : found.start()])
                ids.append(self._special_ids[found.group()])
                run, end = "", found.end()
            run += part[end:]
        ids += self._tokenizer.encode(run)
        vocabulary = self._tokenizer.vocabulary
        if vocabulary.add_bos and vocabulary.bos_id is not None and ids[:1] != [vocabulary.bos_id]:
            ids.insert(0, vocabulary.bos_id)
        return RenderedPrompt(ids, "".join(text))


class TaskTemplate:
    """A prompt template of a task: Jinja in a sandbox, every variable known beforehand."""

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
        except (TemplateError, SecurityError, TypeError, ValueError, ZeroDivisionError) as error:
            raise TemplateInvalid(self.where, str(error)) from error


def braces_to_jinja(prompt: str) -> str:
    """`List every date in: {text}` as a Jinja template; Jinja's own `{{ text }}` stays."""
    return re.sub(r"(?<!\{)\{\s*([A-Za-z_]\w*)\s*\}(?!\})", r"{{ \1 }}", prompt)


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
