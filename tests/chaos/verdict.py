"""The auditor of a campaign: what `tests.integration.audit` finds, and whether each client got what it was promised."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import sqlalchemy as sa

from tests.chaos.schedule import Kind
from tests.integration.audit import unsettled

if TYPE_CHECKING:
    from tests.chaos.clients import Client
    from tests.chaos.cluster import Cluster


class Observed:
    """Texts of finished jobs as they were seen while faults went on: none may change or go."""

    def __init__(self) -> None:
        self.texts: dict[int, str] = {}
        self._looked_behind = 0

    def look(self, cluster: Cluster) -> None:
        """Note what has been finished since."""
        rows = cluster.rows(
            "SELECT id, job_id, text FROM results WHERE id > :last AND job_id IS NOT NULL ORDER BY id",
            last=max(0, self._looked_behind - 100),  # ids are given before they are committed
        )
        for row in rows or ():
            self.texts.setdefault(row.job_id, row.text)
            self._looked_behind = max(self._looked_behind, row.id)


def judge(cluster: Cluster, clients: list[Client], observed: Observed) -> list[str]:
    """Everything that is wrong, in words."""
    with cluster.plain.connect() as connection:
        found = unsettled(connection)
        for client in clients:
            found += [f"{client.label}: {wrong}" for wrong in _client(connection, client)]
        found += _texts(connection, observed)
        found += _charges(connection, cluster)
        found += _redone(connection, cluster)
        found += _reuse(connection)
    return found


def _client(connection: sa.Connection, client: Client) -> list[str]:
    """Its documents are there, each once, with the result it was promised."""
    batches = connection.execute(
        sa.text("SELECT id, state FROM batches WHERE CAST(metadata AS TEXT) LIKE :label"),
        {"label": f'%"{client.label}"%'},
    ).all()
    if client.batch_id not in [batch.id for batch in batches]:
        return [f"the batch {client.batch_id} that it was told of is not there"]
    wrong = []
    if len(batches) > (1 if client.plan.keyed else client.submits):
        wrong.append(f"{client.submits} submits made {len(batches)} batches")
    wanted = Counter(client.hashes)
    for batch in batches:
        if batch.state not in client.plan.ends:
            wrong.append(f"{batch.id} ended as {batch.state}")
        rows = connection.execute(
            sa.text(
                "SELECT d.content_hash, d.state, count(r.id) AS finals FROM documents d "
                "LEFT JOIN results r ON r.document_id = d.id AND r.final WHERE d.batch_id = :b "
                "GROUP BY d.id, d.content_hash, d.state"
            ),
            {"b": batch.id},
        ).all()
        if Counter(row.content_hash for row in rows) != wanted and (
            batch.id == client.batch_id or batch.state == "completed"
        ):
            wrong.append(f"{batch.id} has {len(rows)} documents, not the {sum(wanted.values())} that were submitted")
        allowed = ("done",) if batch.state == "completed" else ("done", "cancelled")
        wrong += [f"a document of {batch.id} is {row.state}" for row in rows if row.state not in allowed]
        wrong += [
            f"a document of {batch.id} that is {row.state} has {row.finals} final results"
            for row in rows
            if row.finals != (row.state == "done")
        ]
    return wrong


def _texts(connection: sa.Connection, observed: Observed) -> list[str]:
    now = {row.job_id: row.text for row in connection.execute(sa.text("SELECT job_id, text FROM results"))}
    changed = [job_id for job_id, text in observed.texts.items() if now.get(job_id) != text]
    return [f"results that changed or went after they were stored, of jobs {changed[:5]}"] if changed else []


def _charges(connection: sa.Connection, cluster: Cluster) -> list[str]:
    """Only an engine's death is charged, and to at most one job each; no job fails."""
    deaths = sum(fault.kind is Kind.ENGINE_KILLED for fault in cluster.campaign.faults)
    charged = connection.execute(sa.text("SELECT coalesce(sum(failures), 0) FROM jobs")).scalar_one()
    failed = connection.execute(sa.text("SELECT job_id, error FROM attempts WHERE outcome = 'failed'")).all()
    wrong = []
    if charged > deaths or len(failed) > deaths:
        wrong.append(
            f"{charged} failures charged, {len(failed)} attempts failed, for {deaths} engines killed: {failed[:3]}"
        )
    broken = connection.execute(sa.text("SELECT id, error_kind, error FROM jobs WHERE state = 'failed'")).all()
    return [*wrong, *(f"job {row.id} failed: {row.error_kind}: {row.error}" for row in broken)]


def _redone(connection: sa.Connection, cluster: Cluster) -> list[str]:
    """What was done again was in flight when something was done to it."""
    faults = len(cluster.campaign.faults)
    redone = connection.execute(
        sa.text("SELECT count(*) FROM attempts WHERE outcome IN ('lost', 'fenced', 'released')")
    ).scalar_one()
    bound = (faults + 1) * cluster.capacity
    return [f"{redone} runs were in vain; at most {bound} were in flight at {faults} faults"] if redone > bound else []


def _reuse(connection: sa.Connection) -> list[str]:
    """Equal jobs were computed once, and where that was not wanted each for itself."""
    twice = connection.execute(
        sa.text(
            "SELECT j.reuse_key, count(*) AS runs FROM jobs j JOIN batches b ON b.id = j.batch_id "
            "JOIN attempts a ON a.job_id = j.id AND a.outcome = 'succeeded' "
            "WHERE b.reuse AND j.reuse_key IS NOT NULL GROUP BY j.reuse_key, j.max_tokens HAVING count(*) > 1"
        )
    ).all()
    unwanted = connection.execute(
        sa.text(
            "SELECT r.job_id FROM results r JOIN jobs j ON j.id = r.job_id JOIN batches b ON b.id = j.batch_id "
            "WHERE r.reused_from IS NOT NULL AND NOT b.reuse"
        )
    ).all()
    wrong = [f"{len(twice)} kinds of equal jobs were computed more than once: {twice[:3]}"] if twice else []
    return [*wrong, *(f"job {row.job_id} took another's result against its batch's wish" for row in unwanted)]
