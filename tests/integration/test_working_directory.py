"""Files in the current directory that have the names of modules or of configuration files are never used."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from docmill.broker.child_processes import die_with_parent
from tests.homes import link_home
from tests.integration.conftest import wait_until
from tests.integration.test_flower import fetch, free_port

pytestmark = pytest.mark.slow

DOCMILL = str(Path(sysconfig.get_path("scripts")) / "docmill")
MODULES = (
    "cli.py", "settings.py", "worker.py", "storage/__init__.py", "click.py", "celeryconfig.py", "flowerconfig.py",
    "sitecustomize.py", "docmill.py", "redis.py", "queue.py", "random.py",
)  # fmt: skip
ALEMBIC = "[alembic]\nscript_location = nowhere\nprepend_sys_path = .\n"
TWO_GPUS = """
from docmill.cli.services.gpu_workers import Placement, run_workers
from docmill.sizing.gpu_devices import Gpu

placements = [Placement((Gpu(index, str(index), "pretended", 1 << 30, 1 << 30),)) for index in (0, 1)]
run_workers(placements, ["worker", "--engine", "simulated"], drain_timeout_s=0)
"""


class ConflictingDirectory:
    """A directory in which every file notes its name when it is used, and raises; docmill's commands run there."""

    def __init__(self, path: Path, home: Path) -> None:
        self.path = path
        self.used = path.parent / "used.txt"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("DOCMILL_")}
        self.environment |= {"DOCMILL_HOME": str(home), "DOCMILL_LLM__MODEL": "simulated", "PYTHONUNBUFFERED": "1"}
        self.environment["CELERY_CONFIG_MODULE"] = "celeryconfig"
        for name in MODULES:
            file = path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"with open({str(self.used)!r}, 'a') as used:\n    used.write({name!r} + ' ')\n1 / 0\n")
        (path / "alembic.ini").write_text(ALEMBIC)
        (path / "novel.txt").write_text("The harbour was quiet. " * 200)

    def call(self, *arguments: str) -> str:
        """What a command prints on standard output."""
        done = subprocess.run(
            [DOCMILL, *arguments],
            cwd=self.path, env=self.environment, capture_output=True, text=True, timeout=150, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"docmill {' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextmanager
    def running(self, *command: str) -> Iterator[Path]:
        """A process that runs as long as the block; yields the file that its output goes to."""
        log = self.path.parent / f"{len(list(self.path.parent.glob('*.log')))}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=self.path, env=self.environment, stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True, preexec_fn=die_with_parent,
            )  # fmt: skip
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)

    def assert_unused(self) -> None:
        used = self.used.read_text().split() if self.used.exists() else []
        assert used == [], "files of the current directory were used"


@pytest.fixture
def directory(home: Path, tmp_path: Path) -> ConflictingDirectory:
    link_home(home, tmp_path / "home")
    return ConflictingDirectory(tmp_path / "conflicting", tmp_path / "home")


def test_run_and_try_ignore_the_files_around_them(directory: ConflictingDirectory) -> None:
    directory.call("run", "novel.txt", "--engine", "simulated", "--chunk-tokens", "200", "--out", "summaries")
    assert (directory.path / "summaries" / "results.jsonl").stat().st_size
    directory.call("try", "Why is the sky blue?", "--engine", "simulated", "--max-tokens", "4")
    directory.assert_unused()


def test_services_ignore_the_files_around_them(directory: ConflictingDirectory) -> None:
    def workers() -> list[str]:
        return directory.call("query", "--csv", "SELECT name FROM workers WHERE stopped_at IS NULL").split()[1:]

    port = free_port()
    with directory.running(DOCMILL, "up", "--engine", "simulated") as log:
        wait_until(lambda: "serves simulated" in log.read_text(), "the worker of `docmill up`")
        with (
            directory.running(sys.executable, "-P", "-c", TWO_GPUS) as gpu_log,
            directory.running(DOCMILL, "flower", "--port", str(port)) as flower_log,
        ):
            wait_until(lambda: len(workers()) == 3, f"a worker on each GPU\n{gpu_log.read_text()}")
            wait_until(lambda: fetch(f"http://127.0.0.1:{port}/workers"), f"Flower\n{flower_log.read_text()}")
        batch_id = directory.call("submit", "--quiet", "novel.txt").strip()
        directory.call("status", batch_id, "--watch")
    directory.assert_unused()
