"""Write results in input order: one Markdown file per document, JSON Lines, CSV."""

from __future__ import annotations

import csv
import json
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from docmill.storage.reads.documents import DocumentReport
from docmill.storage.states import DocumentState

_STEM_BYTES = 200  # file systems allow 255 bytes including suffixes
_UNSAFE = re.compile(r"[^\w.\- ]+")
_CSV_FIELDS = (
    "document", "state", "summary", "error", "chunks", "levels", "tokens", "prompt_tokens", "completion_tokens",
    "seconds",
)  # fmt: skip


def as_record(report: DocumentReport) -> dict[str, Any]:
    """A document as a JSON object: its summary or its windows' answers, and the tokens and seconds they took."""
    record: dict[str, Any] = {
        "document": report.name,
        "source": report.source,
        "state": str(report.state),
        "summary": report.summary,
        "error": report.error,
        "remarks": list(report.remarks),
        "chunks": report.chunk_count,
        "levels": report.levels,
        "characters": report.characters,
        "tokens": report.tokens,
        "prompt_tokens": report.prompt_tokens,
        "cached_tokens": report.cached_tokens,
        "completion_tokens": report.completion_tokens,
        "seconds": None if report.seconds is None else round(report.seconds, 3),
    }
    if report.windows:
        record["windows"] = [
            {"index": w.position, "start": w.char_start, "end": w.char_end, "text": w.text} for w in report.windows
        ]
    return record


def as_markdown(report: DocumentReport) -> str:
    """A document as Markdown."""
    lines = [f"# {report.name}", ""]
    if report.error or report.state is not DocumentState.DONE:
        lines += [f"**{report.state}**{f': {report.error}' if report.error else ''}", ""]
    if report.summary is not None:
        lines += [report.summary.strip(), ""]
    for window in report.windows:
        lines += [f"## Characters {window.char_start} to {window.char_end}", "", window.text.strip(), ""]
    for remark in report.remarks:
        lines += [f"> {remark}", ""]
    return "\n".join(lines)


def write_jsonl(reports: Iterable[DocumentReport], out: TextIO) -> None:
    """One JSON object per line."""
    for report in reports:
        out.write(json.dumps(as_record(report), ensure_ascii=False) + "\n")


def write_csv(reports: Iterable[DocumentReport], out: TextIO) -> None:
    """A header and one row per document. Without a summary, the windows' answers are joined by blank lines."""
    writer = csv.DictWriter(out, _CSV_FIELDS, extrasaction="ignore")
    writer.writeheader()
    for report in reports:
        record = as_record(report)
        if record["summary"] is None and report.windows:
            record["summary"] = "\n\n".join(window.text for window in report.windows)
        writer.writerow(record)


def write_markdown(reports: Iterable[DocumentReport], out: TextIO) -> None:
    """All documents, one after the other."""
    for report in reports:
        out.write(as_markdown(report) + "\n")


def write_directory(reports: Iterable[DocumentReport], directory: Path) -> list[Path]:
    """One Markdown file per document and `results.jsonl`, each replaced atomically. Returns the files."""
    directory.mkdir(parents=True, exist_ok=True)
    written: list[Path] = []
    lines = directory / "results.jsonl.part"
    with lines.open("w", encoding="utf-8") as out:
        for report, path in _with_paths(reports, directory):
            part = path.with_suffix(".md.part")
            part.write_text(as_markdown(report), encoding="utf-8")
            part.replace(path)
            written.append(path)
            write_jsonl([report], out)
        out.flush()
        os.fsync(out.fileno())
    return [*written, lines.replace(directory / "results.jsonl")]


def _with_paths(reports: Iterable[DocumentReport], directory: Path) -> Iterator[tuple[DocumentReport, Path]]:
    taken: set[str] = set()
    for report in reports:
        name = stem = _stem(report.name)
        number = report.position
        while name.lower() in taken:
            name, number = f"{stem}-{number}", number + 1
        taken.add(name.lower())
        yield report, directory / f"{name}.md"


def _stem(name: str) -> str:
    """A file name for a document's name: without directories and not too long."""
    safe = _UNSAFE.sub("_", name.replace("/", "__")).strip(". ")
    return safe.encode()[:_STEM_BYTES].decode(errors="ignore").rstrip() or "document"
