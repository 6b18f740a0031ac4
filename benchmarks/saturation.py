"""The share of the bare engine's speed that docmill reaches, end to end.

Two engines with the same model and settings run in two processes. In every round both process the same prompts, one
after the other: the bare engine in a minimal loop (add everything, step until all is done), docmill by submitting
documents to a running stack (broker, dispatcher, worker) and waiting for the batch. The result is the median ratio of
their tokens per second (prompt + generated), which is meaningful even if the machine's speed drifts. Every round uses
new prompts, so that no prefix cache contains them.

With `--measures both` the rounds are repeated without samples and exported metrics. This gives the cost of measuring,
in tokens per second and, since the machine's speed drifts more than that, in CPU time per job of docmill's processes.

docmill's time starts when the batch's rows are written (`in_progress_at`) and ends when the batch is completed. It
includes publishing, claims, heartbeats, storing results and ending the batch, but not chunking (see producer.py).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import psutil
from sqlalchemy import select

from benchmarks.machine import describe_machine
from benchmarks.text import prose
from docmill.broker.sampling_parameters import Sampling
from docmill.catalogue.pull import pull
from docmill.cli.services.stack import Stack
from docmill.cli.services.worker_options import WorkerFlags, worker_options
from docmill.producer.composition import Backend
from docmill.producer.submission import SubmitOptions
from docmill.producer.wait_for_batch import batch_statuses
from docmill.settings.defaults import Settings
from docmill.settings.load import load_settings
from docmill.storage.states import BatchState
from docmill.storage.tables import Job
from docmill.worker.engines.base import Request
from docmill.worker.engines.load_engine import load_engine
from docmill.worker.engines.spec import EngineSpec

MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class Run:
    """The result of one side in one round."""

    tokens: int
    seconds: float

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.seconds


def main() -> int:
    options = _options()
    home = Path(options.home).absolute() if options.home else Path(tempfile.mkdtemp(prefix="docmill-saturation-"))
    pull(MODEL, home)
    model = "simulated" if options.engine == "simulated" else MODEL
    settings = load_settings(
        environment={"DOCMILL_HOME": str(home)}, overrides={"llm.model": model, "worker.slots": options.slots}
    )
    spec = worker_options(settings, None, WorkerFlags(model, options.engine, options.slots)).spec
    print(f"# {describe_machine()}", file=sys.stderr)
    kinds = ("off", "on") if options.measures == "both" else (options.measures,)
    rounds, cpu_ms = [], {}
    for kind in kinds:
        rounds, cpu_ms[kind] = _with_measures(kind, settings, spec, options)
    ratios = [docmill.tokens_per_s / bare.tokens_per_s for bare, docmill in rounds]
    report = {
        "machine": describe_machine(),
        "engine": spec.engine,
        "model": model,
        "slots": spec.slots,
        "jobs_a_round": options.jobs,
        "max_tokens": options.max_tokens,
        "bare_tokens_per_s": [round(bare.tokens_per_s, 1) for bare, _ in rounds],
        "docmill_tokens_per_s": [round(docmill.tokens_per_s, 1) for _, docmill in rounds],
        "ratios": [round(ratio, 3) for ratio in ratios],
        "median_ratio": round(statistics.median(ratios), 3),
        "docmill_cpu_ms_a_job": {kind: round(ms, 2) for kind, ms in cpu_ms.items()},
    }
    if options.json:
        print(json.dumps(report))
    else:
        for name, value in report.items():
            print(f"{name:22} {value}")
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=48, help="jobs per round (default 48)")
    parser.add_argument("--slots", type=int, default=16, help="concurrent jobs in the engine (default 16)")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--chunk-tokens", type=int, default=700)
    parser.add_argument("--engine", default="auto", help="auto, openvino, llamacpp or simulated")
    parser.add_argument("--measures", choices=("on", "off", "both"), default="on", help="samples, exported metrics")
    parser.add_argument("--home", help="home with the model (default: a new one, the model is downloaded)")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


_MEASURES = {
    "on": {"WORKER__SAMPLE_S": "1", "WORKER__METRICS_PORT": "19471", "PRODUCER__METRICS_PORT": "19472"},
    "off": {"WORKER__SAMPLE_S": "0"},
}


def _with_measures(
    kind: str, settings: Settings, spec: EngineSpec, options: argparse.Namespace
) -> tuple[list[tuple[Run, Run]], float]:
    """Run the rounds with measurements on (one sample per second, ten times the default) or off."""
    print(f"# measures {kind}", file=sys.stderr)
    chosen = {f"DOCMILL_{name}": value for name, value in _MEASURES[kind].items()}
    os.environ.update(chosen)
    try:
        return _measure(settings, spec, options)
    finally:
        for name in chosen:
            del os.environ[name]


def _measure(settings: Settings, spec: EngineSpec, options: argparse.Namespace) -> tuple[list[tuple[Run, Run]], float]:
    """The rounds, and milliseconds of CPU time per job of worker and dispatcher, without the engine."""
    stack = Stack(
        settings, ["--home", str(settings.home)], model=spec.model.name, engine=spec.engine, slots=options.slots
    )
    with Bare(spec) as bare, stack:
        backend = Backend(settings)
        while not backend.reports.workers():
            stack.check()
            time.sleep(0.1)
        _round(backend, bare, options, number=0, jobs=options.slots)  # warm-up
        rounds, before_s = [], _cpu_s()
        for number in range(1, options.rounds + 1):
            pair = _round(backend, bare, options, number=number, jobs=options.jobs)
            print(f"# round {number}: bare {pair[0].tokens_per_s:,.0f}, docmill {pair[1].tokens_per_s:,.0f} tokens/s",
                  file=sys.stderr)  # fmt: skip
            rounds.append(pair)
        return rounds, (_cpu_s() - before_s) * 1000 / (options.rounds * options.jobs)


def _cpu_s() -> float:
    """CPU time of the services' own processes, `python -m docmill ...`; the engine is a child of the worker."""
    times = [child.cpu_times() for child in psutil.Process().children() if "docmill" in child.cmdline()]
    return sum(spent.user + spent.system for spent in times)


