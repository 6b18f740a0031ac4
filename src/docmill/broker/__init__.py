"""What producer and worker share: the Celery app, queue names, messages, sampling parameters, access to Redis."""
