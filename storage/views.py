"""The views for users' SQL and `docmill export`. Views are stable: their names and columns stay, tables may change.

Migrations create the views, and docs/sql.md explains their columns. This module has the type of each column, and reads
a batch's rows in pages, so that memory use does not depend on their number.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import bindparam, select, text

from docmill.storage.attempt_metrics import METRIC_TYPES
from docmill.storage.database import Database
from docmill.storage.tables import Job

_PAGE = 500
Kind = type[int] | type[float] | type[str]


def _columns(names: str) -> dict[str, Kind]:
    """Parse `name:i` for an integer, `name:f` for a float and `name` for text. Every column may be NULL."""
    kinds: Mapping[str, Kind] = {"i": int, "f": float, "": str}
    parts = (part.partition(":") for part in names.split())
    return {name: kinds[kind] for name, _, kind in parts}


def _metric_columns() -> dict[str, Kind]:
    """The metrics of an attempt, with the values derived from them where the views show them."""
    derived_after = {
        "decode_s": _columns("run_s:f engine_s:f"),
        "completion_tokens": _columns("prefill_tokens_per_s:f tokens_per_s:f"),
    }
    found = _columns("prompt_tokens:i waited_s:f")
    for name, kind in METRIC_TYPES.items():
        found |= {name: kind} | derived_after.get(name, {})
    return found


_METRICS = _metric_columns()

VIEWS: Mapping[str, Mapping[str, Kind]] = {
    "v_jobs": _columns(
        "job:i batch document_id:i document level:i position:i char_start:i char_end:i model state priority:i "
        "prompt_tokens:i max_tokens:i attempts:i failures:i losses:i deaths:i reused_from:i reused_tokens:i worker "
        "engine created_at:f started_at:f finished_at:f"
    )
    | _METRICS
    | _columns("finish_reason text error_kind error"),
    "v_attempts": _columns(
        "job:i attempt:i batch document_id:i document level:i position:i outcome worker engine model "
        "started_at:f finished_at:f"
    )
    | _METRICS
    | _columns("error_kind error"),
    "v_documents": _columns(
        "document_id:i batch position:i document source state characters:i tokens:i chunks:i levels:i jobs:i "
        "jobs_failed:i jobs_reused:i attempts:i prompt_tokens:i cached_tokens:i completion_tokens:i engine_s:f "
        "energy_j:f created_at:f started_at:f finished_at:f seconds:f summary error"
    ),
    "v_workers": _columns(
        "worker model engine state slots:i slots_used:i started_at:f seen_at:f stopped_at:f paused_at:f up_s:f "
        "samples:i occupancy:f worker_cpu_percent:f engine_cpu_percent:f gpu_percent:f power_w:f peak_rss_bytes:i "
        "peak_vram_bytes:i jobs:i prompt_tokens:i cached_tokens:i completion_tokens:i"
    ),
    "v_samples": _columns(
        "worker at:f minute:i slots:i slots_used:i occupancy:f rss_bytes:i worker_cpu_percent:f "
        "engine_cpu_percent:f vram_bytes:i gpu_percent:f power_w:f jobs:i prompt_tokens:i cached_tokens:i "
        "completion_tokens:i tokens_per_s:f"
    ),
    "v_throughput": _columns(
        "day at:i batch model worker succeeded:i reused:i failed:i prompt_tokens:i cached_tokens:i "
        "completion_tokens:i tokens_per_s:f engine_s:f batch_size:f energy_j:f"
    ),
}


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a view: its columns with their types, and the values in the same order."""

    columns: Mapping[str, Kind]
    values: Iterator[Sequence[Any]]


def documents_of(database: Database, batch_id: str) -> Rows:
    """A batch's documents (`v_documents`), in input order."""
    columns = VIEWS["v_documents"]
    return Rows(columns, _documents(database, batch_id, ", ".join(columns)))


def jobs_of(database: Database, batch_id: str) -> Rows:
    """A batch's jobs (`v_jobs`), by id."""
    return Rows(VIEWS["v_jobs"], _by_jobs(database, batch_id, "v_jobs", "job"))


def attempts_of(database: Database, batch_id: str) -> Rows:
    """The attempts of a batch's jobs (`v_attempts`), by job and number."""
    return Rows(VIEWS["v_attempts"], _by_jobs(database, batch_id, "v_attempts", "job, attempt"))


def _by_jobs(database: Database, batch_id: str, view: str, order: str) -> Iterator[Sequence[Any]]:
    """Read the rows of a few hundred jobs at a time.

    The ids of all jobs, eight bytes each, are read first: a page that continued after the last id would search all of
    the batch's jobs again.
    """
    ids = array("q")
    with database.read() as session:
        found = select(Job.id).where(Job.batch_id == batch_id).order_by(Job.id)
        for some in session.scalars(found.execution_options(yield_per=10_000)).partitions():
            ids.extend(some)
    page = text(
        f"SELECT {', '.join(VIEWS[view])} FROM {view} WHERE job IN :ids ORDER BY {order}"  # noqa: S608
    ).bindparams(bindparam("ids", expanding=True))
    for first in range(0, len(ids), _PAGE):
        with database.read() as session:
            rows = session.execute(page, {"ids": ids[first : first + _PAGE].tolist()}).all()
        yield from rows


def _documents(database: Database, batch_id: str, columns: str) -> Iterator[Sequence[Any]]:
    """Read by ranges of positions: with LIMIT, every page would aggregate all of the batch's jobs."""
    page = text(
        f"SELECT {columns} FROM v_documents "  # noqa: S608
        "WHERE batch = :batch AND position >= :first AND position < :behind ORDER BY position"
    )
    with database.read() as session:
        last = session.execute(
            text("SELECT max(position) FROM documents WHERE batch_id = :batch"), {"batch": batch_id}
        ).scalar_one()
    for first in range(0, -1 if last is None else last + 1, _PAGE):
        with database.read() as session:
            rows = session.execute(page, {"batch": batch_id, "first": first, "behind": first + _PAGE}).all()
        yield from rows
