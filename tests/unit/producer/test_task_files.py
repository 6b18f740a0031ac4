from __future__ import annotations

from pathlib import Path

import pytest

from docmill.producer.errors import ProducerError, TaskInvalid, UnknownTemplateVariable
from docmill.producer.task_files import MergeStrategy, builtin_names, load_task, task_from_prompt


def test_the_built_in_tasks_load_and_render() -> None:
    assert builtin_names() == ["key-points", "outline", "summarize"]
    for name in builtin_names():
        task = load_task(name)
        assert task.file.name == name
        assert task.file.description
        assert "The text." in task.chunk.render(text="The text.", document="a.txt", index=1)
        assert "The text." in task.merge.render(text="The text.", document="a.txt", level=1)
        if task.refine is not None:
            rendered = task.refine.render(text="The text.", summary="So far.", document="a.txt", index=2)
            assert "The text." in rendered
            assert "So far." in rendered


def write(tmp_path: Path, content: str) -> str:
    (tmp_path / "my.yaml").write_text(content)
    return str(tmp_path / "my.yaml")


def test_a_users_own_task_is_loaded_by_its_path(tmp_path: Path) -> None:
    task = load_task(
        write(
            tmp_path,
            """
            name: dates
            system: You list dates.
            chunk: "List every date in {{ document }}, part {{ index }}: {{ text }}"
            sampling: {temperature: 0.3, stop: ["END"]}
            merge_strategy: concat
            max_tokens: 99
            """,
        )
    )
    assert task.chunk.render(text="x", document="d", index=3) == "List every date in d, part 3: x"
    assert (task.file.merge_strategy, task.file.max_tokens, task.file.system) == (
        MergeStrategy.CONCAT,
        99,
        "You list dates.",
    )
    assert "{{ text }}" in task.file.merge


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("name: x\nchunk: '{{ text }}'\nsumary_tokens: 5", "sumary_tokens: .*did you mean summary_tokens"),
        ("name: x", "chunk: Field required"),
        (
            "name: x\nchunk: '{{ text }}'\nmerge_strategy: swirl",
            "merge_strategy: .*'tree', 'refine', 'concat' or 'none'",
        ),
        ("name: x\nchunk: '{{ text }}'\nsampling: {temperature: -2}", "temperature"),
        ("name: x\nchunk: '{{ text }}'\nsampling: {temprature: 1}", "temprature"),
        ("name: x\nchunk: '{{ text }}'\nsummary_tokens: 0", "summary_tokens"),
        ("name: x\nchunk: 'no text'", "chunk: it does not use {{ text }}"),
        ("name: x\nchunk: '{{ text }}'\nmerge: all of it", "merge: it does not use {{ text }}"),
        ("name: x\nchunk: '{{ txet }}'", "chunk: unknown variable 'txet'; did you mean text"),
        ("name: x\nchunk: '{{ text }}'\nmerge: '{{ text }} {{ summary }}'", "merge: unknown variable 'summary'"),
        ("name: x\nchunk: '{% for'", "chunk"),
        ("name: [unclosed", "not YAML"),
        ("- a list", "my.yaml"),
        ("", "my.yaml"),
    ],
)
def test_a_wrong_task_file_is_refused_with_the_place_and_the_nearest_name(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(ProducerError, match=message) as caught:
        load_task(write(tmp_path, content))
    assert "my.yaml" in str(caught.value)
    assert "\n" not in str(caught.value).strip() or "YAML" in str(caught.value)


def test_a_task_that_is_not_there_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(TaskInvalid, match="did you mean summarize"):
        load_task("sumarize")
    with pytest.raises(TaskInvalid, match="key-points, outline, summarize"):
        load_task(str(tmp_path / "none.yaml"))
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TaskInvalid, match=r"binary\.yaml"):
        load_task(str(tmp_path / "binary.yaml"))


@pytest.mark.parametrize(
    ("prompt", "rendered"),
    [
        ("List every date in: {text}", "List every date in: BODY"),
        ("List every date.", "List every date.\n\nBODY"),
        ("{{ text | length }} characters: {{ text }}", "4 characters: BODY"),
        ("In {document} {index} the text says?", "In a.txt 2 the text says?\n\nBODY"),
    ],
)
def test_a_prompt_on_the_spot_is_a_task(prompt: str, rendered: str) -> None:
    task = task_from_prompt(prompt)
    assert task.chunk.render(text="BODY", document="a.txt", index=2) == rendered
    assert task.file.merge_strategy is MergeStrategy.TREE


def test_a_prompt_on_the_spot_with_an_unknown_variable_is_refused() -> None:
    with pytest.raises(UnknownTemplateVariable, match=r"--prompt.*'date'"):
        task_from_prompt("List every {date} in {text}")
