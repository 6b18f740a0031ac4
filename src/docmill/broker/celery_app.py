"""The Celery app that producer, worker and Flower share. Its settings make crashes harmless.

A job is a row in the database and a message only carries its id: there is no result backend, and a message may arrive
twice or never. Measured with celery 5.7 and kombu 5.7; with older versions of kombu, threads idle between tasks.
"""

from __future__ import annotations

from celery import Celery
from celery.loaders.app import AppLoader
from celery.utils.collections import DictAttribute

TASK_NAME = "docmill.run_job"
PRIORITIES = range(10)  # 0 is served first
DEFAULT_PRIORITY = 5


class _NoConfigFile(AppLoader):  # type: ignore[misc]
    """Ignores `CELERY_CONFIG_MODULE`, which would import a module from the current directory."""

    def read_configuration(self, env: str = "") -> DictAttribute:
        return DictAttribute({})


def make_app(broker_url: str) -> Celery:
    """A Celery app on this broker: `redis://`, `rediss://` or `redis+socket://` (see `socket_url`)."""
    app = Celery("docmill", broker=broker_url, loader=_NoConfigFile, set_as_current=False)
    app.conf.update(
        task_serializer="json",
        accept_content=["json"],
        result_serializer="json",
        task_ignore_result=True,
        task_acks_late=True,
        worker_prefetch_multiplier=1,
        # Leases in the database decide when a job is lost; redelivery by the broker is only a second safety net.
        broker_transport_options={
            "visibility_timeout": 24 * 3600,
            "unacked_restore_interval": 10,
            "unacked_restore_throttle": 1,
            "socket_timeout": 5,
            "socket_connect_timeout": 3,
            "socket_keepalive": True,
            "health_check_interval": 5,
            "priority_steps": list(PRIORITIES),
            "queue_order_strategy": "priority",
        },
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_channel_error_retry=True,  # wait for a broker whose memory is full
        worker_cancel_long_running_tasks_on_connection_loss=False,  # not implemented for threads
        worker_soft_shutdown_timeout=0,
        worker_enable_remote_control=True,
        worker_send_task_events=True,
        task_send_sent_event=False,  # it would halve the publishing rate
        worker_hijack_root_logger=False,
        task_create_missing_queues=True,
        worker_proc_alive_timeout=60,
    )
    return app


def queue_of(model: str) -> str:
    """The queue of a model. A worker subscribes to the queue of the model it serves."""
    return f"docmill.{model}"


def socket_url(path: str) -> str:
    """The broker URL of a unix socket."""
    return f"redis+socket://{path}"
