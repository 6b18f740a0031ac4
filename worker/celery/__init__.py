"""Everything that deals with Celery inside a worker."""