def _round(backend: Backend, bare: Bare, options: argparse.Namespace, *, number: int, jobs: int) -> tuple[Run, Run]:
    """One round. docmill's side determines the prompts; the order of the two sides alternates."""
    with tempfile.TemporaryDirectory() as scratch:
        document = Path(scratch) / f"round-{number}.txt"
        document.write_text(prose(seed=number, characters=jobs * options.chunk_tokens * 3), encoding="utf-8")
        chosen = SubmitOptions(
            merge="none", chunk_tokens=options.chunk_tokens, max_tokens=options.max_tokens,
            sampling={"temperature": 0.0}, reuse=False,
        )  # fmt: skip
        batch_id = backend.submit(backend.prepare((str(document),), chosen)).id
        requests = _requests(backend, batch_id)
        # Every two seconds, because each query costs the engine CPU time.
        *_, status = batch_statuses(backend.reports, batch_id, interval_s=2.0)
    assert status.state is BatchState.COMPLETED, status
    assert status.ended_at is not None
    assert status.in_progress_at is not None
    docmill = Run(status.prompt_tokens + status.completion_tokens, status.ended_at - status.in_progress_at)
    return bare.run(requests), docmill


def _requests(backend: Backend, batch_id: str) -> list[Request]:
    with backend.database.read() as session:
        jobs = session.scalars(select(Job).where(Job.batch_id == batch_id).order_by(Job.id)).all()
    return [
        Request(str(job.id), tuple(job.prompt_ids), job.max_tokens, Sampling.from_json(job.sampling),
                tuple(job.stop_token_ids))
        for job in jobs
    ]  # fmt: skip


class Bare:
    """The bare engine, in its own process like docmill's."""

    def __init__(self, spec: EngineSpec) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_bare_loop, args=(theirs, spec), daemon=True)
        self._process.start()

    def __enter__(self) -> Bare:
        return self

    def __exit__(self, *_error: object) -> None:
        self._connection.send(None)
        self._process.join(10)

    def run(self, requests: Sequence[Request]) -> Run:
        self._connection.send(requests)
        tokens, seconds = self._connection.recv()
        return Run(tokens, seconds)


def _bare_loop(connection: Connection, spec: EngineSpec) -> None:
    engine = load_engine(spec)
    while requests := connection.recv():
        began = time.monotonic()
        for request in requests:
            engine.add(request)
        tokens = 0
        while engine.in_flight:
            tokens += sum(done.prompt_tokens + done.completion_tokens for done in engine.step())
        connection.send((tokens, time.monotonic() - began))
    engine.close()


if __name__ == "__main__":
    sys.exit(main())
