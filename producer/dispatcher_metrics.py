"""The dispatcher's Prometheus metrics: its own counts, and the queues in the database at the time of the scrape."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from docmill.producer.dispatcher import DispatchCounts
from docmill.storage.errors import StorageError
from docmill.storage.reads.reports import Reports

_COUNTERS = (
    ("docmill_dispatcher_published", "Messages sent to the broker.", "published"),
    ("docmill_dispatcher_rescued", "Jobs of workers that stopped responding, requeued or failed.", "rescued"),
    ("docmill_dispatcher_documents_advanced", "Levels of documents completed.", "documents_advanced"),
    ("docmill_dispatcher_failed_rounds", "Rounds that an error ended.", "failed_rounds"),
)
_BY_MODEL = (
    ("docmill_queue_depth", "Jobs published to the broker and not yet claimed.", "announced"),
    ("docmill_jobs_waiting", "Queued jobs that are not in the broker yet.", "waiting"),
    ("docmill_jobs_running", "Jobs that workers are running.", "running"),
    ("docmill_workers", "Workers seen within the last minute.", "workers"),
    ("docmill_workers_slots", "Jobs that these workers can run at once.", "slots"),
    ("docmill_batches_in_progress", "Batches in progress.", "batches"),
    ("docmill_documents_open", "Documents of these batches that are not finished.", "documents_open"),
)


class DispatcherMetrics(Collector):
    """Each scrape costs a few queries, whatever the number of jobs."""

    def __init__(self, counts: DispatchCounts, reports: Reports) -> None:
        self._counts = counts
        self._reports = reports

    def describe(self) -> list[Metric]:
        """Nothing, so that the dispatcher can start while the database does not answer."""
        return []

    def collect(self) -> Iterator[Metric]:
        for name, text, attribute in _COUNTERS:
            yield CounterMetricFamily(name, text, getattr(self._counts, attribute))
        yield GaugeMetricFamily(
            "docmill_dispatcher_last_round_timestamp_seconds",
            "When the last round finished.",
            self._counts.last_round_at,
        )
        try:
            queues = self._reports.queues()
        except StorageError:
            yield GaugeMetricFamily("docmill_database_up", "1 when the database answered.", 0)
            return
        yield GaugeMetricFamily("docmill_database_up", "1 when the database answered.", 1)
        for name, text, attribute in _BY_MODEL:
            family = GaugeMetricFamily(name, text, labels=["model"])
            for queue in queues:
                family.add_metric([queue.model], getattr(queue, attribute))
            yield family
