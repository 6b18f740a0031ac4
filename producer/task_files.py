"""Tasks: what to ask about every chunk and how to merge the answers. A YAML file, built in or the user's own."""

from __future__ import annotations

from dataclasses import dataclass, field
from difflib import get_close_matches
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from docmill.broker.sampling_parameters import Sampling
from docmill.producer.errors import TaskInvalid
from docmill.producer.prompts import TaskTemplate, braces_to_jinja

_CHUNK_VARIABLES = frozenset({"text", "document", "index"})
_MERGE_VARIABLES = frozenset({"text", "document", "level"})
_REFINE_VARIABLES = frozenset({"text", "summary", "document", "index"})
_GENERIC_MERGE = (
    "These are answers for consecutive parts of one document, in order. Write one answer for the whole.\n\n{{ text }}"
)


class MergeStrategy(StrEnum):
    """How the answers of a document's chunks are merged into one."""

    TREE = "tree"  # neighbours are merged level by level until one is left
    REFINE = "refine"  # a summary is carried from chunk to chunk
    CONCAT = "concat"  # joined in order without asking the model again
    NONE = "none"  # every chunk keeps its own answer


class TaskFile(BaseModel):
    """The keys of a task's YAML file. A new key is added here; a batch stores it with its plan."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Annotated[str, Field(min_length=1, max_length=200)]
    description: str = ""
    system: str | None = None
    chunk: str
    merge: str = _GENERIC_MERGE
    refine: str | None = None
    sampling: dict[str, Any] = {}
    merge_strategy: MergeStrategy = MergeStrategy.TREE
    summary_tokens: Annotated[int, Field(ge=1)] = 400
    max_tokens: Annotated[int, Field(ge=1)] | None = None


@dataclass(frozen=True)
class Task:
    """A task with compiled templates. `file` is the part that a batch stores."""

    file: TaskFile
    chunk: TaskTemplate = field(repr=False)
    merge: TaskTemplate = field(repr=False)
    refine: TaskTemplate | None = field(repr=False)

    @classmethod
    def from_file(cls, file: TaskFile, where: str) -> Task:
        """Check every template and the sampling parameters. Raises ProducerError."""
        try:
            Sampling.from_json(file.sampling)
        except (TypeError, ValueError) as error:
            raise TaskInvalid(where, f"sampling: {error}") from None
        task = cls(
            file=file,
            chunk=TaskTemplate(file.chunk, _CHUNK_VARIABLES, f"{where}: chunk"),
            merge=TaskTemplate(file.merge, _MERGE_VARIABLES, f"{where}: merge"),
            refine=None if file.refine is None else TaskTemplate(file.refine, _REFINE_VARIABLES, f"{where}: refine"),
        )
        for template in (task.chunk, task.merge, task.refine):
            if template is not None and "text" not in template.variables:
                raise TaskInvalid(where, f"{template.where.rpartition(': ')[2]}: it does not use {{{{ text }}}}")
        return task


def builtin_names() -> list[str]:
    """The names of the built-in tasks."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in files("docmill.producer.builtin_tasks").iterdir()
        if entry.name.endswith(".yaml")
    )


def load_task(name_or_path: str) -> Task:
    """A built-in task by its name, or another by the path of its YAML file. Raises TaskInvalid."""
    if name_or_path in builtin_names():
        source = files("docmill.producer.builtin_tasks").joinpath(f"{name_or_path}.yaml").read_text("utf-8")
        return _parse(source, name_or_path)
    path = Path(name_or_path)
    if not path.is_file():
        near = get_close_matches(name_or_path, builtin_names(), n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise TaskInvalid(
            name_or_path,
            f"no such task; {hint}built in: {', '.join(builtin_names())}; or give the path of a YAML file",
        )
    try:
        return _parse(path.read_text("utf-8"), name_or_path)
    except (OSError, UnicodeDecodeError) as error:
        raise TaskInvalid(name_or_path, str(error)) from None


def task_from_prompt(prompt: str) -> Task:
    """A task from a prompt such as `List every date in: {text}`. The text follows a prompt without `{text}`."""
    template = braces_to_jinja(prompt)
    if "text" not in TaskTemplate(template, _CHUNK_VARIABLES, "--prompt").variables:
        template += "\n\n{{ text }}"
    return Task.from_file(TaskFile(name="prompt", chunk=template), "--prompt")


def _parse(source: str, where: str) -> Task:
    try:
        data = yaml.safe_load(source)
        file = TaskFile.model_validate(data)
    except yaml.YAMLError as error:
        raise TaskInvalid(where, f"not YAML: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "the file"
        near = get_close_matches(key, TaskFile.model_fields, n=1)
        hint = f" (did you mean {near[0]}?)" if first["type"] == "extra_forbidden" and near else ""
        raise TaskInvalid(where, f"{key}: {first['msg']}{hint}") from None
    return Task.from_file(file, where)
