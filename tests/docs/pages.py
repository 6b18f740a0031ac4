"""Extracts commands and their expected output from Markdown pages, and compares it with the actual output.

A ```console block contains commands after `$ ` and their output. Comments before a block control how it is tested:

    <!-- not run by the tests: REASON -->   needs a GPU, a network or minutes; reported as skipped
    <!-- exit 1: REASON -->                 expected exit code; the default is 0
    <!-- numbers vary: REASON -->           numbers and their units are not compared
    <!-- first words only: REASON -->       only the beginning of each line is compared: columns, names of checks

In an output, `...` matches anything: any lines if it is alone on a line, otherwise any characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
LEARN = ROOT / "docs" / "learn"

_FENCE = re.compile(r"^(?P<indent> *)```(?P<language>\w*)\n(?P<body>.*?)^(?P=indent)```$", re.DOTALL | re.MULTILINE)
_COMMENTS = re.compile(r"((?:<!-- [^>]*-->\s*)+)\Z")
_DIRECTIVE = re.compile(r"<!-- (not run by the tests|exit \d+|numbers vary|first words only): ([^>]+?) -->")
_IDS_AND_PLACES = (
    (re.compile(r"\b\d{6}-[a-z0-9]{6}\b"), "BATCH"),
    (re.compile(r"\b[\w.-]+/(?:cpu|gpu)-?\d+"), "WORKER"),
    (re.compile(r"sqlite:///[\w./-]+|(?<![\w.])/[\w.-]+(?:/[\w.-]+)+"), "PATH"),
    (re.compile(r"(?<=documents done), [\d,]+ tokens/s"), ""),  # a very short run shows no speed
)
_NUMBERS = (
    (re.compile(r"\d+(?:[,.]\d+)*"), "N"),
    (re.compile(r"N (?:h|min)(?: N (?:min|s))?\b"), "N s"),
    (re.compile(r"N (?:[kMG]i?)?B\b"), "N bytes"),
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    language: str
    body: str
    directives: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def exit_code(self) -> int:
        return next((int(name.split()[1]) for name in self.directives if name.startswith("exit")), 0)


@dataclass(frozen=True, slots=True)
class Example:
    """A command with the output that the page shows."""

    command: str
    shown: tuple[str, ...]


def blocks(page: Path) -> Iterator[Block]:
    """The page's fenced blocks in order."""
    text = page.read_text("utf-8")
    for match in _FENCE.finditer(text):
        comments = _COMMENTS.search(text[: match.start()])
        directives = dict(_DIRECTIVE.findall(comments[1])) if comments else {}
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, match["language"], match["body"], directives)


def examples(block: Block) -> Iterator[Example]:
    """The commands of the block; a backslash at the end continues a command on the next line."""
    lines = iter(block.body.splitlines())
    command, shown = "", list[str]()
    for line in lines:
        if not line.startswith("$ "):
            shown.append(line)
            continue
        if command:
            yield Example(command, tuple(shown))
        command, shown = line[2:], []
        while command.endswith("\\"):
            command += "\n" + next(lines)
    if command:
        yield Example(command, tuple(shown))


def differs(block: Block, shown: tuple[str, ...], actual: str) -> str | None:
    """The difference between the shown and the actual output, or None if they match."""
    if "first words only" in block.directives:
        present = {first_words(line) for line in actual.splitlines()}
        missing = [line for line in shown if _names_something(line) and first_words(line) not in present]
        return "".join(f"missing: {line}\n" for line in missing) or None
    numbers_vary = "numbers vary" in block.directives
    pattern = "".join(_as_pattern(line, numbers_vary) for line in shown if line.strip())
    actual_text = "".join(masked(line, numbers_vary) + "\n" for line in actual.splitlines() if line.strip())
    if re.fullmatch(pattern, actual_text):
        return None
    expected = "".join(masked(line, numbers_vary) + "\n" for line in shown if line.strip())
    return f"--- shown on the page\n{expected}--- actual\n{actual_text}"


def masked(line: str, numbers_vary: bool) -> str:
    """The line with placeholders for everything that differs between runs, and with single spaces."""
    for pattern, name in _IDS_AND_PLACES + (_NUMBERS if numbers_vary else ()):
        line = pattern.sub(name, line)
    return " ".join(line.split())


def first_words(line: str) -> tuple[str, ...]:
    """The beginning of a line: the first two cells of a table row, but not its last cell; otherwise the first word."""
    line = re.sub(r"^(PASS|WARN|FAIL)\b", "", line).strip()
    cells = [masked(cell, numbers_vary=True) for cell in re.split(r" {2,}", line)]
    return tuple(cells[: min(2, len(cells) - 1)]) if len(cells) > 1 else tuple(line.split()[:1])


def _names_something(line: str) -> bool:
    return bool(line.strip()) and not line.strip().startswith(("->", "..."))


def _as_pattern(line: str, numbers_vary: bool) -> str:
    if line.strip() == "...":
        return r"(?:.*\n)*?"
    parts = [re.escape(part) for part in re.split(r" ?\.\.\. ?", masked(line, numbers_vary))]
    return ".*".join(parts) + r"\n"
