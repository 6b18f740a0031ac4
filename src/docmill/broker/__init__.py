"""What producer and worker agree on: the Celery app, queue names, the message, the sampling parameters."""
