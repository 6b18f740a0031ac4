"""Tables in the Markdown pages are complete, and the files that the pages name exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

TOP = [ROOT / name for name in ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = [*TOP, *sorted((ROOT / "docs").rglob("*.md"))]
_SEPARATOR = re.compile(r"\|( ?:?-+:? ?\|)+")
_PATH = re.compile(
    r"`((?:src|producer|worker|storage|migrations|tests|benchmarks|docs|deploy|\.ci|\.github)/[\w./*@-]*)`"
)


def prose(page: Path) -> str:
    """The page without its fenced blocks; lines keep their numbers."""
    text = page.read_text("utf-8")
    return re.sub(r"^ *```.*?^ *```", lambda match: "\n" * match[0].count("\n"), text, flags=re.DOTALL | re.MULTILINE)


def orphaned_rows(text: str) -> list[int]:
    """The numbers of lines that look like rows of a table but do not belong to one, such as rows after a blank line."""
    lines = ["", *text.splitlines()]
    orphans, in_table = [], False
    for number, line in enumerate(lines):
        if not line.startswith("|"):
            in_table = False
        elif not in_table:
            following = lines[number + 1] if number + 1 < len(lines) else ""
            in_table = _SEPARATOR.fullmatch(following) is not None
            if not in_table:
                orphans.append(number)
    return orphans


def missing_paths(page: Path) -> Iterator[str]:
    """The paths that the page's text names and that do not exist."""
    for path in _PATH.findall(prose(page)):
        known = list(ROOT.glob(path)) if "*" in path else [ROOT / path]
        if not any(found.exists() for found in known):
            yield path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_belongs_to_a_table(page: Path) -> None:
    assert orphaned_rows(prose(page)) == []


def test_rows_after_a_blank_line_are_found() -> None:
    assert orphaned_rows("| a | b |\n|---|---|\n| 1 | 2 |\n\n| 3 | 4 |\ntext\n") == [5]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_file_that_the_page_names_exists(page: Path) -> None:
    assert list(missing_paths(page)) == []


def test_links_between_pages_lead_to_files() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", prose(page)):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)}: {target}"


def test_every_page_is_in_the_navigation_of_the_site() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text("utf-8")
    pages = [str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")]
    assert [page for page in pages if page not in navigation] == []


def test_the_readme_names_directories_and_files_that_exist() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    tree = readme.partition("## Where things are")[2].partition("```text\n")[2].partition("```")[0]
    missing, parent = [], Path()
    for line in tree.splitlines():
        if line.startswith(" " * 10):  # a description that continues
            continue
        names = re.split(r" {2,}", line.strip())[0].split(", ")
        if not line.startswith(" "):
            parent = Path(names[0])
        missing += [name for name in names if not (ROOT / (parent / name if line.startswith(" ") else name)).exists()]
    assert tree
    assert missing == []
