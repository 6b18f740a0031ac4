"""docmill with TLS and passwords, on a real Valkey and a real Postgres."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import trustme

from tests.integration.conftest import Cluster, wait_until
from tests.security.conftest import Guarded

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def docmill(cluster: Cluster, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a docmill command with the settings of the cluster, some of them changed."""
    return subprocess.run(
        [sys.executable, "-m", "docmill", *arguments],
        capture_output=True, text=True, cwd=ROOT, env={**cluster.environment, **environment}, timeout=120, check=False,
    )  # fmt: skip


def test_a_batch_runs_through_tls_and_passwords_and_nothing_that_is_said_holds_one(guarded: Guarded) -> None:
    cluster = guarded.cluster
    cluster.environment["DOCMILL_LOG_LEVEL"] = "DEBUG"
    (worker,) = cluster.start()
    dispatcher = cluster.services[0]
    batch_id = cluster.submit(cluster.documents(2, words=60))
    cluster.wait_for_end(batch_id)
    cluster.audit()

    health = docmill(cluster, "health", "--worker")
    assert (health.returncode, health.stderr) == (0, "")
    assert health.stdout.startswith("ok: broker, database, ")
    shown = docmill(cluster, "config", "show", "--json")
    masked = {row["key"] for row in json.loads(shown.stdout) if "***" in str(row["value"])}
    assert masked == {"broker.url", "storage.url"}

    cluster.broker.stop()
    cluster.submit(cluster.documents(1, words=20, start=2))
    wait_until(lambda: "accept messages" in dispatcher.log.read_text(), f"a complaint\n{cluster.last_words()}")
    wait_until(lambda: "onnection to broker lost" in worker.log.read_text(), f"a complaint\n{cluster.last_words()}")

    said = [health.stdout, shown.stdout, *(service.log.read_text() for service in cluster.services)]
    for secret in guarded.secrets:
        assert not any(secret in text for text in said)


def test_a_strangers_certificate_and_a_wrong_password_are_refused_in_one_line_without_it(
    guarded: Guarded, tmp_path: Path
) -> None:
    cluster = guarded.cluster
    stranger = tmp_path / "stranger.pem"
    trustme.CA().cert_pem.write_to_path(stranger)
    passwords = {"DOCMILL_BROKER__URL": guarded.broker_password, "DOCMILL_STORAGE__URL": guarded.database_password}
    for name, right in passwords.items():
        url = cluster.environment[name]
        cases = {
            "certificate verify failed": url.replace(str(guarded.authority), str(stranger)),
            "password": url.replace(right, "hunter2"),
        }
        for reason, other in cases.items():
            refused = docmill(cluster, "health", **{name: other})
            assert refused.returncode == 1
            (line,) = refused.stderr.splitlines()
            assert reason in line
            assert not any(secret in line for secret in (*guarded.secrets, "hunter2"))
