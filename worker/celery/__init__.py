"""The worker's use of Celery: task, consumer, pausing, log filters."""
