"""MkDocs hook: add the Markdown files of the top directory to the documentation site.

Their links are relative to the top directory. Links to pages below docs/ are rewritten; links to source files, which
are not part of the site, become plain text.
"""

from __future__ import annotations

import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).parents[1]
PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security-policy.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(!?)\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]*)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each file of PAGES."""
    for source, page in PAGES.items():
        text = (TOP / source).read_text("utf-8")
        files.append(File.generated(config, page, content=_LINK.sub(_rewritten, text)))
    return files


def on_page_markdown(markdown: str, **_: object) -> str:
    """Point links from pages below docs/ to the top directory at the generated pages."""
    for source, page in PAGES.items():
        markdown = markdown.replace(f"](../../{source}", f"](../{page}").replace(f"](../{source}", f"]({page}")
    return markdown


def _rewritten(match: re.Match[str]) -> str:
    image, text, target, anchor = match[1], match[2], match[3], match[4] or ""
    if target in PAGES:
        return f"{image}[{text}]({PAGES[target]}{anchor})"
    target = target.removesuffix("/")
    if target.startswith("docs/") and not target.endswith(".md") and not image:
        target += "/README.md"
    if target.startswith("docs/"):
        return f"{image}[{text}]({target.removeprefix('docs/')}{anchor})"
    return text
